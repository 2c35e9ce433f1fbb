"""The queue of a real Postfix, stopped with mail in it, taken over by postsuper --import."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.harness import MailSystem, RealPostfix, free_port
from tests.system.processes import wait_until
from tests.system.sink import PythonSink

HELD: Final = "inline:{{held@later.test=HOLD for a while}}"
BODY: Final = "\r\nGrüße\r\n.dot\r\n".encode() + b"x" * 900 + b"\r\n"


def queue_files(system: MailSystem) -> list[tuple[Path, bytes, float, int]]:
    """All files with what is in them, their times and modes."""
    paths = sorted(path for path in system.queue_directory.rglob("*") if path.is_file())
    return [(p, p.read_bytes(), p.stat().st_mtime, p.stat().st_mode) for p in paths]


def fill(postfix: RealPostfix) -> None:
    """Mail that is deferred, in part done, held; a submission that nobody has taken."""
    header = b"Subject: import\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
    with postfix.smtp() as client:
        client.ehlo()
        assert not client.sendmail(
            "sender@x.test",
            ["one@later.test", "done@now.test", "three@later.test"],
            header + BODY,
            mail_options=["BODY=8BITMIME", "RET=HDRS", "ENVID=an+2Bid"],
            rcpt_options=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;o+2Brig@later.test"],
        )
        assert not client.sendmail("holder@x.test", ["held@later.test"], header + BODY)
        assert not client.sendmail(
            "grün@x.test",
            ["über@later.test"],
            "Subject: Grün\r\n\r\n".encode(),
            mail_options=["SMTPUTF8", "BODY=8BITMIME"],
        )
    postfix.wait_for_log(r"to=<(one|three|über)@later\.test>.* status=deferred", count=3)
    postfix.wait_for_log(r"to=<done@now\.test>.* status=sent")
    wait_until(lambda: len(list((postfix.queue_directory / "deferred").rglob("*z*"))) == 2)


def stop(postfix: RealPostfix) -> None:
    """Stop it, and leave its directories; then root submits a message."""
    assert postfix.run("postfix", "-c", str(postfix.config_directory), "stop").returncode == 0
    postfix.session = 0
    done = postfix.run(
        "sendmail", "-f", "user@x.test", "-N", "never", "dropped@later.test",
        stdin=b"Subject: dropped\n\n.dot\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.root
def test_import(make_system: MakeSystem, make_postfix: MakePostfix) -> None:
    postfix = make_postfix(
        main={
            "enable_long_queue_ids": "yes",
            "smtpd_recipient_restrictions": f"check_recipient_access {HELD}, permit_mynetworks, "
            "reject",
            "smtpd_reject_unlisted_recipient": "no",
        }
    )
    postfix.allow("mail system is down|Connection refused|No such file")
    postfix.route("later.test", "retry:not now")
    postfix.route("now.test", "discard:")
    postfix.start()
    fill(postfix)
    port = free_port()
    system = make_system(privileged=True, main={"minimal_backoff_time": "1s"})
    system.route("later.test", f"smtp:[127.0.0.1]:{port}")
    system.allow("the Postfix of this queue is running|reserved for the superuser")
    assert system.run("postfix", "-c", str(system.config_directory), "check").returncode == 0
    source = str(postfix.queue_directory)
    refused = system.run("postsuper", "--import", source)
    assert refused.returncode == 1
    assert b"fatal: " in refused.stderr
    assert b"is running" in refused.stderr
    stop(postfix)
    before = queue_files(postfix)
    done = system.run("postsuper", "--import", source)
    assert (done.returncode, done.stderr) == (0, b"postsuper: Imported: 4 messages\n")
    again = system.run("postsuper", "--import", source)
    assert b"Imported: 0 messages\n" in again.stderr
    assert b"Imported before: 4 messages\n" in again.stderr
    commands: list[str] = []

    def script(verb: str, line: str) -> str | None:
        commands.append(line)
        return "220 sink.test ESMTP" if verb == "CONNECT" else None

    with PythonSink(port, script=script) as sink:
        system.start()
        assert system.run("postqueue", "-f").returncode == 0
        messages = {message.sender: message for message in sink.wait_for(3)}
        system.wait_for_log(r": removed$", count=3)
        (held,) = system.queued()
        assert held.parent.name == "hold"
        assert system.run("postsuper", "-H", held.name).returncode == 0
        assert system.run("postqueue", "-f").returncode == 0
        sink.wait_for(4)
        system.wait_for_queue_empty()
    assert sorted(messages["sender@x.test"].recipients) == ["one@later.test", "three@later.test"]
    assert messages["sender@x.test"].content.endswith(BODY)
    assert messages["grün@x.test"].recipients == ["über@later.test"]
    assert messages["user@x.test"].recipients == ["dropped@later.test"]
    assert messages["user@x.test"].content.endswith(b"\r\n\r\n.dot\r\n")
    assert len(sink.messages) == 4
    assert sink.messages[3].recipients == ["held@later.test"]
    assert held.name in {path.name for path, *_ in before}  # long ids stay
    (mail,) = [line for line in commands if "<sender@x.test>" in line]
    assert {"RET=HDRS", "ENVID=an+2Bid", "BODY=8BITMIME"} <= set(mail.split())
    rcpt = [line for line in commands if "<one@later.test>" in line]
    options = {"NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;o+2Brig@later.test"}
    assert options <= set(rcpt[0].split())
    unprivileged = system.run("postsuper", "--import", source, user=system.user)
    assert b"fatal: use of this command is reserved for the superuser" in unprivileged.stderr
    assert queue_files(postfix) == before


@pytest.mark.root
def test_nobody_starts_on_mail_of_the_original(
    make_system: MakeSystem, make_postfix: MakePostfix
) -> None:
    postfix = make_postfix(main={"smtpd_reject_unlisted_recipient": "no"})
    postfix.route("later.test", "retry:not now")
    postfix.start()
    postfix.send("a@x.test", ["one@later.test"], b"Subject: one\r\n\r\n")
    postfix.wait_for_log("to=<one@later.test>.* status=deferred")
    assert postfix.run("postfix", "-c", str(postfix.config_directory), "stop").returncode == 0
    postfix.session = 0
    before = [(path, path.stat().st_mode) for path in sorted(postfix.queue_directory.rglob("*"))]
    system = make_system(privileged=True, main={"queue_directory": str(postfix.queue_directory)})
    system.allow("is mail of an original Postfix")
    started = system.run("postfix", "start")
    assert started.returncode == 1
    (line,) = [one for one in started.stderr.decode().splitlines() if "fatal" in one]
    assert "postsuper --import" in line
    assert "deferred/" in line
    after = [(path, path.stat().st_mode) for path in sorted(postfix.queue_directory.rglob("*"))]
    assert after == before
    master = system.run(f"{system.daemon_directory}/master", "-d")
    assert master.returncode == 1
    assert b"postsuper --import" in master.stderr
