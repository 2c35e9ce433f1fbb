"""local(8) in a running system: aliases, .forward, commands, other transports, rights."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.mounts import ext4
from tests.system.processes import wait_until

MESSAGE = b"Subject: test\r\n\r\nFrom the start\r\n"
# Signals 32 and 33: ignored below whoever started something by posix_spawn (make does), and glibc
# lets no program change that.
_OF_GLIBC = 0b11 << 31


def wait_for(path: Path, text: bytes) -> bytes:
    """The file's content, as soon as it has `text`."""

    def content() -> bytes:
        return path.read_bytes() if path.exists() else b""

    wait_until(lambda: text in content(), lambda: f"{path}: no {text!r}")
    return content()


def send(system: MailSystem, *names: str, content: bytes = MESSAGE) -> None:
    system.send("sender@client.test", [f"{name}@{system.name}" for name in names], content)


def test_aliases(make_system: MakeSystem) -> None:
    system = make_system()
    me = system.user.pw_name
    out = system.top / "home"
    members = system.config_directory / "members"
    members.write_text(f"# the list\n{me}\n")
    system.configure(
        {
            "alias_maps": "inline:{"
            f"{{group={me}, {me}@{system.name}}} "
            f"{{list=:include:{members}}} {{owner-list={me}}} "
            f'{{pipe="|cat >{out}/pipe"}} {{file={out}/file}} {{fail="|echo no; exit 69"}} '
            "}"
        }
    )
    system.start()
    send(system, "group", "list", "pipe", "file")
    system.wait_for_queue_empty()
    mailbox = system.mailbox.read_bytes()
    assert mailbox.count(b"\nX-Original-To: group@mail.test\nDelivered-To: group@mail.test\n") == 1
    assert mailbox.count(b"\nReturn-Path: <owner-list@mail.test>\n") == 1
    assert b"\nDelivered-To: list@mail.test\n" in mailbox
    assert mailbox.count(b"\n>From the start\n\n") == 2
    assert (out / "pipe").read_bytes().endswith(b"\n\nFrom the start\n")
    assert (out / "file").read_bytes().endswith(b"\n\n>From the start\n\n")
    system.wait_for_log(r"to=<list@mail.test>, relay=local, .*\(forwarded as \w+\)")
    system.send(f"{me}@{system.name}", [f"fail@{system.name}"], MESSAGE)
    wait_for(system.mailbox, b"service unavailable. Command output: no")
    system.wait_for_queue_empty()


def test_other_transport_and_unknown(make_system: MakeSystem) -> None:
    system = make_system(
        main={"local_recipient_maps": "", "recipient_delimiter": "+"},
        master=["folder unix - n n - - local -o fallback_transport= -o mailbox_transport_maps="],
    )
    me = system.user.pw_name
    system.configure(
        {"fallback_transport": "folder", "mailbox_transport_maps": f"inline:{{{me}=folder}}"}
    )
    system.start()
    send(system, f"{me}+x", "nosuch")
    system.wait_for_log(rf"passing <{me}\+x@mail.test> to transport=folder")
    system.wait_for_log(rf"to=<{me}\+x@mail.test>, relay=folder, .*\(delivered to mailbox\)")
    system.wait_for_log(r'to=<nosuch@mail.test>, relay=folder, .*unknown user: "nosuch"')
    system.wait_for_queue_empty()
    assert system.mailbox.read_bytes().count(b"\nFrom ") == 0


def test_slow_command_disturbs_nobody(make_system: MakeSystem) -> None:
    system = make_system()
    me, out = system.user.pw_name, system.top / "home"
    slow = f"echo up >{out}/started; while ! test -e {out}/go; do sleep 0.1; done"
    system.configure({"alias_maps": f'inline:{{{{slow="|{slow}"}}}}'})
    system.start()
    send(system, "slow")
    wait_for(out / "started", b"up")
    send(system, me)
    wait_for(system.mailbox, b">From the start")
    assert not system.log_lines("to=<slow@")
    (out / "go").touch()
    system.wait_for_log("to=<slow@.*status=sent")
    system.wait_for_queue_empty()
    assert len(agents(system)) == 1


