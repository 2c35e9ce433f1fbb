"""Finds the servers of a destination, and talks to the first that can be reached."""

from __future__ import annotations

import asyncio
import base64
import socket
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from commands.posttls_finger.settings import Options
from commands.posttls_finger.talk import Answer, LostServer, Talk
from libmail.config import Config, open_config
from libmail.config.interfaces import address_families
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Protocols, Resolver
from libmail.log import LOG, Fatal
from libmail.lookup.context import LiveLookups
from libmail.lookup.next_hop import BadDestination, Destination, parse_destination, service_port
from libmail.lookup.servers import NoServers, Server, ServerChoice
from libmail.lookup.tlsa import DaneParams, settled
from libmail.tables.match import StringList
from libmail.tls.anchors import Anchors
from libmail.tls.certificate import Certificate, fingerprint, one_line
from libmail.tls.client_params import ClientTlsParams
from libmail.tls.client_setup import client_settings
from libmail.tls.config_file import use_config_file
from libmail.tls.connection import Connection, connect
from libmail.tls.context import ClientContext
from libmail.tls.errors import TlsConfigError, TlsFailed
from libmail.tls.levels import Level
from libmail.tls.params import TlsParams
from libmail.tls.policy import Policy, Where, choose
from libmail.tls.policy_entry import PolicyError
from libmail.tls.renewal import Certificates

__all__ = ["probe"]

_LMTP_PORT = 24


@dataclass(frozen=True, slots=True)
class FingerParams:
    """Besides those of TLS."""

    allow_srv_lookup_fallback: bool
    disable_dns_lookups: bool
    dnssec_probe: str
    ignore_mx_lookup_error: bool
    ignore_srv_lookup_error: bool
    inet_protocols: tuple[str, ...]
    known_tcp_ports: tuple[str, ...]
    myhostname: str
    smtp_address_preference: str
    smtp_balance_inet_protocols: bool
    smtp_cname_overrides_servername: bool
    smtp_defer_if_no_mx_address_found: bool
    smtp_dns_support_level: str
    smtp_host_lookup: tuple[str, ...]
    smtp_mx_address_limit: int
    smtp_randomize_addresses: bool
    use_srv_lookup: tuple[str, ...]


def _say(text: str) -> None:
    print(f"posttls-finger: {text}", flush=True)


def probe(options: Options) -> None:
    """All of it. Raises Fatal, ConfigError."""
    LOG.open(lambda severity, head, text: _say(text), "postfix/posttls-finger")
    config = open_config(process_name="posttls-finger").override(options.settings)
    for word in options.told.unknown:
        _say(f'warning: unknown -L option value "{word}"')
    try:
        finger = Finger(config, options)
    except TlsConfigError as error:
        raise Fatal(error.reason) from None
    found = asyncio.run(finger.find())
    if found is not None:
        finger.talk_to_first(found)


