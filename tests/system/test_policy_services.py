"""Policy servers of others, some killed and started again under load.

postgrey, policyd-spf, Dovecot's quota-status, postfwd, policyd-rate-limit.
"""

from __future__ import annotations

import grp
import os
import signal
import smtplib
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


POSTFWD = """\
rm -f pid
"$@" || exit
until [ -s pid ]; do sleep 0.05; done
exec tail --pid="$(cat pid)" -f /dev/null
"""


class Postfwd(Server):
    """postfwd, which refuses one recipient, and the third message of one sender in an hour.

    As a server it always leaves its parent, for which a shell stands in here.
    """

    def certify(self, name: str) -> Path:
        """It needs none."""
        return self.top / name

    def command(self) -> Sequence[str]:
        mine = ("-u", self.user.pw_name, "-g", grp.getgrgid(self.user.pw_gid).gr_name)
        place = ("-i", "127.0.0.1", "-p", str(self.port), "--pidfile", f"{self.top}/pid")
        rules = (
            "id=A; recipient==refused@virtual.test; action=REJECT not here",
            "id=B; sender==often@remote.test; action=rate(sender/2/3600/450 4.7.1 too often)",
        )
        each = [word for rule in rules for word in ("-r", rule)]
        postfwd = [need_tool("postfwd1"), "-d", "--nodns", *place, *mine, *each]
        return ["sh", "-c", POSTFWD, "sh", *postfwd]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop postfwd, and with it who waits for it."""
        pid = self.top / "pid"
        if self._process is not None and pid.exists():
            os.kill(int(pid.read_text()), how)
            wait_until(lambda: not self.answers())
        super().stop(signal.SIGKILL)


RATE_LIMIT = """\
debug: True
user: {user}
group: {group}
pidfile: {top}/pid
sqlite_config: {{database: {top}/db}}
backend: 0
SOCKET: [127.0.0.1, {port}]
limits: [[100, 3600]]
limits_by_id: {{often@remote.test: [[2, 3600]]}}
limit_by_sasl: False
limit_by_sender: True
"""


class RateLimit(Server):
    """policyd-rate-limit, which lets one sender have two messages in an hour."""

    def certify(self, name: str) -> Path:
        """It needs none."""
        return self.top / name

    def prepare(self) -> None:
        """Its configuration."""
        group = grp.getgrgid(self.user.pw_gid).gr_name
        settings = {"user": self.user.pw_name, "group": group, "top": self.top, "port": self.port}
        (self.top / "conf.yaml").write_text(RATE_LIMIT.format_map(settings))

    def command(self) -> Sequence[str]:
        return [need_tool("policyd-rate-limit"), "--file", f"{self.top}/conf.yaml"]


@pytest.fixture(params=[Postgrey, Postfwd, RateLimit])
def policy_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = request.param()
    assert isinstance(server, Server)
    yield server
    server.close()


@pytest.mark.parametrize("policy_server", [Postfwd, RateLimit], indirect=True)
def test_senders_are_limited(make_system: MakeSystem, policy_server: Server) -> None:
    server = f"inet:127.0.0.1:{policy_server.port}"
    system = make_system(main={"smtpd_recipient_restrictions": f"check_policy_service {server}"})
    system.start()
    assert [attempt(system, "often@remote.test") for _ in range(2)] == ["", ""]
    assert attempt(system, "often@remote.test").startswith("450 4.7.1 ")
    assert attempt(system, "others@remote.test") == ""
    if isinstance(policy_server, Postfwd):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            system.send("others@remote.test", ["refused@virtual.test"], CONTENT)
        ((code, text),) = refused.value.recipients.values()
        assert (code, text.endswith(b"Recipient address rejected: not here")) == (554, True)


def test_killed_under_load(make_system: MakeSystem, policy_server: Server) -> None:
    """Each message is taken in the end, once, whatever becomes of the server meanwhile."""
    server = f"inet:127.0.0.1:{policy_server.port}"
    system = make_system(
        main={
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_recipient_restrictions": f"check_policy_service {server}",
            "smtpd_policy_service_retry_delay": "1s",
            "smtpd_client_connection_count_limit": "0",
        }
    )
    system.start()
    system.allow("problem talking to server|server .* is unavailable|timeout")
    wrong: list[str] = []

    def client(number: int) -> None:
        def accepted() -> bool:
            said = attempt(system, f"a{number}@remote.test")
            if said and not said.startswith(("450 4.2.0", "451 4.3.5")):
                wrong.append(said)
            return not said

        wait_until(accepted)

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(40)]
        for _ in range(3):
            policy_server.stop(signal.SIGKILL)
            wait_until(lambda: attempt(system, "b@remote.test").startswith("451 4.3.5"))
            policy_server.start()
        for one in clients:
            one.result()
    assert not wrong
    system.wait_for_queue_empty()
    for number in range(40):
        taken = rf"from=<a{number}@remote\.test>, size="
        system.wait_for_log(taken)
        assert len(system.log_lines(taken)) == 1


QUOTA = """\
protocols =
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
ssl = no
mail_location = maildir:{top}/mail/%u
mail_plugins = quota
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = username_format=%n {top}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {top}/users
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:bytes=2000
  quota_status_success = DUNNO
  quota_status_nouser = DUNNO
  quota_status_overquota = 552 5.2.2 Mailbox is full
}}
service quota-status {{
  executable = quota-status -p postfix
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


class QuotaStatus(Server):
    """Dovecot's quota-status, for two users of whom one has a full mailbox."""

    def certify(self, name: str) -> Path:
        """It needs none."""
        return self.top / name

    def prepare(self) -> None:
        """full has a message that is larger than all that a user may have."""
        ids = f"{self.user.pw_uid}:{self.user.pw_gid}"
        users = [f"{name}:{{plain}}x:{ids}::{self.top}/{name}::\n" for name in ("full", "empty")]
        (self.top / "users").write_text("".join(users))
        for folder in ("cur", "new", "tmp"):
            for domain in ("full@virtual.test", "full"):
                (self.top / "mail" / domain / folder).mkdir(parents=True)
                (self.top / "mail" / domain / "cur/1.x:2,").write_bytes(
                    b"Subject: x\n\n" + b"x" * 3000
                )
        for path in [*(self.top / "mail").rglob("*"), self.top / "mail"]:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        (self.top / "dovecot.conf").write_text(QUOTA.format(top=self.top, port=self.port))

    def _popen(self, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
        """As root, as in production."""
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )

    def command(self) -> Sequence[str]:
        return [need_tool("dovecot"), "-F", "-c", str(self.top / "dovecot.conf")]


@pytest.fixture
def quota_status() -> Iterator[QuotaStatus]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    server = QuotaStatus()
    yield server
    server.close()


def test_dovecot_quota_status(make_system: MakeSystem, quota_status: QuotaStatus) -> None:
    server = f"inet:127.0.0.1:{quota_status.port}"
    full, empty = "{full@virtual.test=full/}", "{empty@virtual.test=empty/}"
    system = make_system(
        main={
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_recipient_restrictions": f"check_policy_service {server}",
            "smtpd_policy_service_retry_delay": "1s",
            "virtual_mailbox_maps": f"inline:{{ {full}, {empty} }}",
        }
    )
    system.start()

    def answer(recipient: str) -> str:
        with system.smtp() as client:
            client.ehlo()
            client.mail("a@remote.test")
            code, text = client.rcpt(recipient)
            return f"{code} {text.decode()}"

    refusal = "554 5.2.2 <full@virtual.test>: Recipient address rejected: Mailbox is full"
    assert answer("empty@virtual.test") == "250 2.1.5 Ok"
    assert answer("full@virtual.test").startswith(("552 5.2.2", refusal))
    system.allow("problem talking to server")
    quota_status.stop()
    assert answer("empty@virtual.test").startswith("451 4.3.5")
    quota_status.start()
    wait_until(lambda: answer("empty@virtual.test") == "250 2.1.5 Ok", system.log_text)
