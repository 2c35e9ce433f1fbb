"""Milters in a running system: what they see, change and refuse, and what becomes of mail when they
die; a scripted one, and OpenDKIM."""

from __future__ import annotations

import os
import pwd
import re
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.milter import Milter
from tests.system.processes import wait_until

MESSAGE = b"Subject: hello\r\nX-Drop: 1\r\n\r\nbody\r\n"


def system_with(make_system: MakeSystem, milter: Milter, **main: str) -> MailSystem:
    endpoint = f"inet:127.0.0.1:{milter.port}"
    settings = {"smtpd_milters": endpoint, "non_smtpd_milters": endpoint, **main}
    system = make_system(main=settings)
    system.start()
    return system


def delivered(system: MailSystem, count: int = 1) -> list[bytes]:
    folder = system.top / "vmail/alice/new"
    wait_until(lambda: folder.is_dir() and len(list(folder.iterdir())) == count)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


CHANGES = (
    ("h", b"X-Added\0yes\0"),
    ("m", b"\0\0\0\1Subject\0changed\0"),
    ("m", b"\0\0\0\1X-Drop\0\0"),
    ("b", b"new body\r\n.with a dot\r\n"),
    ("-", b"<bob@virtual.test>\0"),
)


def test_changes(make_system: MakeSystem) -> None:
    with Milter(edits=CHANGES) as milter:
        system = system_with(make_system, milter)
        with system.smtp() as client:
            client.sendmail("a@x.test", ["alice@virtual.test", "bob@virtual.test"], MESSAGE)
        system.sendmail("-f", "a@x.test", "alice@virtual.test", stdin=MESSAGE)
        for content in delivered(system, 2):
            assert b"\nX-Added: yes\n" in content
            assert b"\nSubject: changed\n" in content
            assert b"X-Drop" not in content
            assert content.endswith(b"\n\nnew body\n.with a dot\n")
        system.wait_for_queue_empty()
    assert [data.partition(b"\0")[0] for data in milter.said("M")] == [b"<a@x.test>", b"a@x.test"]
    assert b"<bob@virtual.test>\0" in milter.said("R")
    assert milter.said("B") == [b"body\r\n"] * 2


def test_recipients_of_local_mail_as_they_were_given(make_system: MakeSystem) -> None:
    """A Milter sees them complete, but before aliases, and no automatic copies."""
    tables = {
        "virtual_alias_maps": "inline:{ticket@virtual.test=alice@virtual.test}",
        "canonical_maps": "inline:{old@virtual.test=bob@virtual.test}",
        "always_bcc": "carol@virtual.test",
    }
    with Milter() as milter:
        system = system_with(make_system, milter, **tables)
        names = ("ticket@virtual.test", "old@virtual.test")
        system.sendmail("-f", "a@x.test", *names, stdin=MESSAGE)
        delivered(system, 1)
        system.wait_for_queue_empty()
    assert milter.said("R") == [b"ticket@virtual.test\0", b"bob@virtual.test\0"]


OWN_HIDDEN = [b"X-Spf", b"Subject", b"X-Drop"]


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("/^X-Nothing/ IGNORE", OWN_HIDDEN),
        ("/^Received: from/ IGNORE", OWN_HIDDEN),
        ("/^(Received: )from/ REPLACE $${1}somewhere", OWN_HIDDEN),
        ("/^X-Drop/ PASS", []),
        ("/^X-Drop/ REDIRECT alice@virtual.test", []),
    ],
)
def test_what_is_shown_beside_header_checks(
    make_system: MakeSystem, rule: str, wanted: list[bytes]
) -> None:
    """Our own Received: is hidden, wherever it is; who was let pass is not shown at all."""
    tables = {
        "header_checks": f"pcre:{{{{{rule}}}}}",
        "smtpd_recipient_restrictions": "check_recipient_access"
        " inline:{{alice@virtual.test = PREPEND X-Spf: yes}}, permit_mynetworks, reject",
    }
    with Milter() as milter:
        system = system_with(make_system, milter, **tables)
        with system.smtp() as client:
            client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
        delivered(system)
    shown = [data.partition(b"\0")[0] for data in milter.said("L")]
    assert [name for name in shown if name not in (b"Message-Id", b"Date", b"From")] == wanted


