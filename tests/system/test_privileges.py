"""As root: who the processes are, where they are, and what they could still become."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libmail.privileges import Actor, Identity, acting_as, identity_of, in_process_of
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, installation
from tests.system.processes import Process, session_members, wait_until

pytestmark = pytest.mark.root

# Services that act as other users and so stay root (unpriv column "n").
PRIVILEGED = {"local", "virtual", "pipe", "spawn"}

# Services that face the network, and have a user of their own.
FACING = {"smtpd", "smtp", "lmtp", "qmqpd", "postscreen", "dnsblog", "mta-sts", "tlsproxy"}

# Opens files by their full names while it runs, so master.cf says "n" for it.
NEVER_CHROOTED = {"postlogd"}


def status(pid: int) -> dict[str, list[str]]:
    """/proc/PID/status, proc(5), as words by field."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}


def service_of(process: Process) -> str:
    """The program, which is the first word of the process title."""
    words = process.title().split()
    return Path(words[0]).name.rstrip(":") if words else ""


def run_everything(system: MailSystem) -> None:
    """Makes every kind of service start."""
    system.configure({"virtual_alias_maps": "inline:{ {fan@mail.test=alice@virtual.test} }"})
    system.route("discard.test", "discard:")
    system.route("error.test", "error:5.1.1 not here")
    system.start()
    system.sendmail("-f", "", "fan@mail.test", stdin=b"Subject: x\n\nx\n")
    # smtpd would refuse the recipient in error.test
    system.sendmail("-f", "alice@virtual.test", "x@error.test", stdin=b"Subject: x\n\nx\n")
    recipients = ["alice@virtual.test", "x@discard.test", f"{system.user.pw_name}@mail.test"]
    system.send("alice@virtual.test", recipients, b"Subject: x\r\n\r\nx\r\n")
    system.run("mailq")
    system.wait_for_log("bounce.*sender non-delivery")
    system.wait_for_queue_empty()


@pytest.mark.parametrize("chroot", ["n", "y"])
def test_services_have_given_up_root(make_system: MakeSystem, chroot: str) -> None:
    system = make_system(privileged=True)
    lines = []
    for line in system.master.values():
        words = line.split()
        if words[7] not in PRIVILEGED | NEVER_CHROOTED:
            words[4] = chroot
        lines.append(" ".join(words))
    system.configure({}, lines)
    run_everything(system)
    members = [p for p in session_members(system.session) if p.pid != system.session]
    services = {service_of(process) for process in members}
    assert {"smtpd", "cleanup", "qmgr", "pickup", "trivial-rewrite"} <= services

    def wrong() -> list[str]:
        """One that has just been forked is still on its way."""
        jail = str(system.queue_directory) if chroot == "y" else "/"
        return [
            fault
            for process in session_members(system.session)
            if process.pid != system.session
            for fault in powers(process, jail)
        ]

    wait_until(lambda: not wrong(), wrong, limit=20)


def powers(process: Process, jail: str) -> list[str]:
    """What is not as it should be of a process that has nothing to do as root."""
    service, owner = service_of(process), pwd.getpwnam("postfix")
    try:
        facts, root = status(process.pid), os.readlink(f"/proc/{process.pid}/root")
    except FileNotFoundError:
        return []  # it has ended
    found_groups = set(os.getgrouplist(owner.pw_name, owner.pw_gid))
    uid = owner.pw_uid
    if service in FACING:
        network = pwd.getpwnam("uucp")
        found_groups |= set(os.getgrouplist(network.pw_name, network.pw_gid))
        uid = network.pw_uid
    groups = [str(gid) for gid in sorted(found_groups)]
    wanted = {
        "Uid": [[str(uid)] * 4],
        "Gid": [[str(owner.pw_gid)] * 4],
        "Groups": [[], groups],
        "CapEff": [["0" * 16]],
        "CapPrm": [["0" * 16]],
        "NoNewPrivs": [["1"]],
    }
    if service in PRIVILEGED:
        return []
    found = [
        f"{service}: {name} {facts[name]}" for name in wanted if facts[name] not in wanted[name]
    ]
    if root != ("/" if service in NEVER_CHROOTED else jail):
        found.append(f"{service}: in {root}")
    return found


def test_mailboxes_belong_to_their_users(make_system: MakeSystem) -> None:
    system = make_system(privileged=True)
    run_everything(system)
    assert system.mailbox.stat().st_uid == system.user.pw_uid
    assert stat.S_IMODE(system.mailbox.stat().st_mode) == 0o600
    message = next((system.top / "vmail/alice/new").iterdir())
    assert message.stat().st_uid == system.user.pw_uid


