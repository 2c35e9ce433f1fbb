"""The loads: what comes in, what it is delivered to, and how much of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.answering import policy_server
from bench.measure import Traffic
from tests.system.harness import MailSystem, free_port, need_tool
from tests.system.processes import is_listening
from tests.system.sink import PythonSink

SENDER: Final = "sender@bench.test"
SLOW_DESTINATIONS: Final = 200
SLOW_REPLY: Final = 1.0  # seconds before the reply to DATA
BULK_RECIPIENTS: Final = 5000
ALIAS: Final = "members"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the sinks listen: one that takes mail at once, and one that takes its time.

    policy: where a policy server does, if any.
    """

    fast: int
    slow: int
    policy: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """One row. messages: how many come in a round; each makes `fanout` deliveries.

    main: what else is in main.cf; {policy} is the port of the policy server.
    """

    name: str
    title: str
    messages: int
    traffic: Traffic
    fanout: int = 1
    main: Mapping[str, str] = field(default_factory=dict)

    def settings(self, ports: Ports) -> dict[str, str | None]:
        """main.cf of a system that is to have the load."""
        more = {name: value.format(policy=ports.policy) for name, value in self.main.items()}
        return {**settings(), **more}


GUARDED: Final = {
    "policy": {"smtpd_recipient_restrictions": "check_policy_service inet:127.0.0.1:{policy}"},
    "limits": {
        "smtpd_client_event_limit_exceptions": "",
        **{
            f"smtpd_client_{what}_limit": "1000000"
            for what in ("connection_count", "connection_rate", "message_rate", "recipient_rate")
        },
    },
    "verified": {
        "smtpd_recipient_restrictions": "reject_unverified_recipient",
        "address_verify_map": "lmdb:$data_directory/verified",
    },
}
"""Rows that ask somebody about each client or recipient."""


def smtp_source(
    messages: int, size: int, recipient: str, *options: str, sessions: int = 20
) -> Traffic:
    """Traffic by smtp-source(1): `messages` of `size` bytes over parallel sessions."""

    def traffic(system: MailSystem) -> None:
        command = [need_tool("smtp-source"), "-s", str(min(sessions, messages))]
        command += ["-m", str(messages), "-l", str(size), "-f", SENDER, "-t", recipient]
        subprocess.run([*command, *options, f"127.0.0.1:{system.smtp_port}"], check=True)

    return traffic


def to_mailbox(messages: int) -> Traffic:
    """Mail for the mailbox file of a system user, whose name depends on who runs this."""

    def traffic(system: MailSystem) -> None:
        smtp_source(messages, 4096, f"{system.user.pw_name}@{system.name}")(system)

    return traffic


def sendmail(messages: int) -> Traffic:
    """Four callers of the sendmail command at a time."""
    content = b"Subject: bench\n\n" + b"X" * 79 * 50 + b"\n"

    def traffic(system: MailSystem) -> None:
        def one(_: int) -> None:
            system.sendmail("-f", SENDER, "x@discard.test", stdin=content)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(messages)))

    return traffic


def to_slow_destinations(messages: int) -> Traffic:
    """Each message goes to one recipient at each of the destinations."""
    recipients = [f"user@d{n}.slow.test" for n in range(1, SLOW_DESTINATIONS + 1)]

    def traffic(system: MailSystem) -> None:
        with system.smtp() as client:
            for _ in range(messages):
                client.sendmail(SENDER, recipients, b"Subject: slow\r\n\r\n" + b"x" * 1000)

    return traffic