MADE = (
    ("h", b"X-Ignore\0yes\0"),
    ("h", b"X-Warn\0yes\0"),
    ("m", b"\0\0\0\1X-Drop\0replace\0"),
    ("m", b"\0\0\0\1Subject\0keep\0"),
    ("h", b"X-Hold\0yes\0"),
)


def test_checks_of_what_a_milter_makes(make_system: MakeSystem) -> None:
    with Milter(edits=MADE) as milter:
        checks = (
            "pcre:{{/^X-Ignore/ IGNORE} {/^X-Warn/ WARN why} {/^X-Drop/ REPLACE X-New: here}"
            " {/^Subject: keep/ IGNORE} {/^X-Hold/ HOLD} {/^From/ REJECT}}"
        )
        system = system_with(make_system, milter, milter_header_checks=checks)
        with system.smtp() as client:
            content = b"From: a@x.test\r\n" + MESSAGE
            client.sendmail("a@x.test", ["alice@virtual.test"], content)
        system.wait_for_log("milter-header-warning: header X-Warn: yes from .*: why")
        system.wait_for_log("milter-header-replace: header X-Drop: replace from .*: X-New: here")
        system.wait_for_log("milter-header-hold: header X-Hold: yes from ")
        held = system.top / "queue/hold"
        wait_until(lambda: len(list(held.iterdir())) == 1)
        (path,) = held.iterdir()
        header = path.read_bytes()
    assert b"\r\nSubject: hello\r\nX-New: here\r\n" in header
    assert b"X-Warn: yes\r\nX-Hold: yes\r\n" in header


def test_refused_for_what_a_milter_makes(make_system: MakeSystem) -> None:
    with Milter(edits=(("h", b"X-Bad\0yes\0"),)) as milter:
        checks = "pcre:{{/^X-Bad/ REJECT 5.7.9 not so}}"
        system = system_with(make_system, milter, milter_header_checks=checks)
        with system.smtp() as client, pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
        assert refused.value.args == (550, b"5.7.9 not so")


def test_one_connection_serves_a_session(make_system: MakeSystem) -> None:
    with Milter() as milter:
        system = system_with(make_system, milter)
        with system.smtp() as client:
            for _ in range(5):
                client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
        delivered(system, 5)
    assert len(milter.said("C")) == 1
    assert len(milter.said("E")) == 5


@pytest.mark.parametrize(
    ("stage", "answer", "code", "text"),
    [
        ("M", "r", 550, b"5.7.1 Command rejected"),
        ("R", "t", 451, b"4.7.1 Service unavailable - try again later"),
        ("T", "y 554 5.7.1 not that", 554, b"5.7.1 not that"),
        ("E", "y 550 5.7.1 spam", 550, b"5.7.1 spam"),
        ("E", "close", 451, b"4.7.1 Service unavailable - try again later"),
    ],
)
def test_refusals(make_system: MakeSystem, stage: str, answer: str, code: int, text: bytes) -> None:
    with Milter({stage: answer}) as milter:
        system = system_with(make_system, milter, milter_default_action="tempfail")
        system.allow("milter inet:127.0.0.1:.*: can't read SMFIC_BODYEOB reply packet header")
        with system.smtp() as client, pytest.raises(smtplib.SMTPException) as caught:
            client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
        error = caught.value
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            assert error.recipients["alice@virtual.test"] == (code, text)
        else:
            assert isinstance(error, smtplib.SMTPResponseException)
            assert (error.smtp_code, error.smtp_error) == (code, text)
        system.wait_for_log(f"milter-reject: .* from .*: .*{text[6:].decode()}")


def test_a_milter_that_comes_back(make_system: MakeSystem) -> None:
    """While it is away mail passes, for that is what is configured; no session hangs."""
    with Milter(edits=[("h", b"X-Seen\0yes\0")]) as milter:
        system = system_with(make_system, milter, milter_default_action="accept")
        system.allow("connect to Milter service|can't read SMFIC_")
        with system.smtp() as client:
            client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
            milter.close()
            client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
        contents = delivered(system, 2)
    assert sorted(b"X-Seen" in content for content in contents) == [False, True]


