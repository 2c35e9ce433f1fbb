"""TLS handshakes with servers.

`open_handshakes` loads keys, certificates and authorities before the jail, where the TLS library
can be loaded (see `daemons.smtp.tls_setup`). tlsmgr(8) caches TLS sessions, where configured;
without it every handshake is a full one, and works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daemons.smtp.events import TlsError, TlsEstablished, TlsPeer
from daemons.smtp.failure import HandshakeFailed
from daemons.smtp.session import Session
from daemons.smtp.tls_policy import ServerTlsPolicy
from libmail.clients.tlsmgr import Spawn, TlsmgrClient, TlsmgrClientParams
from libmail.config import Config
from libmail.files.approved import ApprovedFiles
from libmail.log import LOG
from libmail.net.wire import Lost
from libmail.tables.table import TableOptions
from libmail.tls.anchors import Anchors
from libmail.tls.certificate import fingerprint
from libmail.tls.client_params import ClientTlsParams
from libmail.tls.client_setup import client_settings
from libmail.tls.client_spec import ClientSpec
from libmail.tls.config_file import use_config_file
from libmail.tls.connection import Connection, connect
from libmail.tls.context import ClientContext
from libmail.tls.errors import TlsConfigError, TlsFailed, warn_of_problems
from libmail.tls.facts import Trust
from libmail.tls.layer import TlsLayer
from libmail.tls.levels import Level
from libmail.tls.loglevel import LogLevel, LogLevels, open_loglevels
from libmail.tls.params import TlsParams
from libmail.tls.policy import Policy, session_key
from libmail.tls.policy_entry import PolicyError
from libmail.tls.renewal import Certificates
from libmail.tls.tlsrpt import FailureType, ReportedFailure, distrust
from libmail.tls.traces import Tracer

__all__ = ["Handshake", "Handshakes", "open_handshakes"]

_TIMED_OUT: Final = "Connection timed out"


@dataclass(frozen=True, slots=True)
class HandshakeParams:
    """Parameters of handshakes and their log lines."""

    smtp_helo_name: str
    smtp_tls_loglevel: str
    smtp_tls_trace_size_limit: int


class Handshakes:
    """The TLS engine of a service. Made by `open_handshakes`."""

    def __init__(
        self,
        context: ClientContext,
        anchors: Anchors,
        params: HandshakeParams,
        tlsmgr: TlsmgrClientParams,
        loglevels: LogLevels,
        *,
        prefix: str,
        traces: int,
    ) -> None:
        """prefix: "smtp" or "lmtp". traces: of handshakes, at most, in a second.

        Raises TlsConfigError.
        """
        self._context = context
        self._anchors = anchors
        self._helo = params.smtp_helo_name
        self._loglevels = loglevels
        self._tlsmgr_params = tlsmgr
        self._prefix = prefix
        self._cache: TlsmgrClient | None = None  # if sessions are cached
        self._tracer = Tracer(prefix, params.smtp_tls_trace_size_limit, traces, self._trace)
        self._tlsmgr: TlsmgrClient | None = None

    def begin(self, spawn: Spawn) -> None:
        """Use tlsmgr(8) from now on. spawn: runs a task of the process."""
        self._tlsmgr = TlsmgrClient(self._tlsmgr_params, self._prefix, spawn)
        if self._context.settings.cached:
            self._cache = self._tlsmgr

    def _trace(self, program: str, address: str, text: str) -> None:
        if self._tlsmgr is not None:
            self._tlsmgr.trace(program, address, text)

    async def attempt(self, session: Session, tls: ServerTlsPolicy) -> Handshake:
        """Prepare a handshake. Raises PolicyError if the policy cannot be met."""
        try:
            anchors = self._anchors.of(tls.policy.anchor_files)
            spec = tls.policy.spec(tls.where, anchors)
            key, saved = "", b""
            if self._cache is not None:
                key = self._key(session, spec)
                saved = await self._cache.session(key)
            connection = connect(self._context, spec, saved)
        except TlsConfigError as error:
            warn_of_problems(error.problems)
            raise PolicyError(error.reason) from None
        _warn_of_records(session.relay, tls.policy.level, connection)
        cached = CachedTlsSession(key, self._cache)
        loglevel = await self._loglevels.of(session.host, session.address)
        return Handshake(session, tls.policy, connection, loglevel, cached, self._tracer)

    def _key(self, session: Session, spec: ClientSpec) -> str:
        parts = (session.host, session.address, str(session.port), self._helo)
        return session_key(self._prefix, parts, spec)


class CachedTlsSession:
    """The entry of one server in the TLS session cache, if there is a cache."""

    def __init__(self, key: str, tlsmgr: TlsmgrClient | None) -> None:
        self._key = key
        self._tlsmgr = tlsmgr

    def forget(self) -> None:
        """Remove the session after a failed handshake, which it may have caused."""
        if self._tlsmgr is not None:
            self._tlsmgr.remove(self._key)

    def keep(self, session: bytes) -> None:
        """Store a session for the next handshake."""
        if self._tlsmgr is not None:
            self._tlsmgr.keep(self._key, session)


class Handshake:
    """A handshake with one server."""

    def __init__(
        self,
        session: Session,
        policy: Policy,
        connection: Connection,
        loglevel: LogLevel,
        cached: CachedTlsSession,
        tracer: Tracer,
    ) -> None:
        self._session = session
        self._policy = policy
        self._connection = connection
        self._loglevel = loglevel
        self._cached = cached
        self._tracer = tracer
        self._trust = Trust.ANONYMOUS

    async def perform(self, *, hold: bool) -> PolicyError | None:
        """Perform the handshake and log the result. Returns the error if the policy is not met.

        hold: see SecureWire.secure. Raises HandshakeFailed.
        """
        session = self._session
        if self._loglevel.states:
            self._connection.watch(LOG.info, session.relay)
        if self._loglevel.octets:
            after = self._loglevel.all_octets
            self._connection.dump(LOG.info, session.relay, after=after)
        self._tracer.begin(self._connection, self._loglevel)
        try:
            await session.wire.secure(TlsLayer(self._connection), hold=hold)
        except (TlsFailed, Lost) as error:
            self._cached.forget()
            failed = TlsFailed(_TIMED_OUT) if isinstance(error, Lost) else error
            LOG.event(TlsError(session.relay, failed.reason))
            warn_of_problems(failed.problems)
            raise HandshakeFailed(failed.words) from None
        finally:
            self._tracer.end(self._connection, session.address)
        session.secured = True
        self._trust = self._connection.trust
        session.verified = self._trust is Trust.VERIFIED
        self._tell()
        if _goes_unchecked(self._policy.level, self._connection):
            return None
        return self._policy.unmet(self._trust)

    def _tell(self) -> None:
        connection, peer, level = self._connection, self._session.relay, self._loglevel
        policy = self._policy
        told = policy.level.matches_peer or level.states
        refused = connection.refused if told else None
        if level.states and (line := connection.peer_line(peer, policy.digest)):
            LOG.event(TlsPeer(peer, line))
        if refused is not None:
            LOG.event(TlsPeer(peer, refused.text("server", peer)))
        if level.summary:
            agreed, trust = connection.agreed, policy.told(self._trust)
            LOG.event(
                TlsEstablished(
                    peer,
                    trust.value,
                    agreed.protocol,
                    agreed.cipher,
                    agreed.resumed,
                    agreed.established(trust, "to", peer),
                )
            )

    @property
    def resumed(self) -> bool:
        """Whether it was that of a session of before."""
        return self._connection.resumed

    def distrust(self, unmet: PolicyError | None) -> ReportedFailure | None:
        """What reports say against it, None for nothing. unmet: what `perform` has returned."""
        if self._policy.unusable or not self._connection.usable_records:
            return ReportedFailure(FailureType.TLSA_INVALID, "all TLSA records unusable")
        if unmet is None and not self._policy.fails_test(self._trust):
            return None
        return distrust(self._connection.refused, resumed=self.resumed)

    def keep_session(self) -> None:
        """Store the session; with TLS 1.3 it arrives together with the first reply."""
        saved = self._connection.saved_session()
        if saved is not None:
            self._cached.keep(saved.data)


def _goes_unchecked(level: Level, connection: Connection) -> bool:
    """Whether it is as if the level were encrypt, for no record can be used (RFC 7672 §2.2)."""
    return level.by_dane and level is not Level.DANE_ONLY and not connection.usable_records


def _warn_of_records(peer: str, level: Level, connection: Connection) -> None:
    if not level.by_dane:
        return
    for record in connection.unusable:
        LOG.warning(f"{peer}: unusable TLSA RR: {record}")
    if not connection.usable_records:
        instead = _goes_unchecked(level, connection)
        fallback = ", fallback to unauthenticated TLS" if instead else ""
        LOG.warning(f"{peer}: all TLSA records unusable{fallback}")


def open_handshakes(
    config: Config, prefix: str, approved: ApprovedFiles | None = None
) -> Handshakes:
    """Read keys, certificates and authorities, before the jail.

    prefix: "smtp" or "lmtp". approved: for certificates that are renewed. Raises
    TlsConfigError, ConfigError.
    """
    prefixes = ("smtp_", "lmtp_") if prefix == "lmtp" else None
    params, common = config.load(ClientTlsParams, prefixes), config.load(TlsParams)
    use_config_file(common.tls_config_file, common.tls_config_name)
    context = ClientContext(client_settings(params, common, Certificates(approved)))
    for warning in context.warnings:
        LOG.warning(warning)
    fingerprint(b"", params.smtp_tls_fingerprint_digest)  # is there such a digest?
    told = config.load(HandshakeParams, prefixes)
    maps = "lmtp_tls_loglevel_maps" if prefix == "lmtp" else "smtp_tls_loglevel_maps"
    return Handshakes(
        context,
        Anchors(params.smtp_tls_trust_anchor_file),
        told,
        config.load(TlsmgrClientParams),
        open_loglevels(config, maps, told.smtp_tls_loglevel, TableOptions.of(config)),
        traces=common.tls_trace_rate_limit,
        prefix=prefix,
    )