def test_nothing_installed_is_set_uid_or_set_gid() -> None:
    special = stat.S_ISUID | stat.S_ISGID
    files = [path for path in installation().rglob("*") if not path.is_symlink()]
    assert files
    assert [path for path in files if path.stat().st_mode & special] == []
    assert [path for path in files if path.stat().st_mode & stat.S_IWOTH] == []


def test_the_queue_is_closed_to_other_users(make_system: MakeSystem) -> None:
    system = make_system(privileged=True)
    system.start()
    for name in ("incoming", "active", "deferred", "hold", "private"):
        mode = (system.queue_directory / name).stat().st_mode
        group = 0o010 if name == "private" else 0  # of mail_network_user alone
        assert stat.S_IMODE(mode) & 0o077 == group, name
    maildrop = (system.queue_directory / "maildrop").stat()
    assert stat.S_IMODE(maildrop.st_mode) == 0o3733
    assert maildrop.st_gid == pwd.getpwnam("postfix").pw_gid


def test_mail_left_while_the_system_is_down(make_system: MakeSystem) -> None:
    system = make_system(privileged=True)
    system.allow("unable to look up public/pickup")
    assert system.run("postfix", "check").returncode == 0
    user, other = pwd.getpwnam("nobody"), pwd.getpwnam("games")
    content = b"Subject: left\n\nx\n"
    done = system.run("sendmail", "-f", "me@x.test", "alice@virtual.test", stdin=content, user=user)
    assert done.returncode == 0, done.stderr
    (left,) = (system.queue_directory / "maildrop").iterdir()
    assert left.stat().st_uid == user.pw_uid
    assert left.stat().st_gid == pwd.getpwnam("postfix").pw_gid
    assert stat.S_IMODE(left.stat().st_mode) == 0o740
    for command in (["/bin/cat", str(left)], ["/bin/ls", str(left.parent)]):
        assert system.run(*command, user=other).returncode != 0, command
    assert system.run("/bin/rm", "-f", str(left), user=other).returncode != 0
    system.start()
    system.wait_for_queue_empty()
    assert [b"Subject: left" in message for message in system.maildir("alice")] == [True]


def test_the_maildrop_of_a_postfix_is_adapted(make_system: MakeSystem) -> None:
    system = make_system(privileged=True)
    maildrop = system.queue_directory / "maildrop"
    maildrop.mkdir()
    os.chown(maildrop, pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid)
    maildrop.chmod(0o1730)
    system.start()
    assert stat.S_IMODE(maildrop.stat().st_mode) == 0o3733
    assert maildrop.stat().st_gid == pwd.getpwnam("postfix").pw_gid


def test_processes_of_one_user_do_not_read_each_other(make_system: MakeSystem) -> None:
    """Nor trace: memory holds keys and passwords that were opened as root."""
    system = make_system(privileged=True)
    run_everything(system)
    owner = pwd.getpwnam("postfix")
    members = [p for p in session_members(system.session) if p.pid != system.session]
    assert members
    for process in members:
        for name in ("mem", "environ", "maps"):
            path = f"/proc/{process.pid}/{name}"
            done = system.run("/usr/bin/head", "-c", "1", path, user=owner)
            assert done.returncode != 0, (service_of(process), name)


def test_acting_as_a_user_is_for_one_thread() -> None:
    """Not for all of the process, as it would be by the C library."""
    users = [identity_of("nobody"), identity_of("games")]
    all_are_somebody, all_have_looked = threading.Barrier(3), threading.Barrier(3)

    def act(user: Identity) -> tuple[int, int, list[int], set[str]]:
        with acting_as(user):
            all_are_somebody.wait()
            found = os.geteuid(), os.getegid(), os.getgroups()
            powers = set(status(threading.get_native_id())["CapEff"])
            all_have_looked.wait()
        return *found, powers

    mine = os.getgroups()
    with ThreadPoolExecutor(2) as pool:
        acting = [pool.submit(act, user) for user in users]
        all_are_somebody.wait()
        me = os.geteuid(), os.getegid(), os.getgroups()
        all_have_looked.wait()
        found = [one.result() for one in acting]
        ids = pool.submit(lambda: (os.geteuid(), os.getegid(), os.getgroups())).result()
    assert me == ids == (0, 0, mine)
    wanted = [(user.uid, user.gid, sorted(user.groups), {"0" * 16}) for user in users]
    assert [(uid, gid, sorted(groups), caps) for uid, gid, groups, caps in found] == wanted


