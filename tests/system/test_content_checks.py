"""header_checks and body_checks in a running system, and headers without end."""

from __future__ import annotations

import random
import re
import smtplib
import socket
import threading

import pytest

from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.harness import MailSystem
from tests.unit.waiting import PATIENCE

HEADER_CHECKS = (
    "pcre:{ {/^Subject: stop (.*)/ REJECT 5.7.9 no $$1} {/^Subject: wait/ HOLD}"
    " {/^X-Gone:/ IGNORE} {/^Subject: drop/ DISCARD} }"
)
BODY_CHECKS = "pcre:{ {/^bad word/ REJECT} {/^(.*) black/ REPLACE $$1 white} }"


def test_what_rules_say(make_system: MakeSystem) -> None:
    system = make_system(main={"header_checks": HEADER_CHECKS, "body_checks": BODY_CHECKS})
    system.start()
    with system.smtp() as client:

        def send(content: bytes) -> None:
            client.sendmail("a@client.test", ["alice@virtual.test"], content)

        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(b"Subject: stop it\r\n\r\nbody\r\n")
        assert (refused.value.smtp_code, refused.value.smtp_error) == (550, b"5.7.9 no it")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            send(b"Subject: x\r\n\r\nbad word\r\n")
        assert refused.value.smtp_error == b"5.7.1 message content rejected"
        send(b"Subject: drop\r\n\r\nbody\r\n")
        send(b"Subject: wait\r\n\r\nbody\r\n")
        send(b"Subject: good\r\nX-Gone: yes\r\n\r\nis black\r\n")
    system.sendmail(
        "-f", "bob@virtual.test", "alice@virtual.test", stdin=b"Subject: stop me\n\nx\n"
    )
    system.wait_for_log("to=<bob@virtual.test>.*status=sent")
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    (mail,) = system.maildir("alice")
    assert b"Subject: good\n" in mail
    assert b"X-Gone" not in mail
    assert mail.endswith(b"\n\nis white\n")
    assert len(system.queued()) == 1  # on hold
    assert b"no me" in (system.top / "vmail/bob").read_bytes()


def test_a_header_without_end_stops_nobody(make_system: MakeSystem) -> None:
    """4 MB of continuation lines, then small pieces that each might have them read again."""
    system = make_system(main={"message_size_limit": "0"})
    system.start()
    attacker = socket.create_connection(("127.0.0.1", system.smtp_port), PATIENCE)
    over = threading.Event()

    def attack() -> None:
        try:
            attacker.sendall(b"EHLO x\r\nMAIL FROM:<a@client.test>\r\n")
            attacker.sendall(b"RCPT TO:<alice@virtual.test>\r\nDATA\r\n")
            while b"354 " not in attacker.recv(1000):
                pass
            attacker.sendall(b"X: y\r\n" + b" \r\n" * 1_300_000)
            while not over.is_set():
                attacker.sendall(b" " * 14 + b"\r\n")
        except OSError:
            return

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        for _ in range(20):
            with system.smtp() as client:
                client.sendmail("b@client.test", ["bob@virtual.test"], b"Subject: x\r\n\r\nx\r\n")
    finally:
        over.set()
        attacker.shutdown(socket.SHUT_RDWR)
        attacker.close()
        thread.join()
    system.wait_for_log("to=<bob@virtual.test>.*status=sent", count=20)


WORDS = (
    "offer", "money", "free", "meeting", "invoice", "report", "casino", "lunch", "photos", "test",
    "password", "update", "account", "bank", "friend", "weekend", "winner", "prize", "click", "win",
)  # fmt: skip
ACTIONS = ("REJECT spam {n}", "WARN seen {n}", "HOLD", "IGNORE", "REPLACE X-Was: $1", "INFO",
           "DISCARD rule {n}", "PREPEND X-Rule: {n}", "REJECT 4.7.1 later", "DUNNO")  # fmt: skip