def test_a_mailbox_that_is_locked_disturbs_nobody(make_system: MakeSystem) -> None:
    """Those who wait for it take turns; all are served by one process."""
    system = make_system(
        main={"mailbox_delivery_lock": "fcntl, dotlock", "deliver_lock_attempts": "1000"}
    )
    file = system.top / "home/file"
    file.touch()
    os.chown(file, system.user.pw_uid, system.user.pw_gid)
    system.configure({"alias_maps": f"inline:{{{{file={file}}}}}"})
    system.start()
    with file.open("ab") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        for name in ("file", system.user.pw_name) * 3:
            send(system, name)
        system.wait_for_log(f"to=<{system.user.pw_name}@.*status=sent", count=3)
        assert not system.log_lines("to=<file@")
    system.wait_for_log("to=<file@.*status=sent", count=3)
    assert file.read_bytes().count(b"\n\n>From the start\n\n") == 3
    assert len(agents(system)) == 1


@pytest.mark.root
def test_users_side_by_side(make_system: MakeSystem) -> None:
    """Each has what is written with the own rights; daemon's mailbox is in the folder of games."""
    system = make_system(privileged=True)
    users = [pwd.getpwnam(name) for name in ("games", "nobody", "daemon")]
    folders = spool(system, users)
    (folders / "daemon").rmdir()
    (folders / "daemon").symlink_to(folders / "games")
    system.allow("maildir access problem for|perhaps you need to create the maildirs")
    system.start()
    for _ in range(30):
        send(system, *(user.pw_name for user in users))
    for user in users[:2]:
        system.wait_for_log(f"to=<{user.pw_name}@.*delivered to maildir", count=30)
        files = list((folders / user.pw_name / "new").iterdir())
        ids = {(one.stat().st_uid, one.stat().st_gid, one.stat().st_mode) for one in files}
        assert ids == {(user.pw_uid, user.pw_gid, stat.S_IFREG | 0o600)}
        assert len(files) == 30
    system.wait_for_log("to=<daemon@.*status=bounced .*Permission denied", count=30)
    assert len(agents(system)) == 1
    system.wait_for_queue_empty()


@pytest.mark.root
def test_a_file_system_that_does_not_answer_disturbs_nobody(
    make_system: MakeSystem, tmp_path: Path
) -> None:
    system = make_system(privileged=True)
    users = [pwd.getpwnam(name) for name in ("games", "nobody")]
    folders = spool(system, users)
    with ext4(folders / "games", tmp_path) as disk:
        system.start()
        with disk.frozen():
            for _ in range(3):
                send(system, "games")
                send(system, "nobody")
            system.wait_for_log("to=<nobody@.*delivered to maildir", count=3)
            assert not system.log_lines("to=<games@")
        system.wait_for_log("to=<games@.*delivered to maildir", count=3)
        assert len(list((folders / "games/new").iterdir())) == 3
        assert len(agents(system)) == 1
        system.wait_for_queue_empty()
        system.stop()


def spool(system: MailSystem, users: Sequence[pwd.struct_passwd]) -> Path:
    """A folder with Maildirs, each closed to all but its owner; no .forward files."""
    folders = system.top / "maildirs"
    folders.mkdir()
    for user in users:
        folder = folders / user.pw_name
        folder.mkdir(mode=0o700)
        os.chown(folder, user.pw_uid, user.pw_gid)
    main = {"mail_spool_directory": f"{folders}/", "forward_path": ""}
    system.configure({**main, "local_destination_recipient_limit": "1"})
    return folders


def agents(system: MailSystem) -> set[str]:
    """The processes that have delivered."""
    return set(re.findall(r"/local\[(\d+)\]: .*status=", system.log_text()))