def test_a_thread_goes_on_acting() -> None:
    """From one user to the next it is never both, and what it may not become changes nothing."""
    nobody, games = identity_of("nobody"), identity_of("games")

    def ids() -> tuple[int, int, list[int], set[str]]:
        powers = set(status(threading.get_native_id())["CapEff"])
        return os.geteuid(), os.getegid(), sorted(os.getgroups()), powers

    def act() -> None:
        mine, actor = ids(), Actor()
        for user in (nobody, games, games, nobody):
            actor.become(user)
            assert ids() == (user.uid, user.gid, sorted(user.groups), {"0" * 16})
        actor.restore()
        actor.restore()
        assert ids() == mine
        for impossible in (-1, 2**32 - 1, 2**32):  # to the kernel: as it is, as it is, root
            with pytest.raises(OSError, match="Invalid argument"):
                actor.become(Identity("", impossible, games.gid, games.groups))
            with pytest.raises(OSError, match="Invalid argument"):
                actor.become(Identity("", games.uid, impossible, games.groups))
        assert ids() == mine

    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()


def test_only_root_acts_as_others() -> None:
    """Who is not goes on as before; so does who becomes the user that it is."""
    nobody, games = identity_of("nobody"), identity_of("games")

    def act() -> str:
        actor = Actor()
        actor.become(nobody)
        try:
            actor.become(games)
        except PermissionError as err:
            return f"{err.strerror}, {os.geteuid()}"
        return "allowed"

    assert in_process_of(nobody, act) == f"Operation not permitted, {nobody.uid}"


def test_deliveries_side_by_side_have_the_rights_of_their_owner(make_system: MakeSystem) -> None:
    """eve is bob, and her mailbox is in the home of alice: she never gets there."""
    alice, bob = pwd.getpwnam("nobody"), pwd.getpwnam("games")
    owners = {"alice": alice, "bob": bob, "eve": bob}
    uid_map = " ".join(f"{{{name}@virtual.test={who.pw_uid}}}," for name, who in owners.items())
    gid_map = " ".join(f"{{{name}@virtual.test={who.pw_gid}}}," for name, who in owners.items())
    boxes = "{alice@virtual.test=a/}, {bob@virtual.test=b/}, {eve@virtual.test=a/evil/}"
    system = make_system(
        privileged=True,
        main={
            "virtual_mailbox_maps": f"inline:{{ {boxes} }}",
            "virtual_uid_maps": f"inline:{{ {uid_map} }}",
            "virtual_gid_maps": f"inline:{{ {gid_map} }}",
            "virtual_minimum_uid": "1",
            "virtual_destination_recipient_limit": "1",
        },
    )
    for name, who in (("a", alice), ("b", bob)):
        folder = system.top / "vmail" / name
        folder.mkdir(mode=0o700)
        os.chown(folder, who.pw_uid, who.pw_gid)
    system.allow("maildir access problem for|perhaps you need to create the maildirs")
    system.start()
    with system.smtp() as client:
        for _ in range(40):
            client.sendmail("", [f"{name}@virtual.test" for name in owners], b"Subject: x\r\n\r\nx")
    for name in ("alice", "bob"):
        system.wait_for_log(f"to=<{name}@virtual.test>.*status=sent", count=40)
    system.wait_for_log("to=<eve@virtual.test>.*status=deferred.*Permission denied", count=40)
    for name, who in (("a", alice), ("b", bob)):
        files = list((system.top / "vmail" / name / "new").iterdir())
        assert [(one.stat().st_uid, one.stat().st_gid) for one in files] == [who[2:4]] * 40
    assert not (system.top / "vmail/a/evil").exists()
    agents = [p for p in session_members(system.session) if service_of(p) == "virtual"]
    threads = [int(name) for p in agents for name in os.listdir(f"/proc/{p.pid}/task")]
    assert len(threads) > len(agents)
    mine, owners_ids = status(agents[0].pid), set()
    for pid in threads:
        found = status(pid)
        uids, gids = found["Uid"], found["Gid"]
        assert {uids[0], uids[2], gids[0], gids[2]} == {"0"}  # no process of a user gets at it
        if pid in {p.pid for p in agents}:
            assert {*uids, *gids} == {"0"}
        elif uids[1] == "0":
            assert (gids[1], found["Groups"]) == ("0", mine["Groups"])
        else:  # it acts as the owner of the mailbox that it has written into last
            assert found["Groups"] == [gids[1]]
            assert found["CapEff"] == ["0" * 16]
            owners_ids.add((uids[1], gids[1], uids[3], gids[3]))
    assert owners_ids <= {(str(u), str(g), str(u), str(g)) for _, _, u, g, *_ in (alice, bob)}
    assert owners_ids
