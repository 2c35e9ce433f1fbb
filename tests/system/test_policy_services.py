"""Policy servers of others: postgrey, killed and started again, and policyd-spf under spawn(8)."""

from __future__ import annotations

import signal
import smtplib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, need_tool
from tests.system.processes import wait_until
from tests.system.servers import Server

CONTENT = b"Subject: asked about\r\n\r\nbody\r\n"


class Postgrey(Server):
    """postgrey, which lets a message pass a second after the first attempt."""

    def certify(self, name: str) -> Path:
        """It needs none."""
        return self.top / name

    def prepare(self) -> None:
        """Nobody is excepted."""
        (self.top / "nobody").touch()

    def command(self) -> Sequence[str]:
        mine = (f"--user={self.user.pw_name}", f"--group={self.user.pw_gid}")
        excepted = [f"--whitelist-{who}={self.top}/nobody" for who in ("clients", "recipients")]
        place = (f"--inet=127.0.0.1:{self.port}", f"--dbdir={self.top}")
        return [need_tool("postgrey"), *place, *mine, "--delay=1", *excepted]


@pytest.fixture
def postgrey() -> Iterator[Postgrey]:
    server = Postgrey()
    yield server
    server.close()


def attempt(system: MailSystem, sender: str) -> str:
    """The answer to a message, "" if it was taken."""
    try:
        system.send(sender, [f"{system.user.pw_name}@{system.name}"], CONTENT)
    except smtplib.SMTPRecipientsRefused as error:
        ((code, text),) = error.recipients.values()
        return f"{code} {text.decode()}"
    return ""


@pytest.mark.parametrize("delay_reject", ["yes", "no"])
def test_postgrey_killed_and_started_again(
    make_system: MakeSystem, postgrey: Postgrey, delay_reject: str
) -> None:
    server = f"inet:127.0.0.1:{postgrey.port}"
    system = make_system(
        main={
            "smtpd_delay_reject": delay_reject,
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_recipient_restrictions": f"check_policy_service {{ {server}, retry_delay=1s,"
            " { default_action = DEFER_IF_PERMIT 4.3.5 no policy } }",
        }
    )
    system.start()
    assert attempt(system, "a@remote.test").startswith("450 4.2.0 ")
    wait_until(lambda: not attempt(system, "a@remote.test"), system.log_text)
    system.wait_for_queue_empty()
    assert b"X-Greylist: delayed " in system.mailbox.read_bytes()

    system.allow("problem talking to server")
    postgrey.stop(signal.SIGKILL)
    assert "4.3.5" in attempt(system, "a@remote.test")
    system.wait_for_log(f"warning: problem talking to server {server}: Connection refused")
    postgrey.start()
    # What it has decided before holds, and it is asked again without a restart of ours.
    wait_until(lambda: not attempt(system, "a@remote.test"), system.log_text)


def test_policyd_spf_under_spawn(make_system: MakeSystem) -> None:
    program = need_tool("policyd-spf")
    system = make_system(
        main={
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_recipient_restrictions": "check_policy_service unix:private/spf",
        }
    )
    system.configure({}, [f"spf unix - n n - 0 spawn user={system.user.pw_name} argv={program}"])
    system.start()
    for number in range(3):
        assert attempt(system, f"a{number}@remote.test") == ""
    system.wait_for_queue_empty()
    # Clients of this machine are excepted, which its header says.
    assert system.mailbox.read_bytes().count(b"\nX-Comment: SPF") == 3