HALF: tuple[tuple[str, bytes], ...] = (
    ("i", b"\0\0\0\0X-Half\0yes\0"),
    ("m", b"\0\0\0\1Subject\0\0"),
    ("b", b"half a bod\xe4"),
    ("+", b"<bob@virtual.test>\0"),
    ("-", b"<alice@virtual.test>\0"),
    ("e", b"<half@x.test>\0"),
    ("q", b"half\0"),
)


def test_a_milter_that_breaks_off_amid_its_changes_has_changed_nothing(
    make_system: MakeSystem,
) -> None:
    whole = [("i", b"\0\0\0\0X-Whole\0yes\0"), ("b", b"whole body\r\n")]
    with Milter(edits=whole) as first, Milter({"E": "close"}, HALF) as second, Milter() as third:
        endpoints = " ".join([f"inet:127.0.0.1:{one.port}" for one in (first, second, third)])
        system = make_system(main={"smtpd_milters": endpoints, "milter_default_action": "accept"})
        system.allow("can't read SMFIC_BODYEOB reply packet header")
        system.start()
        system.send("a@x.test", ["alice@virtual.test"], MESSAGE)
        (content,) = delivered(system)
        seen = third.said("L")
    assert content.startswith(b"Return-Path: <a@x.test>\n")
    assert b"X-Whole: yes\nReceived: " in content
    assert b"X-Half" not in content
    assert b"\nSubject: hello\n" in content
    assert content.endswith(b"\n\nwhole body\n")
    assert [data.partition(b"\0")[0] for data in seen][:2] == [b"X-Whole", b"Subject"]
    system.wait_for_queue_empty()
    assert not (system.top / "vmail/bob").exists()


BAD_CHANGES = (
    ("e", b"<a@x.test\0"),
    ("e", b"<" + b"a" * 3000 + b"@x.test>\0"),
    ("+", b"<" + b"a" * 2045 + b">\0"),  # too long with the domain that is added
    ("+", b"<" + b"a" * 3000 + b"@x.test>\0"),
    ("2", b"<bob@virtual.test>\0ORCPT=" + b"x" * 100_000 + b"\0"),
)


def test_a_change_that_makes_no_sense_is_passed_over(make_system: MakeSystem) -> None:
    """The client and its message can do nothing about it."""
    with Milter(edits=BAD_CHANGES) as milter:
        system = system_with(make_system, milter)
        system.allow("bad (?:sender|recipient)")
        system.send("a@x.test", ["alice@virtual.test"], MESSAGE)
        (content,) = delivered(system)
        assert content.startswith(b"Return-Path: <a@x.test>\n")
        system.wait_for_log("milter.*: bad sender: '<a@x.test'")
        system.wait_for_log("bad (?:sender|recipient)", count=len(BAD_CHANGES))


def test_a_recipient_that_was_added_may_be_taken_away(make_system: MakeSystem) -> None:
    bob = b"<bob@virtual.test>\0"
    with Milter(edits=[("+", bob), ("-", bob)]) as milter:
        system = system_with(make_system, milter)
        system.send("a@x.test", ["alice@virtual.test"], MESSAGE)
        system.wait_for_log("nrcpt=1 ")
        system.wait_for_queue_empty()
    assert "to=<bob" not in system.log_text()


def test_without_recipients_a_message_vanishes(make_system: MakeSystem) -> None:
    with Milter(edits=[("-", b"<alice@virtual.test>\0")]) as milter:
        system = system_with(make_system, milter)
        system.send("a@x.test", ["alice@virtual.test"], MESSAGE)
        system.wait_for_queue_empty()
        assert not (system.top / "vmail/alice").exists()


def test_a_milter_without_an_end(make_system: MakeSystem) -> None:
    """It may ask for more time, but not for ever."""
    with Milter(edits=[("p", b"")] * 10_001) as milter:
        system = system_with(make_system, milter, milter_default_action="accept")
        system.allow("milter inet:127.0.0.1:.*: too many answers after event SMFIC_BODYEOB")
        system.send("a@x.test", ["alice@virtual.test"], MESSAGE)
        delivered(system)
        system.wait_for_log("warning: milter .*: too many answers")


