"""spawn(8) in a running system: a command for each connection."""

from __future__ import annotations

import pwd
import socket
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port

ANSWER = "read line || exit 0; echo got $line; echo $0 $1"


def script(system: MailSystem, text: str) -> Path:
    path = system.top / "command"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def talk(where: int | Path, said: bytes, patience: float = 120.0) -> bytes:
    """Everything that the command answers."""
    if isinstance(where, int):
        client = socket.create_connection(("127.0.0.1", where), patience)
    else:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(patience)
        client.connect(str(where))
    with client, client.makefile("rb") as answer:
        client.sendall(said)
        return answer.read()


def test_commands(make_system: MakeSystem) -> None:
    system = make_system()
    command = script(system, f"{ANSWER}; exit 3")
    port, me = free_port(), system.user.pw_name
    system.configure(
        {},
        [
            f"127.0.0.1:{port} inet n n n - - spawn user={me} argv={command} {{two words}}",
            f"answer unix n n n - 1 spawn user={me} argv={command} -o",
        ],
    )
    system.allow(f"command {command} exit status 3")
    system.start()
    for _ in range(3):
        assert talk(port, b"hello\n") == f"got hello\n{command} two words\n".encode()
    unix = system.queue_directory / "public/answer"
    assert talk(unix, b"x\n") == f"got x\n{command} -o\n".encode()
    system.wait_for_log(f"spawn.*warning: command {command} exit status 3", count=4)


def test_silent_clients(make_system: MakeSystem) -> None:
    """They do not keep others from their command, and have theirs for the time limit."""
    system = make_system()
    command = script(system, ANSWER)
    patient, short, me = free_port(), free_port(), system.user.pw_name
    system.configure(
        {f"127.0.0.1:{short}_time_limit": "1s"},
        [
            f"127.0.0.1:{port} inet n n n - - spawn user={me} argv={command} x"
            for port in (patient, short)
        ],
    )
    system.allow(f"{command}: process id .*: command time limit exceeded")
    system.start()
    with socket.create_connection(("127.0.0.1", patient), 120):
        assert talk(patient, b"hello\n").startswith(b"got hello\n")
    with socket.create_connection(("127.0.0.1", short), 120) as silent:
        assert silent.recv(100) == b""
    system.wait_for_log("command time limit exceeded")


@pytest.mark.root
def test_rights(make_system: MakeSystem) -> None:
    system = make_system(privileged=True)
    port, forbidden = free_port(), free_port()
    system.configure(
        {},
        [
            f"127.0.0.1:{port} inet n n n - - spawn user=nobody:games argv=/usr/bin/id -u -r",
            f"127.0.0.1:{forbidden} inet n n n - - spawn user=postfix argv=/usr/bin/id",
        ],
    )
    system.allow("user= command-line attribute specifies mail system owner postfix")
    system.start()
    assert talk(port, b"") == f"{pwd.getpwnam('nobody').pw_uid}\n".encode()
    assert talk(forbidden, b"") == b""
    system.wait_for_log("spawn.*fatal: user= command-line attribute specifies mail system owner")