def loads(scale: float) -> list[Load]:
    """All rows but that of idle sessions; scale 1 for a full run, less for a quick one."""

    def n(count: int) -> int:
        return max(20, int(count * scale))

    def source(name: str, title: str, count: int, size: int, to: str, *options: str) -> Load:
        return Load(name, title, n(count), smtp_source(n(count), size, to, *options))

    relayed, discarded = "x@relay.test", "x@discard.test"
    bulk = smtp_source(5, 4096, discarded, "-r", str(BULK_RECIPIENTS))
    # What comes in and what the alias makes of it are two messages.
    to_alias = smtp_source(5, 4096, f"{ALIAS}@bench.test")
    return [
        source("relay", "relay 4 KB, a connection each", 6000, 4096, relayed),
        source("relay-d", "relay 4 KB, connections reused", 6000, 4096, relayed, "-d"),
        *_guarded(n(3000), "relay-d", smtp_source(n(3000), 4096, relayed, "-d")),
        source("relay-100k", "relay 100 KB", 500, 100 << 10, relayed),
        source("relay-1m", "relay 1 MB", 200, 1 << 20, relayed),
        source("discard", "discard 4 KB", 4000, 4096, discarded),
        source("maildir", "virtual Maildir 4 KB", 2000, 4096, "alice@virtual.test"),
        Load("mbox", "local mbox 4 KB", n(1000), to_mailbox(n(1000))),
        Load("sendmail", "submission by sendmail", n(200), sendmail(n(200))),
        Load("bulk", "5 x 5,000 recipients, discard", 5, bulk, BULK_RECIPIENTS),
        Load("alias", "5 to an alias of 5,000, discard", 10, to_alias, BULK_RECIPIENTS // 2),
        Load(
            "slow",
            "2,000 to 200 slow destinations",
            10,
            to_slow_destinations(10),
            SLOW_DESTINATIONS,
        ),
    ]


def census_loads(count: int) -> list[Load]:
    """Rows for the census, with `count` messages; of the longest one, for each 100 of them."""
    relayed, many = "x@relay.test", 1 + count // 100
    recipients = BULK_RECIPIENTS // 5
    bulk = smtp_source(many, 4096, "x@discard.test", "-r", str(recipients))
    return [
        Load("relay", "", count, smtp_source(count, 4096, relayed)),
        Load("relay-d", "", count, smtp_source(count, 4096, relayed, "-d")),
        Load("maildir", "", count, smtp_source(count, 4096, "alice@virtual.test")),
        Load("mbox", "", count, to_mailbox(count)),
        Load("sendmail", "", count, sendmail(count)),
        Load("bulk", "", many, bulk, recipients),
        *_guarded(count, "", smtp_source(count, 4096, relayed, "-d")),
    ]


def _guarded(count: int, title: str, traffic: Traffic) -> list[Load]:
    titles = {
        "policy": "a policy service asked",
        "limits": "rates of clients counted",
        "verified": "recipients verified",
    }
    return [
        Load(name, f"{title}, {titles[name]}", count, traffic, main=main)
        for name, main in GUARDED.items()
    ]


def settings() -> dict[str, str | None]:
    """main.cf of both sides: routes to the sinks, and no limits that the loads would run into."""
    return {
        "transport_maps": "texthash:$config_directory/transport",
        "alias_maps": "texthash:$config_directory/aliases",
        "smtpd_recipient_limit": str(BULK_RECIPIENTS + 1),
        "message_size_limit": str(30 << 20),
        "mailbox_size_limit": "0",
        "virtual_mailbox_limit": "0",
    }


def aliases(folder: Path) -> None:
    """Write the alias table, and the list of members that it includes."""
    members = folder / "members"
    members.write_text("".join(f"user{n}@discard.test\n" for n in range(BULK_RECIPIENTS)))
    (folder / "aliases").write_text(f"{ALIAS} :include:{members}\n")


def routes(ports: Ports) -> str:
    """The transport table, transport(5)."""
    slow = (
        f"d{n}.slow.test smtp:[127.0.1.{n}]:{ports.slow}\n" for n in range(1, SLOW_DESTINATIONS + 1)
    )
    fast = f"relay.test smtp:[127.0.0.1]:{ports.fast}\ndiscard.test discard:bench\n"
    return fast + "".join(slow)


@contextlib.contextmanager
def sinks() -> Iterator[Ports]:
    """Runs smtp-sink(1) and, on all of 127.0.0.0/8, the slow sink."""
    ports = Ports(free_port(), free_port(), free_port())
    command = [need_tool("smtp-sink"), f"127.0.0.1:{ports.fast}", "1024"]
    if os.geteuid() == 0:
        command[1:1] = ["-u", "nobody"]
    slow = PythonSink(ports.slow, host="0.0.0.0", data_delay=SLOW_REPLY, keep=False)
    sink = subprocess.Popen(command)
    try:
        with slow, policy_server(ports.policy):
            while not is_listening(ports.fast):
                if sink.poll() is not None:
                    raise RuntimeError(f"smtp-sink ended with status {sink.returncode}")
                time.sleep(0.01)
            yield ports
    finally:
        sink.terminate()
        sink.wait()
