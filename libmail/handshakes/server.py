"""TLS handshakes with clients.

`open_handshakes` loads keys and certificates before the jail, where the TLS library can be loaded
(see `libmail.tls.errors:possibly`). From `begin` on, tlsmgr(8) provides the keys of session tickets
and the session cache; without it every handshake is a full one, and works.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final

from libmail.clients.tlsmgr import Spawn, TlsmgrClient, TlsmgrClientParams
from libmail.config import Config
from libmail.files.approved import ApprovedFiles
from libmail.handshakes.events import TlsEstablished, TlsPeer
from libmail.log import LOG
from libmail.lookup.facts import Tls
from libmail.net.channel import ClientChannel
from libmail.tables.maps import Maps
from libmail.tables.table import TableOptions, TableRetry
from libmail.tls.certificate import fingerprint
from libmail.tls.chains_by_name import ChainsByName
from libmail.tls.channel import first_record, secured
from libmail.tls.config_file import use_config_file
from libmail.tls.connection import Connection, accept
from libmail.tls.context import ServerContext
from libmail.tls.errors import TlsConfigError, TlsFailed
from libmail.tls.facts import Trust
from libmail.tls.layer import TlsLayer
from libmail.tls.levels import Level
from libmail.tls.loglevel import LogLevel, LogLevels, open_loglevels
from libmail.tls.params import ServerTlsParams, TlsParams
from libmail.tls.renewal import Certificates
from libmail.tls.server_setup import server_settings
from libmail.tls.tickets import TicketKeys
from libmail.tls.traces import Tracer

__all__ = ["HandshakeParams", "Handshakes", "open_handshakes"]

_CACHE: Final = "smtpd"  # the session cache of tlsmgr(8) that all servers share
_OF_THE_SERVICE: Final = frozenset(
    {  # when it uses TLS, and how it identifies itself
        "smtpd_enforce_tls",
        "smtpd_tls_always_issue_session_ids",
        "smtpd_tls_cert_file",
        "smtpd_tls_chain_files",
        "smtpd_tls_dcert_file",
        "smtpd_tls_dkey_file",
        "smtpd_tls_eccert_file",
        "smtpd_tls_eckey_file",
        "smtpd_tls_key_file",
        "smtpd_tls_security_level",
        "smtpd_tls_session_cache_database",
        "smtpd_tls_session_cache_timeout",
        "smtpd_tls_wrappermode",
        "smtpd_use_tls",
    }
)


@dataclass(frozen=True, slots=True)
class HandshakeParams:
    """Parameters of what is told of handshakes."""

    smtpd_tls_fingerprint_digest: str
    smtpd_tls_loglevel: str
    smtpd_tls_trace_size_limit: int


class Handshakes:
    """The TLS engine of a service. Made by `open_handshakes`.

    terms: the same for services that ask the same of a session, and tell the same of a client.
    """

    def __init__(
        self,
        context: ServerContext,
        told: HandshakeParams,
        tlsmgr: TlsmgrClientParams,
        names: ChainsByName,
        loglevels: LogLevels,
        *,
        terms: str,
        program: str,
        traces: int,
    ) -> None:
        """names: other chains than those of the context. program: for names of traces, of which
        there may be so many in a second. Raises TlsConfigError.
        """
        self.terms = terms
        self._context = context
        self._loglevels = loglevels
        self._digest = told.smtpd_tls_fingerprint_digest
        self._names = names
        self._tlsmgr_params = tlsmgr
        self._tlsmgr: TlsmgrClient | None = None
        self._tracer = Tracer(program, told.smtpd_tls_trace_size_limit, traces, self._trace)
        fingerprint(b"", self._digest)  # is there such a digest?

    def begin(self, spawn: Spawn) -> None:
        """Ask tlsmgr(8) from now on. spawn: runs a task of the process."""
        tickets = self._context.settings.tickets
        self._tlsmgr = TlsmgrClient(self._tlsmgr_params, _CACHE, spawn, tickets=tickets)
        if tickets is not None:
            self._tlsmgr.keep_keys()

    async def perform(
        self,
        channel: ClientChannel,
        peer: str,
        timeout: float,
        received: bytes = b"",
        *,
        name: str = "",
        address: str = "",
    ) -> tuple[TlsLayer, Tls]:
        """Perform a handshake and log the result.

        Returns the layer that the channel is in from then on, and the facts for restrictions.
        peer: the client, for the log. timeout: seconds for the whole handshake. received: data of
        the handshake that was read already. name, address: of the client, for its log level.
        Raises TlsFailed, ServerStopping, which the caller logs.
        """
        loglevel = await self._loglevels.of(name, address)
        try:
            async with asyncio.timeout(timeout):
                if not loglevel.states:  # which tell of a handshake from its beginning
                    received = await first_record(channel, received)
                layer, connection = await self._shake(channel, peer, received, address, loglevel)
        except TimeoutError:
            raise TlsFailed("Connection timed out", lost=True) from None
        facts = self._facts(connection)
        self._tell(connection, peer, loglevel, facts)
        saved = connection.saved_session()
        if saved is not None and self._tlsmgr is not None:
            self._tlsmgr.keep(self._key(saved.session_id), saved.data)
        return layer, facts

    async def _shake(
        self, channel: ClientChannel, peer: str, received: bytes, address: str, loglevel: LogLevel
    ) -> tuple[TlsLayer, Connection]:
        connection = accept(self._context)
        if loglevel.states:
            connection.watch(LOG.info, peer)
        if loglevel.octets:
            connection.dump(LOG.info, peer, after=loglevel.all_octets)
        self._tracer.begin(connection, loglevel)
        try:
            answer = partial(self._answer, peer)
            return await secured(channel, connection, answer, received), connection
        finally:
            self._tracer.end(connection, address)

    def _trace(self, program: str, address: str, text: str) -> None:
        if self._tlsmgr is not None:
            self._tlsmgr.trace(program, address, text)

    async def _answer(self, peer: str, connection: Connection) -> None:
        """Look up the chains and the session that a client asks for. Raises TlsFailed if a lookup
        fails, as the client must not get other chains than those for the name."""
        hello = connection.hello
        if hello is None:
            raise AssertionError(connection)
        try:
            chains = await self._names.chains(hello.name) if hello.name else None
            if hello.name and chains is None:
                LOG.info(f"TLS SNI {hello.name} from {peer} not matched, using default chain")
            session = b""
            if hello.session_id and self._tlsmgr is not None:
                session = await self._tlsmgr.session(self._key(hello.session_id))
            connection.answer(chains, session)
        except TableRetry as error:
            LOG.warning(f"{error}")
            raise TlsFailed("-1") from None
        except TlsConfigError as error:
            LOG.warning(error.reason)
            raise TlsFailed("-1", error.problems) from None

    def _key(self, session_id: bytes) -> str:
        service = self._context.settings.session_context.hex()
        return f"{session_id.hex().upper()}&s={service}"

    def _tell(self, connection: Connection, peer: str, loglevel: LogLevel, facts: Tls) -> None:
        if loglevel.states and (line := connection.peer_line(peer, self._digest)):
            LOG.event(TlsPeer(peer, line))
        if loglevel.summary:
            agreed, trust = facts.agreed, facts.trust
            summary = agreed.established(trust, "from", peer, connection.name_for_log)
            LOG.event(
                TlsEstablished(
                    peer, trust.value, agreed.protocol, agreed.cipher, agreed.resumed, summary
                )
            )

    def _facts(self, connection: Connection) -> Tls:
        agreed, peer = connection.agreed, connection.peer
        if peer is None:
            return Tls(agreed, Trust.ANONYMOUS, sni=connection.name)
        return Tls(
            agreed,
            connection.trust,
            peer.common_name,
            peer.issuer,
            peer.certificate_fingerprint(self._digest),
            peer.key_fingerprint(self._digest),
            connection.name,
        )


def open_handshakes(
    params: ServerTlsParams,
    told: HandshakeParams,
    config: Config,
    level: Level,
    options: TableOptions,
    name: str,
    approved: ApprovedFiles | None = None,
    *,
    loglevel_maps: str,
) -> Handshakes:
    """Read keys, certificates and tables, before the jail.

    name: the program and its service, who resume sessions that were begun here, as others may want
    to know a client better.
    approved: contents of files for when those of now are bad. loglevel_maps: the parameter.
    Raises TlsConfigError, ConfigError, Fatal.
    """
    common = config.load(TlsParams)
    use_config_file(common.tls_config_file, common.tls_config_name)
    certificates = Certificates(approved)
    context = ServerContext(
        server_settings(
            params,
            common,
            level,
            session_context=name.encode("utf-8", "surrogateescape")[:32],
            tickets=TicketKeys(time.time),
            certificates=certificates,
        )
    )
    for warning in context.warnings:
        LOG.warning(warning)
    by_name = replace(options, files=certificates.value)
    maps = Maps("tls_server_sni_maps", common.tls_server_sni_maps, by_name)
    tlsmgr = config.load(TlsmgrClientParams)
    loglevels = open_loglevels(config, loglevel_maps, told.smtpd_tls_loglevel, options)
    return Handshakes(
        context,
        told,
        tlsmgr,
        ChainsByName(maps.find),
        loglevels,
        terms=_terms(params, common, told.smtpd_tls_fingerprint_digest, enforced=level.enforced),
        program=name.partition(" ")[0],
        traces=common.tls_trace_rate_limit,
    )


def _terms(params: ServerTlsParams, common: TlsParams, digest: str, *, enforced: bool) -> str:
    """See `Handshakes`."""
    own = {name: value for name, value in asdict(params).items() if name not in _OF_THE_SERVICE}
    settings = (own, common, digest, enforced)
    return hashlib.sha256(repr(settings).encode("utf-8", "surrogateescape")).hexdigest()
