"""Real clients and real servers: all mail arrives once, and as it was sent."""

from __future__ import annotations

import hashlib
import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.exim import real_exim
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.processes import PATIENCE, wait_until
from tests.system.sink import PythonSink, Received

SENDER: Final = "sender@client.test"
MEGABYTE: Final = 1 << 20
BOXES: Final = "inline:{ {alice@mailbox.test=alice/} }"

# Bodies as they travel, each with the BODY parameter that a client would give.
BODIES: Final = {
    "plain": b"one line\r\n",
    "empty": b"",
    "empty lines": b"\r\n\r\n\r\n",
    "leading dots": b".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n",
    "from lines": b"From me\r\n>From you\r\n",
    "8-bit": "Grüße aus Köln\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "spaces": b"  x  \r\n\t\r\n \r\n",
    "lines of 900": (b"y" * 898 + b"\r\n") * 50,
    "25 MB": (b"z" * 74 + b"\r\n") * (25 * MEGABYTE // 76),
}


def body_of(content: bytes) -> bytes:
    """What follows the header; content with CRLF or with LF line ends."""
    line_end = b"\r\n" if b"\r\n\r\n" in content[:10_000] else b"\n"
    return content.partition(line_end * 2)[2]


def shown(data: bytes) -> str:
    """Short enough to print, and different when the data is."""
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:12]} {data[:60]!r}"


