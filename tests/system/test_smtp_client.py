"""smtp(8) in a running mail system: what the next server gets, and what the log says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import free_port
from tests.system.processes import wait_until
from tests.system.sink import PythonSink

SENDER: Final = "sender@client.test"
MESSAGE: Final = b"Subject: test\r\n\r\nhello\r\n"


def scripted(replies: dict[str, str]) -> Callable[[str, str], str | None]:
    """For PythonSink: these replies by verb, the usual ones else."""
    usual = {"CONNECT": "220 sink.test ESMTP"}
    return lambda verb, line: replies.get(verb, usual.get(verb))


def status_of(line: str) -> str:
    """From the relay on, without delays."""
    return re.sub(r"(delays?|tls)=[^,]*, ", "", line[line.index("relay=") :])


STAGES: Final = [
    ("RCPT", "450 4.2.0 later", "4.2.0", "deferred", "said: 450 4.2.0 later (in reply to RCPT TO"),
    ("MAIL", "550 5.7.1 no", "5.7.1", "bounced", "said: 550 5.7.1 no (in reply to MAIL FROM"),
    ("DATA", "451 4.3.0 full", "4.3.0", "deferred", "said: 451 4.3.0 full (in reply to DATA"),
    (".", "554 5.6.0 bad", "5.6.0", "bounced", "said: 554 5.6.0 bad (in reply to end of DATA"),
]


@pytest.mark.parametrize(
    ("verb", "reply", "dsn", "status", "said"), STAGES, ids=[stage[0] for stage in STAGES]
)
def test_refusals(
    make_system: MakeSystem, verb: str, reply: str, dsn: str, status: str, said: str
) -> None:
    port = free_port()
    with PythonSink(port, script=scripted({verb: reply})):
        mail = make_system()
        mail.route("next.test", f"smtp:[127.0.0.1]:{port}")
        mail.start()
        mail.send("", ["x@next.test"], MESSAGE)
        line = mail.wait_for_log(r"to=<x@next\.test>")
    name = "127.0.0.1[127.0.0.1]"
    assert status_of(line) == (
        f"relay={name}:{port}, dsn={dsn}, status={status} (host {name} {said} command))"
    )


def test_notice_of_a_broken_protocol(make_system: MakeSystem) -> None:
    port, notices = free_port(), free_port()
    script = scripted({"MAIL": "501 5.5.4 what"})
    with PythonSink(port, script=script), PythonSink(notices) as postmaster:
        mail = make_system(
            main={"notify_classes": "protocol", "error_notice_recipient": "errors@here.test"}
        )
        mail.route("next.test", f"smtp:[127.0.0.1]:{port}")
        mail.route("here.test", f"smtp:[127.0.0.1]:{notices}")
        mail.start()
        mail.send(SENDER, ["x@next.test"], MESSAGE)
        wait_until(lambda: postmaster.messages)
    (notice,) = postmaster.messages
    assert notice.sender == "double-bounce@mail.test"
    assert notice.recipients == ["errors@here.test"]
    text = notice.content.decode()
    assert f"Subject: Postfix SMTP client: errors from 127.0.0.1[127.0.0.1]:{port}\r\n" in text
    assert "\r\n In:  501 5.5.4 what\r\n" in text


def test_refused_connection(make_system: MakeSystem) -> None:
    port = free_port()
    mail = make_system()
    mail.route("next.test", f"smtp:[127.0.0.1]:{port}")
    mail.start()
    mail.send(SENDER, ["x@next.test"], MESSAGE)
    line = mail.wait_for_log(r"to=<x@next\.test>")
    reason = f"connect to 127.0.0.1[127.0.0.1]:{port}: Connection refused"
    assert status_of(line) == f"relay=none, dsn=4.4.1, status=deferred ({reason})"
    mail.wait_for_log(rf"\]: {re.escape(reason)}$")


def test_many_slow_destinations(make_system: MakeSystem) -> None:
    """Deliveries wait at the same time, not one after the other."""
    port, count = free_port(), 40
    with PythonSink(port, host="0.0.0.0", holds_data=True, keep=False) as sink:
        mail = make_system()
        for number in range(1, count + 1):
            mail.route(f"d{number}.test", f"smtp:[127.0.1.{number}]:{port}")
        mail.start()
        with mail.smtp() as client:
            for number in range(1, count + 1):
                client.sendmail(SENDER, [f"x@d{number}.test"], MESSAGE)
        wait_until(lambda: sink.open_now >= count, mail.end_of_log)
        sink.release()
        sink.wait_for(count)
        mail.wait_for_queue_empty()