def patterns() -> list[str]:
    """200 rules as sites have them: words in a field, forms of addresses, names of programs."""
    rules = []
    for n in range(200):
        one, two = WORDS[n % 20], WORDS[(n * 7 + n // 20) % 20]
        forms = (
            f"/^Subject:.*\\b({one})\\b.*\\b{two}\\b/",
            f"/^From:.*({one}{n % 10})@[a-z]+\\.{two}\\.test/",
            f"/^X-Mailer: *({one}[0-9]*) v{n % 7}\\.[0-9]/",
            f"/^({one}) +{two}( +[a-z]+){{{n % 3}}}$/",
        )
        rules.append(f"{forms[n % 4]} {ACTIONS[n % len(ACTIONS)].format(n=n)}")
    return rules


def message(chance: random.Random) -> bytes:
    """Mail of which about half is found by some rule."""

    def some(count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count))

    sender = f"{chance.choice(WORDS)}{chance.randrange(20)}@x.{chance.choice(WORDS)}.test"
    lines = [
        f"From: {sender}",
        f"Subject: {some(chance.randrange(1, 7))}",
        f"X-Mailer: {chance.choice(WORDS)}{chance.randrange(9)} v{chance.randrange(9)}.1",
        "Message-ID: <1@x.test>",
        "Date: Mon, 30 Nov 2026 10:00:00 +0000",
        "",
        *(some(chance.randrange(1, 6)) for _ in range(20)),
    ]
    return "\r\n".join([*lines, ""]).encode()


def decisions(system: MailSystem, count: int) -> tuple[list[str], list[str]]:
    """The answers to that many messages, and the lines that cleanup logs about their content."""
    chance, answers = random.Random(200), []
    with system.smtp() as client:
        client.ehlo()
        for _ in range(count):
            client.mail("a@x.test")
            client.rcpt("b@gone.test")
            code, text = client.data(message(chance))
            answers.append(f"{code} {text.decode().partition('queued as')[0]}")
            if code >= 400:
                client.rset()
    system.wait_for_log("disconnect from localhost")
    lines = system.log_lines(r"cleanup\[\d+\]: [0-9A-F]+: [a-z]+: (?:header|body) ")
    return answers, [re.sub(r"^.*?cleanup\[\d+\]: [0-9A-F]+: ", "", line) for line in lines]


@pytest.mark.root
def test_200_patterns_decide_as_in_postfix(
    make_system: MakeSystem, make_postfix: MakePostfix
) -> None:
    main = {"header_checks": "pcre:$config_directory/checks", "default_transport": "discard:x"}
    main["body_checks"] = main["header_checks"]
    found = []
    for system in (make_system(main=main, privileged=True), make_postfix(main=main)):
        text = "".join(f"{rule}\n" for rule in patterns())
        (system.config_directory / "checks").write_text(text)
        system.allow("warning: (?:header|body) .*: seen")  # a WARN action
        system.start()
        found.append(decisions(system, 1000))
        system.halt()
    (answers, lines), (wanted_answers, wanted_lines) = found
    assert answers == wanted_answers
    assert lines == wanted_lines
    assert len(lines) > 500
    assert {answer[:3] for answer in answers} == {"250", "451", "550"}


# Word for word from lecture notes on Postfix, with the field that each pattern finds.
NOTES = (
    ("/^From: [a-z][0-9]{7,}@yahoo.com/ REJECT Illegal mail header.", "From: a1234567@yahoo.com"),
    ("/^From: [a-z][0-9]{7,}@hotmail.com/ REJECT Illegal mail header.",
     "From: b7654321@hotmail.com"),
    ("/^To: .*\\.txt/ REJECT Illegal mail header.", "To: readme.txt"),
    ("/^Received: from tp.edu.tw/ REJECT Illegal mail header.", "Received: from tp.edu.tw"),
    ("/^From: .*\\<[a-z0-9]*@msa.hinet.net\\>/ REJECT User unknown.",
     'From: "a b" <abc1@msa.hinet.net>'),
    ("/^From: .*\\<.+\\.+@ms[0-9]+.hinnet.net\\>/ REJECT User unknown.",
     "From: <a.b..@ms12.hinnet.net>"),
    ("/^X-Mailer: ([0-9A-Za-z]{15,})$/ REJECT Mailer $1 is unacceptable.",
     "X-Mailer: abcdefghijklmno42"),
    ("/^X-Library: Dynamailer/ REJECT Dynamailer is unacceptable.", "X-Library: Dynamailer 2"),
    ("/^X-Library: Indy/ REJECT Indy is unacceptable.", "X-Library: Indy 9"),
    ("/^Content-Disposition: Multipart message/ REJECT mail MAY contain the SirCam virus.",
     "Content-Disposition: Multipart message"),
    ("/^Subject: new photos from my party!/ REJECT mail MAY contain the MyParty virus.",
     "Subject: new photos from my party!"),
    ("/^Subject: Re: Your password!$/ REJECT mail MAY contain the Frethem virus.",
     "Subject: Re: Your password!"),
    ("/^Message-ID: <[a-z]{19}\\@/ REJECT mail MAY contain the Bagle virus",
     "Message-ID: <abcdefghijklmnopqrs@example.org>"),
)  # fmt: skip
PASSES = (
    "From: a123456@yahoo.com", "From: <ab@ms12.hinnet.net>", "To: readme-txt",
    "Received: from other.tw", "X-Mailer: short 1.0", "X-Library: other",
    "Content-Disposition: attachment", "Subject: Re: Your password!!",
    "Message-ID: <abcdefghijklmnopqr@example.org>",
)  # fmt: skip


def test_patterns_of_the_notes(make_system: MakeSystem) -> None:
    system = make_system(main={"header_checks": "regexp:$config_directory/header_checks"})
    rules = "".join(f"{rule}\n" for rule, _ in NOTES)
    (system.config_directory / "header_checks").write_text(rules)
    system.start()
    with system.smtp() as client:
        for rule, line in NOTES:
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail("a@x.test", ["alice@virtual.test"], f"{line}\r\n\r\nx\r\n".encode())
            reason = rule.partition(" REJECT ")[2].replace("$1", "abcdefghijklmno42")
            assert refused.value.args == (550, f"5.7.1 {reason}".encode())
        # What passes is all in one message, and no pattern is for its body.
        lines = [*PASSES, "", *(line for _, line in NOTES), ""]
        client.sendmail("a@x.test", ["alice@virtual.test"], "\r\n".join(lines).encode())
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    assert len(system.maildir("alice")) == 1