def raw_smtp(port: int, recipients: list[str], stuffed: bytes) -> None:
    """Speaks SMTP by hand: DATA is sent exactly as given, with the final dot in it."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        stream = client.makefile("rwb")

        def reply() -> bytes:
            while (line := stream.readline())[3:4] == b"-":
                pass
            return line

        assert reply().startswith(b"220")
        commands = ["EHLO client.test", f"MAIL FROM:<{SENDER}> BODY=8BITMIME"]
        commands += [f"RCPT TO:<{recipient}>" for recipient in recipients] + ["DATA"]
        for command in commands:
            stream.write(command.encode() + b"\r\n")
            stream.flush()
            assert reply()[:1] in b"23"
        stream.write(stuffed)
        stream.flush()
        assert reply().startswith(b"250")
        stream.write(b"QUIT\r\n")
        stream.flush()
        reply()


def stuff(body: bytes) -> bytes:
    """Dot-stuffing and the final dot, RFC 5321 §4.5.2."""
    return (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_content_by_smtp(make_system: MakeSystem, body: bytes) -> None:
    """To the next hop byte for byte, to mailboxes with LF."""
    port = free_port()
    system = make_system(
        main={
            "message_size_limit": "40000000",
            "mailbox_size_limit": "0",
            "virtual_mailbox_limit": "0",
        }
    )
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    with PythonSink(port) as sink:
        recipients = ["x@relay.test", "alice@virtual.test", f"{system.user.pw_name}@mail.test"]
        header = b"Subject: fidelity\r\n\r\n"
        raw_smtp(system.smtp_port, recipients, header + stuff(body))
        (message,) = sink.wait_for(1)
        system.wait_for_queue_empty()
    assert shown(body_of(message.content)) == shown(body)
    local = body.replace(b"\r\n", b"\n")
    (maildir,) = system.maildir("alice")
    assert shown(body_of(maildir)) == shown(local)
    quoted = (b"\n" + local).replace(b"\nFrom ", b"\n>From ")[1:]
    assert shown(body_of(system.mailbox.read_bytes())) == shown(quoted + b"\n")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"no final newline", b"no final newline\r\n"),
        (b"lf\nonly\n", b"lf\r\nonly\r\n"),
        (b"crlf\r\nlines\r\n", b"crlf\r\nlines\r\n"),
        (b"\n.leading\n..dots\n", b"\r\n.leading\r\n..dots\r\n"),
        ("Grüße\n".encode(), "Grüße\r\n".encode()),
        (b"", b""),
    ],
    ids=["no final newline", "LF", "CRLF", "dots", "8-bit", "empty"],
)
def test_content_by_sendmail(make_system: MakeSystem, given: bytes, expected: bytes) -> None:
    port = free_port()
    system = make_system()
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    with PythonSink(port) as sink:
        end = b"\r\n" if b"\r\n" in given else b"\n"
        content = b"Subject: x" + end + b"To: x@relay.test" + end + end + given
        system.sendmail("-i", "-t", "-f", SENDER, stdin=content)
        (message,) = sink.wait_for(1)
        system.wait_for_queue_empty()
    assert body_of(message.content) == expected
    assert message.sender == SENDER


def test_sendmail_ends_at_a_dot_without_i(make_system: MakeSystem) -> None:
    port = free_port()
    system = make_system()
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    with PythonSink(port) as sink:
        system.sendmail("x@relay.test", stdin=b"Subject: x\n\nabove\n.\nbelow\n")
        (message,) = sink.wait_for(1)
        system.wait_for_queue_empty()
    assert body_of(message.content) == b"above\r\n"


def test_long_lines_are_folded_for_the_next_hop(make_system: MakeSystem) -> None:
    """smtp_line_length_limit: 998 bytes and then a line break and a space."""
    port = free_port()
    system = make_system()
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    with PythonSink(port) as sink:
        recipients = ["x@relay.test", "alice@virtual.test"]
        raw_smtp(system.smtp_port, recipients, b"Subject: x\r\n\r\n" + stuff(b"w" * 5000 + b"\r\n"))
        (message,) = sink.wait_for(1)
        system.wait_for_queue_empty()
    body = body_of(message.content)
    assert max(len(line) for line in body.split(b"\r\n")) <= 998
    assert body.replace(b"\r\n ", b"") == b"w" * 5000 + b"\r\n"
    assert body_of(system.maildir("alice")[0]) == b"w" * 5000 + b"\n"


def test_swaks(make_system: MakeSystem) -> None:
    swaks = need_tool("swaks")
    system = make_system()
    system.start()
    command = [swaks, "--server", "127.0.0.1", "--port", str(system.smtp_port)]
    command += ["--from", SENDER, "--to", "alice@virtual.test,bob@virtual.test"]
    command += ["--header", "Subject: by swaks", "--body", ".dot\nlast"]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout
    system.wait_for_queue_empty()
    (content,) = system.maildir("alice")
    assert b"Subject: by swaks\n" in content
    assert body_of(content).startswith(b".dot\nlast\n")
    assert b"Subject: by swaks\n" in (system.top / "vmail/bob").read_bytes()


def test_swaks_pipelining(make_system: MakeSystem) -> None:
    swaks = need_tool("swaks")
    system = make_system()
    system.start()
    command = [swaks, "--server", "127.0.0.1", "--port", str(system.smtp_port), "--pipeline"]
    done = subprocess.run(
        [*command, "--from", SENDER, "--to", "alice@virtual.test"],
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 1


@pytest.mark.parametrize("options", [(), ("-d",)], ids=["a connection each", "reused"])
def test_smtp_source(make_system: MakeSystem, options: tuple[str, ...]) -> None:
    """20 sessions; every message once. -N numbers the recipients, so that each is known."""
    smtp_source = need_tool("smtp-source")
    port, messages = free_port(), 2000
    system = make_system()
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    with PythonSink(port) as sink:
        command = [smtp_source, "-s", "20", "-m", str(messages), "-l", "1000", "-N", *options]
        command += ["-f", SENDER, "-t", "x@relay.test", f"127.0.0.1:{system.smtp_port}"]
        subprocess.run(command, check=True, timeout=PATIENCE)
        sink.wait_for(messages)
        system.wait_for_queue_empty()
        received = sink.messages
    assert len(received) == messages
    assert max(count_of_recipients(received).values()) == 1
    system.wait_for_log(r": removed$", count=messages)
    assert len(system.log_lines(r": removed$")) == messages


def count_of_recipients(messages: list[Received]) -> Counter[str]:
    return Counter(recipient for message in messages for recipient in message.recipients)


def test_mailx(make_system: MakeSystem, tmp_path: Path) -> None:
    """bsd-mailx hands its mail to the sendmail command that its `sendmail` variable names."""
    need_tool("bsd-mailx")
    system = make_system()
    system.start()
    settings = system.top / "home/mailrc"
    settings.write_text(f"set sendmail={system.command_directory}/sendmail\n")
    done = subprocess.run(
        ["bsd-mailx", "-s", "by mailx", "alice@virtual.test"],
        input=b"first\n.leading dot\nlast\n",
        env={"MAILRC": str(settings), "MAIL_CONFIG": str(system.config_directory), "PATH": "/bin"},
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    system.wait_for_log(": removed$")
    system.wait_for_queue_empty()
    (content,) = system.maildir("alice")
    assert b"Subject: by mailx\n" in content
    assert body_of(content) == b"first\n.leading dot\nlast\n"


def smtp_between(sender: MailSystem, receiver: MailSystem) -> None:
    """Sends every body through both and compares what is in the mailbox at the end."""
    receiver.start()
    sender.route("virtual.test", f"smtp:[127.0.0.1]:{receiver.smtp_port}")
    sender.configure(
        {"virtual_mailbox_domains": None, "relay_domains": "virtual.test"},
    )
    sender.start()
    for body in BODIES.values():
        content = b"Subject: x\r\n\r\n" + stuff(body)
        raw_smtp(sender.smtp_port, ["alice@virtual.test"], content)
    sender.wait_for_queue_empty()
    receiver.wait_for_queue_empty()
    received = Counter(shown(body_of(content)) for content in receiver.maildir("alice"))
    expected = Counter(shown(body.replace(b"\r\n", b"\n")) for body in BODIES.values())
    assert received == expected


@pytest.mark.root
def test_real_postfix_as_next_hop(make_system: MakeSystem, make_postfix: MakePostfix) -> None:
    limits = {"message_size_limit": "40000000", "virtual_mailbox_limit": "0"}
    sender, receiver = make_system(main=limits), make_postfix(main=limits)
    smtp_between(sender, receiver)


@pytest.mark.root
def test_real_postfix_as_sender(make_system: MakeSystem, make_postfix: MakePostfix) -> None:
    limits = {"message_size_limit": "40000000", "virtual_mailbox_limit": "0"}
    sender, receiver = make_postfix(main=limits), make_system(main=limits)
    smtp_between(sender, receiver)


@pytest.mark.root
def test_real_exim_as_next_hop(make_system: MakeSystem) -> None:
    sender = make_system(main={"message_size_limit": "40000000"})
    sender.configure({"virtual_mailbox_domains": None, "relay_domains": "virtual.test"})
    with real_exim() as exim:
        sender.route("virtual.test", f"smtp:[127.0.0.1]:{exim.port}")
        sender.start()
        for body in BODIES.values():
            content = b"Subject: x\r\n\r\n" + stuff(body)
            raw_smtp(sender.smtp_port, ["alice@virtual.test"], content)
        sender.wait_for_queue_empty()
        wait_until(lambda: len(exim.maildir()) == len(BODIES), exim.log)
        received = Counter(shown(body_of(content)) for content in exim.maildir())
    expected = Counter(shown(body.replace(b"\r\n", b"\n")) for body in BODIES.values())
    assert received == expected


@pytest.mark.root
def test_real_exim_as_sender(make_system: MakeSystem) -> None:
    limits = {"message_size_limit": "40000000", "virtual_mailbox_limit": "0"}
    receiver = make_system(main=limits)
    receiver.configure({"virtual_mailbox_domains": "mailbox.test", "virtual_mailbox_maps": BOXES})
    receiver.start()
    with real_exim(receiver.smtp_port) as exim:
        for body in BODIES.values():
            content = b"Subject: x\r\n\r\n" + stuff(body)
            raw_smtp(exim.port, ["alice@mailbox.test"], content)
        wait_until(lambda: len(receiver.log_lines("status=sent")) == len(BODIES), exim.log)
        receiver.wait_for_queue_empty()
    received = Counter(shown(body_of(content)) for content in receiver.maildir("alice"))
    expected = Counter(shown(body.replace(b"\r\n", b"\n")) for body in BODIES.values())
    assert received == expected