def test_quarantine(make_system: MakeSystem) -> None:
    with Milter(edits=[("q", b"virus\0")]) as milter:
        system = system_with(make_system, milter)
        with system.smtp() as client:
            client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
        system.wait_for_log("milter-hold: END-OF-MESSAGE from .*milter triggers HOLD action")
        wait_until(lambda: len(list((system.top / "queue/hold").iterdir())) == 1)


def dkim_key(folder: Path) -> Path:
    """A private key; behind it, in a file for opendkim, its public half."""
    key, public = folder / "key.pem", folder / "public"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    shown = ["openssl", "rsa", "-in", str(key), "-pubout"]
    text = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    value = "".join(text.splitlines()[1:-1])
    public.write_text(f"sel._domainkey.x.test v=DKIM1; k=rsa; p={value}\n")
    return key


@contextmanager
def opendkim(folder: Path, *settings: str) -> Iterator[str]:
    """A running OpenDKIM; its endpoint. Only clients of 127.0.0.1 are its own with "Mode s"."""
    port = free_port()
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    configuration = folder / f"opendkim-{port}.conf"
    lines = (*settings, f"Socket inet:{port}@127.0.0.1", "Background no", "RequireSafeKeys no",
             f"UserID {user.pw_name}")  # fmt: skip
    configuration.write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
    command = [need_tool("opendkim"), "-f", "-x", str(configuration)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield f"inet:127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def test_opendkim_signs_and_verifies(make_system: MakeSystem, short_tmp: Path) -> None:
    """One signs; another one, to which the client is a stranger, finds the signature good."""
    key = dkim_key(short_tmp)
    (short_tmp / "here").write_text("127.0.0.1\n")
    (short_tmp / "elsewhere").write_text("192.0.2.1\n")
    signs = ("Mode s", "Domain x.test", "Selector sel", f"KeyFile {key}",
             f"InternalHosts {short_tmp}/here")  # fmt: skip
    verifies = ("Mode v", f"TestPublicKeys {short_tmp}/public",
                f"InternalHosts {short_tmp}/elsewhere", "AlwaysAddARHeader yes")  # fmt: skip
    with opendkim(short_tmp, *signs) as signer, opendkim(short_tmp, *verifies) as verifier:
        milters = {"smtpd_milters": f"{signer}, {verifier}", "milter_default_action": "tempfail"}
        system = make_system(main=milters)
        system.allow("connect to Milter service")
        system.start()

        def signed() -> bool:
            try:
                with system.smtp() as client:
                    content = b"From: a@x.test\r\n" + MESSAGE
                    client.sendmail("a@x.test", ["alice@virtual.test"], content)
            except smtplib.SMTPException:
                return False  # not up yet
            return True

        wait_until(signed)
        (content,) = delivered(system)
    assert b"DKIM-Signature: v=1; a=rsa-sha256;" in content
    assert content.index(b"DKIM-Signature") < content.index(b"Subject:")
    assert b"dkim=pass" in content


@pytest.mark.parametrize(("index", "place"), [(0, 0), (1, 0), (2, 1)])
def test_what_one_milter_inserts_the_next_one_sees(
    make_system: MakeSystem, index: int, place: int
) -> None:
    """The field of this system counts for the place, and is shown to nobody."""
    insertion = ("i", index.to_bytes(4, "big") + b"X-Own\0yes\0")
    change = ("m", b"\0\0\0\1X-Own\0changed\0")
    with Milter(edits=[insertion]) as first, Milter(edits=[change]) as second:
        endpoints = " ".join([f"inet:127.0.0.1:{milter.port}" for milter in (first, second)])
        system = make_system(main={"smtpd_milters": endpoints})
        system.start()
        with system.smtp() as client:
            client.sendmail("a@x.test", ["alice@virtual.test"], MESSAGE)
        names = [data.partition(b"\0")[0] for data in second.said("L")]
        assert names.index(b"X-Own") == place
        assert b"Received" not in names
        (content,) = delivered(system)
        assert content.count(b"X-Own") == content.count(b"X-Own: changed\n") == 1


def change(letter: str, index: int, name: bytes, value: bytes) -> tuple[str, bytes]:
    return letter, index.to_bytes(4, "big") + name + b"\0" + value + b"\0"


EACH_CHANGE: tuple[tuple[tuple[str, bytes], ...], ...] = (
    *((change("i", index, b"X-Ins", b"v"),) for index in (0, 1, 2, 5, 6, 7, 99)),
    (("h", b"X-Add\0v\0"), ("h", b"X-Add\0 w\0"), ("h", b"X-Empty\0\0")),
    (("h", b"X-Add\0a\n\tb\n c\nd\n\n e\0"), ("h", b"X-Wide\0\xc3\xa4\xff\0")),
    *((change("m", index, b"x-a", b"new"),) for index in range(5)),
    *((change("m", index, b"X-A", b""),) for index in range(5)),
    (change("m", 1, b"X-A", b" "), change("m", 1, b"X-New", b"made"), change("m", 1, b"X-No", b"")),
    (change("m", 1, b"X-A", b""), change("m", 1, b"X-A", b"one"), change("m", 2, b"X-A", b"")),
    (change("i", 0, b"Received", b"mine"), change("m", 1, b"Received", b"changed")),
    (("h", b"X-A\x004\0"), change("m", 4, b"X-A", b"four"), change("m", 1, b"Subject", b"new")),
    (("b", b"new body\r\n.\r\n..\r\n\xe4\r\n"),),
    (("b", b"a\nb\r"), ("b", b"\nno end")),
    (("b", b"a\0b\r\n" + b"z" * 3000),),
    (("+", b"<bob@virtual.test>\0"), ("-", b"<alice@virtual.test>\0"), ("e", b"<new@x.test>\0")),
    (("+", b"bob@virtual.test\0"), ("e", b"\0")),
)


def taken(system: MailSystem) -> list[bytes]:
    """The mail in the boxes a and b, without queue ids and dates; the boxes are empty then."""
    mails = []
    for path in sorted((system.top / "vmail").glob("[ab]/new/*")):
        text = re.sub(rb"id \w+|\w+, +\d+ \w+ \d+ [\d:]+", b"", path.read_bytes())
        mails.append(path.parts[-3].encode() + text)
        path.unlink()
    return mails


@pytest.mark.root
def test_each_change_is_as_in_postfix(make_system: MakeSystem, make_postfix: MakePostfix) -> None:
    """What is delivered is the same to the octet."""
    content = (
        b"From: a@x.test\r\nSubject: hello\r\nX-A: 1\r\nX-B: b\r\nX-A: 2\r\nX-A: 3\r\n"
        b"Message-ID: <1@x.test>\r\nDate: Mon, 30 Nov 2026 10:00:00 +0000\r\n\r\nbody\r\n"
    )
    found: list[list[list[bytes]]] = []
    with Milter() as milter:
        boxes = "inline:{{alice@virtual.test=a/},{bob@virtual.test=b/}}"
        main = {"smtpd_milters": f"inet:127.0.0.1:{milter.port}", "virtual_mailbox_maps": boxes}
        for system in (make_system(main=main, privileged=True), make_postfix(main=main)):
            system.start()
            mails: list[list[bytes]] = []
            for edits in EACH_CHANGE:
                milter.edits = edits
                system.send("a@x.test", ["alice@virtual.test"], content)
                system.wait_for_queue_empty()
                mails.append(taken(system))
            found.append(mails)
            system.halt()
    assert found[0] == found[1]
    assert all(found[0])


def test_macro_of_connections(make_system: MakeSystem) -> None:
    """smtpd_client_event_limit_exceptions: none, as clients of the tests are in $mynetworks."""
    with Milter() as milter:
        system = system_with(
            make_system,
            milter,
            milter_connect_macros="{client_connections}",
            smtpd_client_event_limit_exceptions="",
        )
        with system.smtp() as one, system.smtp() as other:
            one.noop()
            other.noop()
    told = [data for data in milter.said("D") if data.startswith(b"C")]
    assert told == [b"C{client_connections}\0%d\0" % number for number in (1, 2)]