class Finger:
    """Raises TlsConfigError, ConfigError, Fatal."""

    def __init__(self, config: Config, options: Options) -> None:
        self._options = options
        self._params = config.load(FingerParams)
        self._tls = config.load(ClientTlsParams)
        self._common = config.load(TlsParams)
        self._dane = config.load(DaneParams)
        use_config_file(self._common.tls_config_file, self._common.tls_config_name)
        self._context = ClientContext(client_settings(self._tls, self._common, Certificates()))
        self._anchors = Anchors(self._tls.smtp_tls_trust_anchor_file)
        for warning in self._context.warnings:
            _say(f"warning: {warning}")
        self._session = b""
        self._resumed = False
        try:
            known = self._params.known_tcp_ports
            port = _LMTP_PORT if options.lmtp else service_port("smtp", known=known)
            self._destination = parse_destination(
                options.destination, port, lmtp=options.lmtp, known=known
            )
        except BadDestination as error:
            raise Fatal(str(error)) from None

    # who, and how

    async def find(self) -> list[tuple[Server | None, Policy]] | None:
        """The servers, each with its policy; None for a socket. None, said, if there is none."""
        if self._destination.path:
            return [(None, (await self._policy(self._params.myhostname))[0])]
        try:
            return await self._servers()
        except NoServers as error:
            _say(f"Destination address lookup failed: {error.reason}")
        except PolicyError as error:
            _say(f"warning: {error.warning or error.reason}")
        return None

    async def _servers(self) -> list[tuple[Server | None, Policy]]:
        params, lmtp = self._params, self._options.lmtp
        choice = ServerChoice(
            params,
            _protocols(params),
            frozenset(),
            service="lmtp" if lmtp else "smtp",
            lmtp=lmtp,
        )
        resolver = Resolver(dnssec=True, probe=self._params.dnssec_probe)
        lists = {"use_srv_lookup": StringList("use_srv_lookup", params.use_srv_lookup)}
        lookups = LiveLookups({}, lists=lists, resolver=resolver, native=NativeResolver())
        servers, _ = await choice.servers(lookups, self._destination, loop_detect=False)
        found: list[tuple[Server | None, Policy]] = []
        for server in servers:
            policy, fallback = await self._policy(server.host)
            if policy.level.by_dane:
                policy = await self._by_dane(policy, fallback, server, lookups)
            found.append((server, policy))
        return found

    async def _policy(self, host: str) -> tuple[Policy, Policy]:
        """As asked for, and "secure", which takes its place where DANE is not possible."""
        where = Where(self._destination.host or host, host)

        async def nothing(_: str) -> None:
            return None

        async def at(params: ClientTlsParams) -> Policy:
            return await choose(
                nothing, nothing, params, self._common, self._options.destination, where
            )

        secure = await at(replace(self._tls, smtp_tls_security_level="secure"))
        policy = await at(self._tls)
        if policy.warning:
            _say(f"warning: {policy.warning}")
            return secure, secure
        return policy, secure

    async def _by_dane(
        self, policy: Policy, secure: Policy, server: Server, lookups: LiveLookups
    ) -> Policy:
        only = policy.level is Level.DANE_ONLY
        try:
            port = server.port or self._destination.port
            decided = await settled(policy, server, port, lookups, self._dane)
        except PolicyError as error:
            if not only or error.warning:
                raise
            _say(f'{error.reason}, resorting to "secure"')
            return secure
        return decided if decided.records or decided.level is Level.ENCRYPT else secure

    # the conversation

    def talk_to_first(self, servers: Sequence[tuple[Server | None, Policy]]) -> None:
        """Talk to the first server that can be reached, and once more if that is wanted."""
        for server, policy in servers:
            if self._visit(server, policy):
                self._come_again(server, policy)
                return

    def _come_again(self, server: Server | None, policy: Policy) -> None:
        options = self._options
        if not options.again or not self._session:
            return
        for _ in range(options.most):
            _say(f"Reconnecting after {options.again} seconds")
            time.sleep(options.again)
            if not self._visit(server, policy, again=True):
                return
            if self._resumed:
                _say("Found a previously used server.  Done reconnecting.")
                return

    def _visit(self, server: Server | None, policy: Policy, *, again: bool = False) -> bool:
        """False if there is no connection. again: the certificate was told of before."""
        options = self._options.told_briefly if again else self._options
        peer, address, family = _place(server, self._destination, self._params.myhostname)
        sock = socket.socket(family)
        sock.settimeout(self._options.connect_timeout)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            why = error.strerror or "Connection timed out"
            via = server.address if server is not None else self._destination.path
            where = self._options.destination
            _say(f"Failed to establish session to {where} via {via}: connect to {peer}: {why}")
            return False
        if options.chat and not again:
            _say(f"Connected to {peer}")
        talk = Talk(sock)
        try:
            Visit(options, talk).run(self, server, policy, peer)
        except LostServer as error:
            _say(f"{error} while talking to {peer}")
        finally:
            talk.close()
        return True

    def connection(self, server: Server | None, policy: Policy) -> Connection:
        """To shake hands with. Raises TlsConfigError, PolicyError."""
        host = self._params.myhostname if server is None else server.host
        where = Where(self._destination.host or host, host)
        anchors = self._anchors.of(policy.anchor_files)
        return connect(self._context, policy.spec(where, anchors), self._session)

    def keep(self, connection: Connection) -> None:
        """The session, for the next handshake."""
        self._resumed = connection.agreed.resumed
        saved = connection.saved_session()
        if saved is not None:
            self._session = saved.data

    @property
    def hello_name(self) -> str:
        """Our own."""
        return self._params.myhostname


def _protocols(params: FingerParams) -> Protocols:
    versions = address_families(params.inet_protocols)
    if versions == (4,):
        return "ipv4"
    return "ipv6" if versions == (6,) else "all"


def _place(
    server: Server | None, destination: Destination, own: str
) -> tuple[str, str | tuple[str, int], int]:
    """How the log names it, where it is, and the family of the socket."""
    if server is None:
        return f"{own}[{destination.path}]", destination.path, socket.AF_UNIX
    family = socket.AF_INET6 if server.ipv6 else socket.AF_INET
    port = server.port or destination.port
    return f"{server.host}[{server.address}]:{port}", (server.address, port), family


