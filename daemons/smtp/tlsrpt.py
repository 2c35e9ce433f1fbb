"""Tells a collector how TLS handshakes with servers end, for domains that want to know (RFC 8460).

Once for a connection on which TLS was wanted: as soon as it is known whether the policy is met, or
before there is a connection, if the policy forbids one. Not for messages whose sender does not
insist on TLS. No delivery waits for it: the record of the domain is looked up meanwhile, and a
datagram that the collector does not take is lost, with a warning.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, TypeAlias

from daemons.smtp.events import TlsReported
from daemons.smtp.session import Session
from daemons.smtp.tls_policy import ServerTlsPolicy
from libmail.config import Config
from libmail.dns.answers import DnsError, NotFound
from libmail.dns.hostname import ascii_domain, valid_hostname
from libmail.log import LOG
from libmail.lookup.context import Lookups
from libmail.lookup.servers import Server
from libmail.tls.levels import Level
from libmail.tls.policy_entry import PolicyError
from libmail.tls.tlsrpt import (
    PolicyKind,
    ReportedFailure,
    ReportedPolicy,
    ReportedServer,
    datagram,
    tlsrpt_record,
)

__all__ = ["Reporter", "open_reporter"]

_LONGEST_PATH: Final = 107  # octets, unix(7)
_MOST_WAITING: Final = 1000  # reports whose record is being looked up
_GRACE: Final = 5.0  # seconds that those get at the end of the process

Spawn: TypeAlias = Callable[[Coroutine[object, object, object]], asyncio.Task[object]]


@dataclass(frozen=True, slots=True)
class TlsrptParams:
    """lmtp loads it with the prefix ("smtp_", "lmtp_")."""

    smtp_tlsrpt_enable: bool
    smtp_tlsrpt_skip_reused_handshakes: bool
    smtp_tlsrpt_socket_name: str


class Reporter:
    """Sends reports to a collector."""

    def __init__(self, path: str, lookups: Lookups, *, skip_resumed: bool) -> None:
        """path: of the collector's socket. skip_resumed: TLS sessions of before are not told."""
        self._path = path
        self._lookups = lookups
        self._skip_resumed = skip_resumed
        self._spawn: Spawn | None = None
        self._waiting: set[asyncio.Task[object]] = set()
        self._socket: socket.socket | None = None

    def begin(self, spawn: Spawn) -> None:
        """Send from now on. spawn: runs a task of the process."""
        self._spawn = spawn

    async def drain(self) -> None:
        """Wait for what is on its way, and close the socket."""
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=_GRACE)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def handshake(
        self,
        session: Session,
        tls: ServerTlsPolicy,
        failure: ReportedFailure | None,
        *,
        resumed: bool = False,
    ) -> None:
        """The handshake was successful, or failed, or the server refused to begin with it."""
        if tls.optional or tls.policy.level is Level.NONE or (resumed and self._skip_resumed):
            return
        ends = ReportedServer(
            session.host, session.address, session.hello_name, session.wire.own_address
        )
        failure = tls.policy.objection(session.host) or failure
        self._begin(tls.where.nexthop, tls.policy.reported, ends, failure)

    def no_session(self, domain: str, server: Server | None, error: PolicyError) -> None:
        """The policy forbids a session with a server, or cannot be found out."""
        if server is not None and error.reported is not None:
            policy, failure = error.reported
            self._begin(domain, policy, ReportedServer(server.host, server.address), failure)

    def _begin(
        self,
        domain: str,
        policy: ReportedPolicy,
        ends: ReportedServer,
        failure: ReportedFailure | None,
    ) -> None:
        name = ascii_domain(domain).lower()
        if self._spawn is None or not valid_hostname(name):
            return
        if len(self._waiting) >= _MOST_WAITING:
            LOG.seldom("TLSRPT: too many lookups under way", f", no report for {name}")
            return
        if policy.kind is PolicyKind.TLSA and not policy.domain:
            policy = policy._replace(domain=ends.host)
        task = self._spawn(self._report(name, policy, ends, failure))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _report(
        self,
        domain: str,
        policy: ReportedPolicy,
        ends: ReportedServer,
        failure: ReportedFailure | None,
    ) -> None:
        try:
            answer = await self._lookups.dns(f"_smtp._tls.{domain}", "TXT")
        except NotFound:
            return
        except DnsError as error:
            LOG.seldom("TLSRPT: lookup failed", f": {error.text}")
            return
        record = tlsrpt_record(found.value for found in answer.records)
        if record:
            LOG.event(TlsReported.of(domain, ends, failure))
            self._send(datagram(domain, record, policy, ends, failure))

    def _send(self, data: bytes) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(data, self._path)
        except OSError as error:
            LOG.seldom("TLSRPT: cannot report to the collector", f" {self._path}: {error.strerror}")


def open_reporter(config: Config, prefix: str, lookups: Lookups) -> Reporter | None:
    """Read the parameters; None if nothing is to be reported. prefix: "smtp" or "lmtp".

    A path below queue_directory becomes relative, so that it is right in a jail, too.
    """
    params = config.load(TlsrptParams, ("smtp_", "lmtp_") if prefix == "lmtp" else None)
    if not params.smtp_tlsrpt_enable:
        return None
    path, queue = params.smtp_tlsrpt_socket_name, config.text("queue_directory")
    if path.startswith(f"{queue}/"):
        path = os.path.relpath(path, queue)
    if path and len(os.fsencode(path)) <= _LONGEST_PATH:
        skip = params.smtp_tlsrpt_skip_reused_handshakes
        return Reporter(path, lookups, skip_resumed=skip)
    problem = "too long" if path else "empty"
    LOG.warning(f"{prefix}_tlsrpt_socket_name is {problem}: {prefix}_tlsrpt_enable has no effect")
    return None
