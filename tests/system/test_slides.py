"""Configurations from lecture notes on Postfix: virtual domains, relaying, transports.

What main.cf, master.cf and the tables say is word for word what the notes say, but for the names of
directories.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.mounts import in_place_of
from tests.system.sink import PythonSink
from tests.unit.libmail.dns.fake_server import FakeServer

MESSAGE = b"Subject: test\r\n\r\nhello\r\n"


def write_notes(system: MailSystem, text: str) -> None:
    """Take over the lines of main.cf in the notes."""
    text = text.replace("/some/dir", str(system.config_directory))
    text = text.replace("/var/vmail", str(system.top / "vmail"))
    for line in text.splitlines():
        name, _, value = line.partition(" = ")
        system.configure({name: value})


def write_table(system: MailSystem, name: str, text: str) -> None:
    """A table of the notes, made usable with postmap."""
    path = system.config_directory / name
    path.write_text(text)
    done = system.run("postmap", f"hash:{path}")
    assert (done.returncode, done.stderr) == (0, b"")


def refused(system: MailSystem, address: str) -> str:
    """The reply to a recipient that is not taken."""
    with system.smtp() as client:
        client.helo()
        client.mail("me@client.test")
        code, reply = client.rcpt(address)
    assert code >= 400, address
    return f"{code} {reply.decode()}"


def test_shared_domain_with_system_accounts(make_system: MakeSystem) -> None:
    system = make_system()
    write_notes(system, "mydestination = $myhostname, a.edu.tw, b.edu.tw")
    system.start()
    me = system.user.pw_name
    system.send("me@client.test", [f"{me}@a.edu.tw", f"{me}@b.edu.tw"], MESSAGE)
    system.wait_for_queue_empty()
    for domain in ("a.edu.tw", "b.edu.tw"):
        assert f"\nDelivered-To: {me}@{domain}\n".encode() in system.mailbox.read_bytes()
    assert "User unknown in local recipient table" in refused(system, "no-such-user@a.edu.tw")


def test_separate_domains_with_system_accounts(make_system: MakeSystem) -> None:
    system = make_system()
    write_notes(
        system,
        "virtual_alias_domains = a.edu.tw, b.edu.tw\n"
        "virtual_alias_maps = hash:/some/dir/virtual_alias",
    )
    write_table(
        system,
        "virtual_alias",
        "qoo@a.edu.tw\tqoo.a@localhost\ntest@b.edu.tw\ttest@some.where.on.earth\n",
    )
    # The account qoo.a is this one.
    system.configure({"alias_maps": f"inline:{{ {{qoo.a={system.user.pw_name}}} }}"})
    port = free_port()
    system.route("some.where.on.earth", f"smtp:[127.0.0.1]:{port}")
    system.start()
    with PythonSink(port) as earth:
        system.send("me@client.test", ["qoo@a.edu.tw", "test@b.edu.tw"], MESSAGE)
        (message,) = earth.wait_for(1)
        system.wait_for_queue_empty()
    assert message.recipients == ["test@some.where.on.earth"]
    mailbox = system.mailbox.read_bytes()
    assert b"\nX-Original-To: qoo@a.edu.tw\nDelivered-To: qoo.a@localhost\n" in mailbox
    for address in ("test@a.edu.tw", "qoo@b.edu.tw"):
        reply = refused(system, address)
        assert reply.startswith(f"550 5.1.1 <{address}>: Recipient address rejected: User unknown")
        assert reply.endswith("in virtual alias table")


def test_separate_domains_with_virtual_accounts(make_system: MakeSystem) -> None:
    system = make_system()
    write_notes(
        system,
        "virtual_mailbox_domains = a.edu.tw, b.edu.tw\n"
        "virtual_mailbox_base = /var/vmail\n"
        "virtual_mailbox_maps = hash:/some/dir/virtual",
    )
    write_table(system, "virtual", "qoo@a.edu.tw\ta/qoo\ntest@b.edu.tw\tb/test\n")
    for name in ("a", "b"):
        system.run("/bin/mkdir", str(system.top / "vmail" / name))
    system.start()
    system.send("me@client.test", ["qoo@a.edu.tw", "test@b.edu.tw"], MESSAGE)
    system.wait_for_queue_empty()
    for path, address in (("a/qoo", b"qoo@a.edu.tw"), ("b/test", b"test@b.edu.tw")):
        mailbox = (system.top / "vmail" / path).read_bytes()
        assert mailbox.startswith(b"From me@client.test  ")
        assert b"\nDelivered-To: " + address + b"\n" in mailbox
        assert mailbox.endswith(b"\n\nhello\n\n")
    assert refused(system, "test@a.edu.tw").endswith("User unknown in virtual mailbox table")


def test_mail_relay(make_system: MakeSystem) -> None:
    # A client that is not in mynetworks, so that relay_domains decide.
    system = make_system(main={"mynetworks": "192.0.2.0/24"})
    write_notes(
        system,
        "relay_domains = 163.21.0.0/16, /some/dir/relay_domains\n"
        "relay_recipient_maps = hash:/some/dir/relay_recipients",
    )
    (system.config_directory / "relay_domains").write_text("a.edu.tw\nb.edu.tw\nc.edu.tw\n")
    write_table(
        system,
        "relay_recipients",
        "qoo@a.edu.tw\tany_value\ntest@b.edu.tw\tany_value\n@c.edu.tw\tcatchall.c@localhost\n",
    )
    port = free_port()
    for domain in ("a.edu.tw", "b.edu.tw", "c.edu.tw"):
        system.route(domain, f"relay:[127.0.0.1]:{port}")
    system.configure({}, ["relay unix - - n - - smtp"])
    system.start()
    wanted = ["anybody@c.edu.tw", "qoo@a.edu.tw", "test@b.edu.tw"]
    with PythonSink(port) as sink:
        system.send("me@client.test", wanted, MESSAGE)
        system.wait_for_queue_empty()
        (message,) = sink.wait_for(1)
    # What the table says of a recipient does not matter, only that it is there.
    assert sorted(message.recipients) == wanted
    assert refused(system, "test@a.edu.tw").endswith("User unknown in relay recipient table")
    assert "Relay access denied" in refused(system, "qoo@d.edu.tw")


TRANSPORT = """\
tp.edu.tw\tsmtp:mail.tp.edu.tw
slhs.tp.edu.tw\tsmtp:[ms.slhs.tp.edu.tw]
cc.ntnu.edu.tw\tsmtp:[cc.ntnu.edu.tw]:10025
.mailserver.idv.tw\tdevnull:
zdl.net\tdevnull:
"""
DEVNULL = """\
devnull\tunix\t-\tn\tn\t-\t-\tpipe
  user=nobody argv=/bin/cat /dev/null"""
# Where mail must not go: the domains themselves, and the MX hosts of a host in brackets.
RECORDS = (
    "mail.tp.edu.tw MX 0 smtp.tp.edu.tw.",
    "smtp.tp.edu.tw A 127.0.25.1",
    "mail.tp.edu.tw A 127.0.25.9",
    "tp.edu.tw MX 0 wrong.edu.tw.",
    "ms.slhs.tp.edu.tw MX 0 wrong.edu.tw.",
    "ms.slhs.tp.edu.tw A 127.0.25.2",
    "cc.ntnu.edu.tw MX 0 wrong.edu.tw.",
    "cc.ntnu.edu.tw A 127.0.25.3",
    "wrong.edu.tw A 127.0.25.9",
)
NAME_SERVER = "127.0.53.53"


@pytest.mark.root
def test_transport(make_system: MakeSystem, tmp_path: Path) -> None:
    system = make_system(privileged=True, main={"inet_protocols": "ipv4"})
    port = free_port()  # instead of 25
    system.configure({"smtp_tcp_port": str(port)}, [DEVNULL])
    write_notes(system, "transport_maps = hash:/some/dir/transport")
    write_table(system, "transport", TRANSPORT)
    resolv_conf = f"nameserver {NAME_SERVER}\n"
    with (
        in_place_of(Path("/etc/resolv.conf"), resolv_conf, tmp_path),
        FakeServer(RECORDS, (NAME_SERVER, 53)),
        PythonSink(port, host="127.0.25.1") as by_mx,
        PythonSink(port, host="127.0.25.2") as by_address,
        PythonSink(10025, host="127.0.25.3") as by_port,
    ):
        system.start()
        domains = ["tp.edu.tw", "slhs.tp.edu.tw", "cc.ntnu.edu.tw", "zdl.net"]
        domains.append("any.host.mailserver.idv.tw")
        system.send("me@client.test", [f"x@{domain}" for domain in domains], MESSAGE)
        for sink, domain in ((by_mx, domains[0]), (by_address, domains[1]), (by_port, domains[2])):
            (message,) = sink.wait_for(1)
            assert message.recipients == [f"x@{domain}"]
        system.wait_for_queue_empty()
    host = r"smtp.tp.edu.tw\[127.0.25.1\]"
    system.wait_for_log(rf"to=<x@tp.edu.tw>, relay={host}:{port}, .*status=sent")
    for domain in domains[3:]:
        system.wait_for_log(rf"to=<x@{domain}>, relay=devnull, .*delivered via devnull service\)")
