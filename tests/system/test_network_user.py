"""As root: services that face the network have a user of their own, mail_network_user."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port, installation
from tests.system.processes import session_members, wait_until

pytestmark = pytest.mark.root

FACING = ("smtpd", "smtp", "lmtp", "qmqpd", "postscreen", "dnsblog", "mta-sts", "tlsproxy")

MODULE = """\
from daemons.{name} import SERVICE as REAL
from daemons.intruder import intrude

SERVICE = intrude(REAL)
"""


def install_intruders() -> None:
    daemons = installation() / "lib/postfix/daemons"
    shutil.copy(Path(__file__).with_name("intruder.py"), daemons / "intruder.py")
    for name in FACING:
        module = name.replace("-", "_")
        (daemons / f"in_{module}.py").write_text(MODULE.format(name=module))


def plant_secrets(system: MailSystem) -> None:
    """What nobody but mail_owner, or root, may read."""
    owner = pwd.getpwnam("postfix")
    for name, uid in (
        ("queue/hold/SECRET", owner.pw_uid),
        ("data/cache.lmdb", owner.pw_uid),
        ("etc/passwords", owner.pw_uid),
    ):
        path = system.top / name
        path.touch(mode=0o600)
        os.chown(path, uid, owner.pw_gid)
        path.chmod(0o600)


def intrude_everywhere(system: MailSystem) -> None:
    install_intruders()
    ports = {name: free_port() for name in FACING}
    lines = [f"127.0.0.1:{port} inet n - n - - in_{name}" for name, port in ports.items()]
    system.configure({"postscreen_cache_map": ""}, lines)
    assert system.run("postfix", "check").returncode == 0
    plant_secrets(system)
    system.allow("not owned by root: .*/passwords")
    system.allow("connection from a user outside of the mail system|client broke the protocol")
    system.allow("postscreen|tlsproxy|TLS|tls|SASL")  # which are configured as little as can be
    system.start()
    system.sendmail("-f", "", "alice@virtual.test", stdin=b"Subject: x\n\nx\n")
    system.wait_for_queue_empty()  # qmgr and others run
    programs = {"qmgr", "pickup", "cleanup", "virtual", "master"}
    members = [
        one for one in session_members(system.session) if program_of(one.title()) in programs
    ]
    (system.config_directory / "pids").write_text(" ".join(str(one.pid) for one in members))
    for name, port in ports.items():
        with socket.create_connection(("127.0.0.1", port)):
            system.wait_for_log(f"intruder in {name}: [0-9]+ attempts as ")


def test_what_faces_the_network_can_do_nothing_else(make_system: MakeSystem) -> None:
    system = make_system(privileged=True)
    intrude_everywhere(system)
    uid = pwd.getpwnam(system.main["mail_network_user"]).pw_uid
    assert len(system.log_lines(f"intruder in .* attempts as {uid}$")) == len(FACING)
    assert system.log_lines("intruder in .*: done") == []


def test_the_attempts_would_succeed_as_mail_owner(make_system: MakeSystem) -> None:
    """What the test before this one shows follows from the user, and from the filter."""
    main = {"mail_network_user": "postfix", "mail_network_syscall_filter": "no"}
    system = make_system(privileged=True, main=main)
    intrude_everywhere(system)
    for name in FACING:
        done = "\n".join(system.log_lines(f"intruder in {name}: .*: done"))
        for wanted in (
            "list incoming", "write in hold", "write in data_directory", "read a message",
            "read a table", "ask local", "ask virtual", "flush the queue", "list the queue",
            "become mail_owner", ": signal ", "make a file", "start a process",
            "execute a program", "talk to the kernel",
        ):  # fmt: skip
            assert wanted in done, (name, wanted)
        for never in ("become root", "write in pid", ": trace ", "read memory"):
            assert never not in done, (name, never)


def test_what_the_kernel_refuses(make_system: MakeSystem) -> None:
    """Where the user is that of the other services: libmail.service.seccomp alone."""
    system = make_system(privileged=True, main={"mail_network_user": "postfix"})
    intrude_everywhere(system)
    for name in FACING:
        done = "\n".join(system.log_lines(f"intruder in {name}: .*: done"))
        assert "read a message" in done
        for never in (
            "write in hold", "write in data_directory", "make a file", "start a process",
            "execute a program", "talk to the kernel", ": signal ", ": trace ", "read memory",
        ):  # fmt: skip
            assert never not in done, (name, never)


def program_of(title: str) -> str:
    return Path(title.split()[0]).name if title.split() else ""


def test_without_the_account_all_is_as_before(make_system: MakeSystem) -> None:
    system = make_system(privileged=True, main={"mail_network_user": "no-such-user"})
    system.allow("mail_network_user: there is no account no-such-user")
    done = system.run("postfix", "check")
    assert (
        b"there is no account no-such-user: the services that face the network run as postfix"
        in (done.stderr)
    )
    system.start()
    assert stat.S_IMODE((system.queue_directory / "private").stat().st_mode) == 0o700
    system.send("x@remote.test", ["alice@virtual.test"], b"Subject: x\r\n\r\nx\r\n")
    system.wait_for_queue_empty()
    owner = str(pwd.getpwnam("postfix").pw_uid)
    members = session_members(system.session)
    programs = {program_of(one.title()): one.pid for one in members}
    assert "connector" not in programs
    status = Path(f"/proc/{programs['smtpd']}/status").read_text()
    assert f"Uid:\t{owner}\t" in status


def test_the_account_is_made_later(make_system: MakeSystem) -> None:
    """postfix reload opens what its services have to reach."""
    system = make_system(privileged=True, main={"mail_network_user": "no-such-user"})
    system.start()
    system.configure({"mail_network_user": "uucp"})
    assert system.run("postfix", "reload").returncode == 0
    system.wait_for_log("reload -- version")
    private = (system.queue_directory / "private").stat()
    assert stat.S_IMODE(private.st_mode) == 0o710
    assert private.st_gid == pwd.getpwnam("uucp").pw_gid
    uid = pwd.getpwnam("uucp").pw_uid

    def is_served_by_it() -> bool:
        with system.smtp() as client:
            client.noop()
            return any(
                program_of(one.title()) == "smtpd"
                and f"Uid:\t{uid}\t" in Path(f"/proc/{one.pid}/status").read_text()
                for one in session_members(system.session)
            )

    wait_until(is_served_by_it, lambda: "the old smtpd serves")


Talk = Callable[[socket.socket], None]


@contextmanager
def closed_socket(path: Path, talk: Talk) -> Iterator[None]:
    """A server at a socket that only mail_owner may connect to, as Dovecot's often are."""
    owner = pwd.getpwnam("postfix")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.chown(path, owner.pw_uid, owner.pw_gid)
        path.chmod(0o600)
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    talk(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def talk_lmtp(client: socket.socket) -> None:
    """To a client that waits for each answer."""
    client.sendall(b"220 box LMTP\r\n")
    in_content = False
    with client.makefile("rb") as lines:
        for line in lines:
            verb = line.split()[0].upper() if line.split() else b""
            if in_content and line != b".\r\n":
                continue
            in_content = verb == b"DATA"
            client.sendall(b"354 go on\r\n" if in_content else b"250 2.0.0 kept in the box\r\n")


@pytest.mark.parametrize("chroot", ["n", "y"])
def test_sockets_of_mail_owner_alone(make_system: MakeSystem, chroot: str) -> None:
    """As users of Dovecot have them: for a policy server, and for mailboxes by LMTP."""
    asked: list[bytes] = []

    def talk_policy(client: socket.socket) -> None:
        while data := client.recv(65536):
            asked.append(data)
            client.sendall(b"action=DUNNO\n\n")

    system = make_system(privileged=True)
    rules = "check_policy_service unix:private/policy, permit"
    system.configure(
        {"smtpd_client_restrictions": rules},
        [
            f"127.0.0.1:{system.smtp_port} inet n - {chroot} - - smtpd",
            f"lmtp unix - - {chroot} - - lmtp",
        ],
    )
    system.route("lmtp.test", "lmtp:unix:private/box")
    assert system.run("postfix", "check").returncode == 0
    private = system.queue_directory / "private"
    with (
        closed_socket(private / "policy", talk_policy),
        closed_socket(private / "box", talk_lmtp),
    ):
        system.start()
        system.send("", ["x@lmtp.test"], b"Subject: x\r\n\r\nx\r\n")
        system.wait_for_queue_empty()
        system.wait_for_log("to=<x@lmtp.test>.*status=sent .250 2.0.0 kept in the box")
        system.stop()
    assert b"request=smtpd_access_policy" in asked[0]