def test_command_time_limit(make_system: MakeSystem) -> None:
    system = make_system(main={"command_time_limit": "1s"})
    system.allow("read time limit exceeded")
    system.configure({"alias_maps": 'inline:{{slow="|sleep 600"}}'})
    system.start()
    system.send("", [f"slow@{system.name}"], MESSAGE)
    system.wait_for_log('to=<slow@.*Command time limit exceeded: "sleep 600"')
    system.wait_for_queue_empty()


def test_aliases_in_a_loop(make_system: MakeSystem) -> None:
    system = make_system(main={"alias_maps": "inline:{{loop=loop2} {loop2=loop}}"})
    system.allow("recipient nesting limit exceeded")
    system.start()
    system.send("", [f"loop@{system.name}"], MESSAGE)
    system.wait_for_log("to=<loop@.*status=bounced")
    system.wait_for_queue_empty()


@pytest.mark.root
def test_rights(make_system: MakeSystem, short_tmp: Path) -> None:
    """Each delivery has the rights of its user, and no others."""
    system = make_system(privileged=True)
    me = system.user
    forward = short_tmp / "forward"
    forward.write_text(
        f'\\{me.pw_name}, "|id >{short_tmp}/id; cat /etc/shadow >>{short_tmp}/id 2>&1"\n'
    )
    os.chown(forward, me.pw_uid, me.pw_gid)
    os.chown(short_tmp, me.pw_uid, me.pw_gid)
    daemon = pwd.getpwnam("daemon")
    system.configure(
        {
            "forward_path": f"{short_tmp}/forward",
            "alias_maps": (
                f"inline:{{{{file={short_tmp}/other}} {{theirs=:include:{short_tmp}/list}}}}"
            ),
            "default_privs": "daemon",
            "allow_mail_to_files": "alias, include",
        }
    )
    (short_tmp / "list").write_text(f"{short_tmp}/mine\n")
    os.chown(short_tmp / "list", me.pw_uid, me.pw_gid)
    system.start()
    send(system, me.pw_name, "file", "theirs")
    system.wait_for_log(r"to=<file@mail.test>.*cannot create file exclusively: Permission denied")
    system.wait_for_log(rf"delivered to file: {short_tmp}/mine")
    system.allow("unable to create lock file")
    told = wait_for(short_tmp / "id", b"Permission denied").decode()
    assert told.startswith(f"uid={me.pw_uid}({me.pw_name}) gid={me.pw_gid}(")
    assert "groups=" not in told.split(" gid=")[1].replace(f"groups={me.pw_gid}(", "")
    assert (short_tmp / "mine").stat().st_uid == me.pw_uid
    assert system.mailbox.stat().st_uid == me.pw_uid
    assert system.mailbox.stat().st_mode & 0o777 == 0o600
    assert not (short_tmp / "other").exists()
    assert daemon.pw_uid != me.pw_uid


@pytest.mark.parametrize("program", ["local", "pipe"])
def test_what_commands_inherit(make_system: MakeSystem, program: str) -> None:
    """Nothing that a shell would not give them: no signal is blocked or ignored."""
    system = make_system()
    out = system.top / "home/state"
    command = f"cat /proc/self/status /proc/self/limits >{out}; ls /proc/self/fd >>{out}"
    if program == "local":
        system.configure({"alias_maps": f'inline:{{{{state="|{command}"}}}}'})
    else:
        argv = f"argv=/bin/sh -c {{ {command} }}"
        system.configure({}, [f"state unix - n n - - pipe user={system.user.pw_name} {argv}"])
        system.route("state.test", "state:")
    system.start()
    system.send(
        "a@mail.test", ["state@mail.test" if program == "local" else "x@state.test"], MESSAGE
    )
    system.wait_for_queue_empty()
    lines = out.read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("Sig") and "/" not in line]
    signals = {name: int(mask, 16) & ~_OF_GLIBC for name, mask in words}
    assert signals == dict.fromkeys(("SigPnd:", "SigBlk:", "SigIgn:", "SigCgt:"), 0)
    assert lines[-4:] == ["0", "1", "2", "3"]  # the last is of the directory
    ours = Path("/proc/self/limits").read_text().splitlines()[1:]
    assert [line for line in lines if line.startswith("Max ")] == ours
