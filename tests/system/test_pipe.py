"""pipe(8) in a running system: what commands get, and what becomes of their mail."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import PATIENCE

MESSAGE = b"Subject: test\r\n\r\nFrom the start\r\n.dot\r\n"


def script(system: MailSystem, name: str, text: str) -> Path:
    """A command that everybody can run."""
    path = system.top / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def services(system: MailSystem, lines: Sequence[str], user: str | None = None) -> None:
    """NAME ATTRIBUTES lines; mail for NAME.test goes there."""
    for line in lines:
        name, _, attributes = line.partition(" ")
        who = f"user={user or system.user.pw_name}"
        system.configure({}, [f"{name} unix - n n - - pipe {who} {attributes}"])
        system.route(f"{name}.test", f"{name}:Next.Hop")


def wait_for(path: Path, end: bytes) -> bytes:
    """The file's content, as soon as it ends so."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        content = path.read_bytes() if path.exists() else b""
        if content.endswith(end):
            return content
        time.sleep(0.05)
    raise AssertionError(f"{path}: does not end with {end!r}")


def test_commands(make_system: MakeSystem) -> None:
    system = make_system(main={"one_destination_recipient_limit": "1"})
    out = system.top / "home"
    show = script(system, "show", f'printf "[%s]" "$@" >{out}/$1; cat >>{out}/$1; echo done')
    services(
        system,
        [
            f"many flags=F argv={show} many ${{recipient}} -- ${{sender}} -o $nexthop",
            f"one flags=DORq.> eol=\\r\\n argv={show} one {{two words}} $user@$domain $size",
        ],
    )
    system.start()
    system.send("me@client.test", ["a@many.test", "b@many.test", "c@one.test"], MESSAGE)
    system.wait_for_log(r"to=<a@many.test>, relay=many, .*, dsn=2.0.0, status=sent \(delivered via")
    system.wait_for_log(r"to=<c@one.test>, relay=one, .*\(delivered via one service \(done\)\)")
    system.wait_for_queue_empty()
    many = (out / "many").read_bytes()
    assert many.startswith(
        b"[many][a@many.test][b@many.test][--][me@client.test][-o][Next.Hop]From "
    )
    assert many.endswith(b"\n\nFrom the start\n.dot\n")
    one = (out / "one").read_bytes()
    assert one.startswith(b"[one][two words][c@one.test][")
    assert b"]Return-Path: <me@client.test>\r\nX-Original-To: c@one.test\r\nDelivered" in one
    assert one.endswith(b"\r\n\r\n>From the start\r\n..dot\r\n")


def test_failures(make_system: MakeSystem) -> None:
    """The sender hears of what is final; the rest waits."""
    system = make_system(main={"slow_time_limit": "1s"})
    services(
        system,
        [
            "hard argv=/bin/sh -c {echo 5.7.1 not you; exit 1}",
            "soft argv=/bin/sh -c {exit 75}",
            "slow argv=/bin/sleep 60",
            "small size=10 argv=/bin/true",
            "none argv=/no/such/command",
            "wrong flags=Z argv=/bin/true",
            "macro argv=/bin/echo $nosuch",
        ],
    )
    for problem in (
        "read time limit exceeded",
        "execvp /no/such/command: No such file",
        r"unknown flag: Z \(ignored\)",
        'service macro: unknown macro name: "nosuch"',
    ):
        system.allow(problem)
    system.start()
    names = ("hard", "soft", "slow", "small", "none", "wrong", "macro")
    system.send("alice@virtual.test", [f"x@{name}.test" for name in names], MESSAGE)
    for name, said in (
        ("hard", r"dsn=5.7.1, status=bounced \(not you \)"),
        ("soft", r"dsn=4.3.0, status=deferred \(temporary failure\)"),
        ("slow", r'dsn=5.3.0, status=bounced \(Command time limit exceeded: "/bin/sleep"\)'),
        ("small", r"dsn=5.2.3, status=bounced \(message too large\)"),
        ("none", r"dsn=4.3.0, status=deferred \(temporary failure. Command output: pipe: fatal: "),
        ("wrong", r"dsn=4.3.5, status=deferred \(mail system configuration error\)"),
        ("macro", r"dsn=4.3.5, status=deferred \(mail system configuration error\)"),
    ):
        system.wait_for_log(rf"to=<x@{name}.test>, relay={name}, .*{said}")
    system.wait_for_log("to=<alice@virtual.test>, relay=virtual, .*status=sent")
    (report,) = system.maildir("alice")
    assert b"\nDiagnostic-Code: x-unix; not you\n" in report
    assert b"\nStatus: 5.2.3\n" in report