class Visit:
    """One session."""

    def __init__(self, options: Options, talk: Talk) -> None:
        self._options = options
        self._talk = talk
        self._hello = "LHLO" if options.lmtp else "EHLO"
        self._connection: Connection | None = None

    def run(self, finger: Finger, server: Server | None, policy: Policy, peer: str) -> None:
        """From the greeting to QUIT. Raises LostServer."""
        talk, wrapped = self._talk, self._options.wrapped
        if wrapped and not self._shake(finger, server, policy, peer):
            return
        greeting = self._answer()
        if not greeting.positive:
            _say(f"Server rejected our connection: {greeting.lines[-1]}")
            return
        talk.limit(self._options.command_timeout)
        offered = self._introduce(finger.hello_name)
        if offered is None:
            return
        if not wrapped and policy.level is not Level.NONE and "STARTTLS" in offered:
            self._command("STARTTLS")
            reply = self._answer()
            if not reply.positive:
                _say(f"STARTTLS rejected: {reply.lines[-1]}")
                return
            if not self._shake(finger, server, policy, peer):
                return
            self._introduce(finger.hello_name)
        self._command("QUIT")
        self._answer()
        if self._connection is not None:
            finger.keep(self._connection)

    def _introduce(self, name: str) -> frozenset[str] | None:
        """What the server offers; None, said, if it does not want to hear of that."""
        self._command(f"{self._hello} {name}")
        reply = self._answer()
        if not reply.positive:
            _say(f"{self._hello} rejected: {reply.lines[-1]}")
            return None
        return frozenset(line[4:].split(" ")[0].upper() for line in reply.lines[1:])

    def _command(self, line: str) -> None:
        if self._options.chat:
            _say(f"> {line}")
        self._talk.send(line)

    def _answer(self) -> Answer:
        reply = self._talk.answer()
        if self._options.chat:
            for line in reply.lines:
                _say(f"< {line}")
        return reply

    def _shake(self, finger: Finger, server: Server | None, policy: Policy, peer: str) -> bool:
        """False, said, if that fails. Raises LostServer."""
        try:
            connection = finger.connection(server, policy)
        except (TlsConfigError, PolicyError) as error:
            what = error.reason if isinstance(error, TlsConfigError) else error.warning
            _say(f"warning: {peer}: {what}")
            return False
        for record in connection.unusable:
            _say(f"warning: {peer}: unusable TLSA RR: {record}")
        if "states" in self._options.told:
            connection.watch(_say, peer)
        if "handshake" in self._options.told:
            connection.dump(_say, peer, after="session" in self._options.told)
        try:
            self._talk.shake(connection)
        except TlsFailed as error:
            _say(f"SSL_connect error to {peer}: {error.reason}")
            for problem in error.problems:
                _say(f"warning: TLS library problem: {problem}")
            return False
        self._connection = connection
        self._tell(connection, policy, peer)
        return True

    def _tell(self, connection: Connection, policy: Policy, peer: str) -> None:
        told, refused = self._options.told, connection.refused
        matching = policy.level.matches_peer
        if refused is not None and (matching or "untrusted" in told):
            _say(refused.text("server", peer))
        if "certmatch" in told:
            for what in _matches(connection, policy):
                _say(f"{peer}: {what}")
        if connection.agreed.resumed:
            _say(f"{peer}: Reusing old session")
        if "peercert" in told and (line := connection.peer_line(peer, policy.digest)):
            _say(line)
        if "routine" in told:
            trust = policy.told(connection.trust)
            _say(connection.agreed.established(trust, "to", peer))
        if self._options.chain:
            for line in _chain(connection.chain_sent, policy.digest):
                print(line)


def _matches(connection: Connection, policy: Policy) -> list[str]:
    """What has told that it is the right server."""
    found = []
    if name := connection.matched_name:
        found.append(f"matched peername: {name}")
    record = connection.dane_match
    if record is not None:
        what = f"DANE TLSA record: {record}" if policy.records else "trust anchor"
        found.append(f"Matched {what}")
    return found


def _chain(certificates: Sequence[Certificate], digest: str) -> list[str]:
    """Certificates as people and programs read them."""
    lines = ["", "---", "Certificate chain"]
    for depth, one in enumerate(certificates):
        lines += [
            f"{depth:2} subject: {one_line(one, issuer=False)}",
            f"    issuer: {one_line(one, issuer=True)}",
            f"   cert digest={fingerprint(one.der(), digest)}",
            f"   pkey digest={fingerprint(one.public_key(), digest)}",
            "-----BEGIN CERTIFICATE-----",
            *textwrap.wrap(base64.b64encode(one.der()).decode(), 64),
            "-----END CERTIFICATE-----",
        ]
    return lines
