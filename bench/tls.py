"""Rows of TLS: relayed by it, submitted by it, and sessions that are idle within it."""

from __future__ import annotations

import contextlib
import shutil
import smtplib
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.loads import SENDER, Ports, settings, smtp_source
from bench.measure import Result, Traffic, measure, median
from tests.certificates import Authority
from tests.system.harness import Instance, MailSystem
from tests.system.processes import proportional_memory

__all__ = ["IDLE_SESSIONS", "ROWS", "TlsRow", "run_idle", "run_row"]

IDLE_SESSIONS: Final = 2000
_CLIENTS: Final = 20
_CACHE: Final = "lmdb:$data_directory/smtp_scache"
_MAIL: Final = b"Subject: bench\r\n\r\n" + (b"X" * 78 + b"\r\n") * 50

Running = Callable[
    [str, Ports, Mapping[str, str | None]], contextlib.AbstractContextManager[MailSystem]
]


@dataclass(frozen=True, slots=True)
class TlsRow:
    """One row. main: of both sides. submitted: by clients with STARTTLS, instead of relayed."""

    name: str
    title: str
    messages: int
    main: Mapping[str, str]
    submitted: bool = False


ROWS: Final = (
    TlsRow("tls", "relay 4 KB by TLS, a handshake each", 1000, {
        "smtp_connection_cache_on_demand": "no", "smtp_tls_session_cache_database": ""}),
    TlsRow("tls-resumed", "relay 4 KB by TLS, sessions resumed", 1000, {
        "smtp_connection_cache_on_demand": "no", "smtp_tls_session_cache_database": _CACHE}),
    TlsRow("tls-reused", "relay 4 KB by TLS, connections reused", 1000, {
        "smtp_tls_connection_reuse": "yes"}),
    TlsRow("tls-submit", "4 KB submitted with STARTTLS, discard", 1000, {}, submitted=True),
)  # fmt: skip


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _submission(messages: int) -> Traffic:
    """A session each, as programs of users have it."""
    context = _context()

    def traffic(system: MailSystem) -> None:
        def one(_: int) -> None:
            with system.smtp() as client:
                client.starttls(context=context)
                client.sendmail(SENDER, "x@discard.test", _MAIL)

        with ThreadPoolExecutor(_CLIENTS) as pool:
            list(pool.map(one, range(messages)))

    return traffic


@contextlib.contextmanager
def _certificate() -> Iterator[Mapping[str, str]]:
    """Parameters of a server that has one."""
    folder = Path(tempfile.mkdtemp(prefix="bc-"))
    folder.chmod(0o755)
    chain = folder / "chain.pem"
    chain.write_bytes(Authority(folder / "ca").issue("bench.test", kind="rsa").chain.read_bytes())
    chain.chmod(0o644)
    try:
        yield {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(chain)}
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _next_hop(server: Mapping[str, str]) -> Iterator[Ports]:
    """One of ours that takes all mail by TLS and discards it."""
    main = {**settings(), **server, "transport_maps": "", "default_transport": "discard"}
    system = Instance(main={**main, "smtpd_client_connection_count_limit": "0"}, name="next.test")
    system.configure({"relay_domains": "relay.test", "relay_transport": "discard"})
    try:
        system.start()
        yield Ports(system.smtp_port, system.smtp_port)
    finally:
        system.stop(check=False)


def run_row(
    row: TlsRow, names: Sequence[str], running: Running, rounds: int, scale: float
) -> dict[str, Result]:
    """Rounds of one row, the sides taking turns."""
    messages = max(20, int(row.messages * scale))
    incoming = smtp_source(messages, 4096, "x@relay.test")
    traffic = _submission(messages) if row.submitted else incoming
    results: dict[str, list[Result]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_certificate())
        ports = stack.enter_context(_next_hop(server))
        main = {**server, "smtp_tls_security_level": "encrypt", **row.main}
        systems = {name: stack.enter_context(running(name, ports, main)) for name in names}
        for _ in range(rounds):
            for name, system in systems.items():
                results[name].append(measure(system, traffic, messages, messages))
    return {name: median(taken) for name, taken in results.items()}


def run_idle(names: Sequence[str], ports: Ports, running: Running) -> dict[str, Result]:
    """What sessions cost that have begun TLS and say nothing."""
    results = {}
    limits = {
        "default_process_limit": str(IDLE_SESSIONS + 100),
        "smtpd_client_connection_count_limit": "0",
    }
    with _certificate() as server:
        for name in names:
            with running(name, ports, {**server, **limits}) as system:
                before = proportional_memory(system.pids())
                with _held(system, IDLE_SESSIONS):
                    memory = proportional_memory(system.pids())
                each = (memory - before) / IDLE_SESSIONS / 1024
                results[name] = Result(0.0, 0.0, 0.0, memory, f"{each:.0f} KB a session")
    return results


@contextlib.contextmanager
def _held(system: MailSystem, count: int) -> Iterator[None]:
    context = _context()
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            client = smtplib.SMTP("127.0.0.1", system.smtp_port, "idle.test")
            clients.callback(client.close)
            client.starttls(context=context)
            client.ehlo()
        yield