def test_more_than_a_pipe_holds(make_system: MakeSystem) -> None:
    """A slow reader gets all of it, while another message for the same command waits its turn."""
    system = make_system(main={"message_size_limit": "30000000"})
    out = system.top / "home"
    slow = script(system, "slow", f"sleep 0.5; cat | wc -c >>{out}/$1")
    system.configure({}, [f"slow unix - n n - 1 pipe user={system.user.pw_name} argv={slow} sizes"])
    system.route("slow.test", "slow:")
    system.start()
    for _ in range(2):
        system.send("me@client.test", ["x@slow.test"], b"\r\n" + b"0123456789abcd\r\n" * 100_000)
    system.wait_for_log("to=<x@slow.test>, relay=slow, .*status=sent", count=2)
    system.wait_for_queue_empty()
    first, second = (int(line) for line in (out / "sizes").read_text().split())
    assert first == second
    assert 1_500_000 < first < 1_501_000


def test_mailbox_transport(make_system: MakeSystem) -> None:
    """local(8) passes mail on to a command."""
    system = make_system(main={"mailbox_transport": "show:hop"})
    out = system.top / "home"
    services(system, [f"show flags=D argv=/bin/sh -c {{cat >{out}/$user}}"])
    system.start()
    me = system.user.pw_name
    system.send("me@client.test", [f"{me}@mail.test"], MESSAGE)
    system.wait_for_log(rf"to=<{me}@mail.test>, relay=show, .*status=sent")
    system.wait_for_queue_empty()
    assert (out / me).read_bytes().startswith(f"Delivered-To: {me}@mail.test\n".encode())


@pytest.mark.root
def test_rights(make_system: MakeSystem, short_tmp: Path) -> None:
    """The user and group of the service, no other groups, no environment but what is exported."""
    system = make_system(privileged=True, main={"export_environment": "MAIL_CONFIG { A = b c }"})
    nobody, games = pwd.getpwnam("nobody"), pwd.getpwnam("games")
    os.chown(short_tmp, nobody.pw_uid, games.pw_gid)
    here = short_tmp / "here"
    here.mkdir()
    os.chown(here, nobody.pw_uid, games.pw_gid)
    here.chmod(0o700)
    shut = short_tmp / "shut"
    shut.mkdir(mode=0o700)
    services(
        system,
        [
            f"run directory={here} argv=/bin/sh -c {{(id; pwd; umask; env; echo end) >got}}",
            f"shut directory={shut} argv=/bin/true",
            f"jail chroot={short_tmp} argv=/no/such/command",
        ],
        user="nobody:games",
    )
    system.allow(f'cannot change directory to "{shut}" for uid={nobody.pw_uid}')
    system.allow("execvp /no/such/command: No such file")
    system.start()
    system.send("me@client.test", ["x@shut.test", "x@jail.test", "x@run.test"], MESSAGE)
    lines = wait_for(here / "got", b"end\n").decode().splitlines()
    ids = f"uid={nobody.pw_uid}(nobody) gid={games.pw_gid}(games)"
    assert lines[0] in (ids, f"{ids} groups={games.pw_gid}(games)")
    assert lines[1:3] == [str(here), "0077"]
    environment = sorted(line for line in lines[3:-1] if line.partition("=")[0] not in ("PWD", "_"))
    assert environment == ["A=b c", f"MAIL_CONFIG={system.config_directory}", "PATH=/usr/bin:/bin"]
    system.wait_for_log(r"to=<x@shut.test>, .*status=deferred \(temporary failure\)")
    system.wait_for_log(
        r"to=<x@jail.test>, .*status=deferred \(temporary failure\. Command output:"
    )
    # Having been elsewhere, it finds the queue again.
    system.send("me@client.test", ["y@jail.test"], MESSAGE)
    system.wait_for_log(
        r"to=<y@jail.test>, .*status=deferred \(temporary failure\. Command output:"
    )


@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "problem"),
    [("root", "root privileges"), ("postfix", "mail system owner postfix")],
)
def test_users_that_are_refused(make_system: MakeSystem, user: str, problem: str) -> None:
    system = make_system(privileged=True)
    services(system, ["run argv=/bin/true"], user=user)
    system.allow("user= command-line attribute specifies")
    system.start()
    system.send("me@client.test", ["x@run.test"], MESSAGE)
    system.wait_for_log(f"pipe.*fatal: user= command-line attribute specifies {problem}")
    system.wait_for_log(r"to=<x@run.test>, relay=run, .*dsn=4.3.5, status=deferred")
