"""One TLS session, without I/O: octets of the network in and out, octets of the program in and out.

    handshake() -> Step.WANT_INPUT   send output(), feed receive() with what comes, call it again
                   Step.HELLO        look up what `hello` asks for, answer(), call it again
                   Step.DONE         send output(); read() and write() from now on

Each call does what can be done with what has come so far, at most one flight of a handshake, and
never waits. Whatever a peer sends leads to data, to TlsClosed, or to TlsFailed; after TlsFailed,
output() may have an alert for the peer. Nothing is kept beyond what was fed and not yet read: feed
no more than some 256 KiB before reading, and take no more from the network while output() is not
sent. What a peer sends beside data, such as changes of keys, is counted, for it is small to send,
and not to receive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from libmail.tls import callbacks
from libmail.tls.base_context import chain_stack
from libmail.tls.bindings import channel_bindings
from libmail.tls.certificate import Certificate
from libmail.tls.client_spec import ClientSpec
from libmail.tls.context import ClientContext, ServerContext
from libmail.tls.dane import Tlsa
from libmail.tls.errors import TlsClosed, TlsConfigError, TlsError, TlsFailed
from libmail.tls.facts import NO_DANE_MATCH, Agreed, Refusal, Trust
from libmail.tls.inspection import (
    PeerIdentity,
    agreement,
    matched_record,
    peer_chain,
    peer_identity,
)
from libmail.tls.library import CRYPTO, FFI, SSL, Handle, clear_problems, problems, text
from libmail.tls.negotiation import (
    Hello,
    NameState,
    Negotiation,
    SavedSession,
    verify_words,
)
from libmail.tls.observation import Dump, Trace, follow, new_buffer, taken
from libmail.tls.own_sessions import OwnSessions
from libmail.tls.peer_checks import expect
from libmail.tls.pem import Chain

__all__ = ["Connection", "Step", "accept", "connect"]

_WANT_READ: Final = 2  # results of SSL_get_error(3)
_SYSTEM: Final = 5
_CLOSED: Final = 6
_WANT_HELLO: Final = 11
_EOF_IS_AN_END: Final = 130  # BIO_C_SET_BUF_MEM_EOF_RETURN
_TLS_1_3: Final = 0x0304
_RECORD: Final = 1 << 14  # octets of content
_MOST_UNREAD: Final = 1 << 21  # octets that may be fed and not read
_MOST_WITHOUT_DATA: Final = 1000  # records after the handshake, in a session

# Where the library writes to, between a call and the copy that is made of the result at once.
# Calls that are made for every record are bound to names: to find them costs as much as they do.
_CONTENT: Final = new_buffer("char[]", _RECORD)
_CONTENT_OCTETS: Final = FFI.buffer(_CONTENT)
_COUNT: Final = FFI.new("size_t *")
_put: Final = CRYPTO.BIO_write
_pending: Final = CRYPTO.BIO_ctrl_pending
_decrypt: Final = SSL.SSL_read_ex
_encrypt: Final = SSL.SSL_write_ex
_Octets = bytes | bytearray | memoryview


class Step(Enum):
    """What a handshake needs next."""

    WANT_INPUT = auto()
    HELLO = auto()
    DONE = auto()


class Connection:
    """One end of a session; see the beginning of this module. Made by `accept` and `connect`.

    unusable: records and anchors that cannot be used. An instance holds what is other than here.
    """

    unusable: tuple[Tlsa, ...] = ()
    _spec: ClientSpec | None = None
    _watched: Callable[[str], None] | None = None
    _trace: Trace | None = None
    _dump: Dump | None = None
    unread = 0  # octets of input, at most; none: there is nothing to be had
    _done = False
    end: TlsError | None = None  # what ended the session; None: the library holds it
    _without_data = 0  # records

    def __init__(
        self,
        context: Handle,
        owner: object,
        negotiation: Negotiation,
        ciphers: str,
        *,
        server: bool,
    ) -> None:
        clear_problems()
        ssl = SSL.SSL_new(context)
        if ssl == FFI.NULL:
            raise TlsConfigError("Could not allocate a TLS session", problems())
        self._held: Handle | None = FFI.gc(ssl, SSL.SSL_free)
        self._owner = owner  # the context with its authorities lives as long as we do
        kind = CRYPTO.BIO_s_mem()
        self._in, self._out = CRYPTO.BIO_new(kind), CRYPTO.BIO_new(kind)
        SSL.SSL_set_bio(ssl, self._in, self._out)  # which owns them from now on
        self._negotiation = negotiation
        self._callee = FFI.new_handle(negotiation)
        negotiation.ssl = ssl
        SSL.SSL_set_ex_data(ssl, callbacks.SESSION_INDEX, self._callee)
        self.server = server
        self._ciphers = ciphers
        if server:
            SSL.SSL_set_accept_state(ssl)
        else:
            SSL.SSL_set_connect_state(ssl)

    @property
    def _ssl(self) -> Handle:
        """The session of the library. Raises TlsFailed after close()."""
        if self._held is None:
            raise _closed()
        return self._held

    def expect(self, spec: ClientSpec, own: OwnSessions, session: bytes = b"") -> None:
        """Say which server is the right one. session: see `connect`. Raises TlsConfigError."""
        self._spec = spec
        self.unusable = expect(self._ssl, spec, own, session)

    # -- octets of the network

    def receive(self, data: _Octets) -> None:
        """Take what the network has brought. Raises TlsFailed for what is far too much."""
        if self._held is None:
            raise _closed()
        self.unread += len(data)
        if self.unread > _MOST_UNREAD:
            raise TlsFailed("too much input that nobody reads")
        if self._dump is not None and data:
            self._dump.received(bytes(data), done=self._done)
        _put(self._in, data if isinstance(data, bytes) else FFI.from_buffer(data), len(data))

    def end_of_input(self) -> None:
        """The network brings no more: the peer has closed the connection."""
        if self._held is None:
            raise _closed()
        self.unread += 1  # to be found by whoever reads
        CRYPTO.BIO_ctrl(self._in, _EOF_IS_AN_END, 0, FFI.NULL)

    def output(self) -> bytes:
        """What the network has to take, b"" for nothing."""
        if self._held is None:
            raise _closed()
        data = taken(self._out)
        if self._dump is not None and data:
            self._dump.sent(data, done=self._done)
        return data

    # -- the handshake

    def handshake(self) -> Step:
        """Go on with the handshake. Raises TlsFailed."""
        if self.end is not None:
            raise self.end
        if self._done:
            return Step.DONE
        if self.server and not self.unread:
            return Step.WANT_INPUT  # buffers of 34 KB can wait until there is something for them
        clear_problems()
        result = SSL.SSL_do_handshake(self._ssl)
        callbacks.raise_kept()
        if result == 1:
            self._done = True
            if self._trace is not None:
                self._trace.end()
            return Step.DONE
        match SSL.SSL_get_error(self._ssl, result):
            case code if code == _WANT_READ:
                return Step.WANT_INPUT
            case code if code == _WANT_HELLO:
                return Step.HELLO
            case code:
                raise self._failed(code)

    @property
    def is_awaited(self) -> bool:
        """Whether the peer waits for the last output of a handshake that is complete."""
        return not self.server or SSL.SSL_version(self._ssl) < _TLS_1_3

    @property
    def hello(self) -> Hello | None:
        """With Step.HELLO: what must be looked up before the handshake can go on."""
        return self._negotiation.hello

    def answer(self, chains: Iterable[Chain] | None = None, session: bytes = b"") -> None:
        """Say what was found: chains for hello.name (None: the default ones), a saved session."""
        negotiation = self._negotiation
        if negotiation.hello is None or negotiation.answered:
            raise ValueError("nothing was asked for")
        negotiation.answered = True
        negotiation.resume = session
        if negotiation.hello.name:
            negotiation.name_state = NameState.UNMATCHED if chains is None else NameState.MATCHED
        if chains is not None:
            SSL.SSL_certs_clear(self._ssl)
            for chain in chains:
                self._use(chain)

    def _use(self, chain: Chain) -> None:
        certificate, key = chain.certificate.handle, chain.key.handle
        stack = chain_stack(chain.above)
        if SSL.SSL_use_cert_and_key(self._ssl, certificate, key, stack, 1) != 1:
            raise TlsConfigError(f"cannot use chain from {chain.source}", problems())

    # -- octets of the program

    def read(self) -> bytes:
        """All that has come, b"" if nothing has. Raises TlsClosed, TlsFailed at the end of it."""
        if self.end is not None:
            raise self.end
        if not self.unread:
            return b""
        clear_problems()
        parts = [self._record()]
        while self.unread:
            parts.append(self._record())
        content = b"".join(parts)  # which is the only part itself, if there is one
        if not content and self.end is not None:
            raise self.end
        return content

    def _record(self) -> bytes:
        """What is in the next record, b"" for nothing. Sets unread to 0 if it was the last."""
        result = _decrypt(self._held, _CONTENT, _RECORD, _COUNT)
        if callbacks.kept:
            callbacks.raise_kept()
        if result == 1:
            if not _pending(self._in):
                self.unread = 0  # a record is read whole, and no more than one at a time
            return _CONTENT_OCTETS[: int(_COUNT[0])]  # type: ignore[no-any-return]
        if not self._may_go_on(SSL.SSL_get_error(self._held, result)):
            self.unread = 0
        return b""

    def _may_go_on(self, code: int) -> bool:
        """Whether more can be read, as the last record was none of data."""
        if code != _WANT_READ or not _pending(self._in):
            self._note_end(code)
            return False
        self._without_data += 1
        if self._without_data > _MOST_WITHOUT_DATA:
            self.end = TlsFailed("too many records without data")
            return False
        return True

    def write(self, data: _Octets) -> None:
        """Encrypt data; output() has it then, in records that are as full as can be.

        Raises TlsFailed.
        """
        if self.end is not None and not isinstance(self.end, TlsClosed):
            raise self.end
        if not data:
            return
        clear_problems()
        source = data if isinstance(data, bytes) else FFI.from_buffer(data)
        result = _encrypt(self._held, source, len(data), _COUNT)
        if callbacks.kept:
            callbacks.raise_kept()
        if result != 1:
            raise self._failed(SSL.SSL_get_error(self._held, result))

    def shutdown(self) -> None:
        """Say that no more will come (close_notify); the peer's answer is not waited for."""
        if self._done and (self.end is None or isinstance(self.end, TlsClosed)):
            SSL.SSL_shutdown(self._ssl)
            clear_problems()

    def close(self) -> None:
        """Free what the library holds for the session. What is called after it raises TlsFailed."""
        if self._held is not None:
            FFI.release(self._held)
            self._held = None
            self._trace = None
            self.end = _closed()

    # -- what the session is

    @property
    def agreed(self) -> Agreed:
        """What was agreed upon, after the handshake."""
        return agreement(self._ssl, server=self.server)

    @property
    def resumed(self) -> bool:
        """Whether the session is one of before."""
        return bool(SSL.SSL_session_reused(self._ssl))

    @property
    def peer(self) -> PeerIdentity | None:
        """Who the peer is; None if it has shown no certificate."""
        return peer_identity(self._ssl)

    @property
    def chain_sent(self) -> tuple[Certificate, ...]:
        """The certificates that the peer has sent; none in a session that was resumed."""
        return () if self.resumed else peer_chain(self._ssl)

    def bindings(self) -> dict[str, bytes]:
        """The data of channel bindings by name, after the handshake."""
        return channel_bindings(self._ssl, server=self.server)

    @property
    def name(self) -> str:
        """Of a server's session: the name that the client has asked for (SNI)."""
        return self._negotiation.name

    @property
    def name_for_log(self) -> str:
        """The name for the log: only one that there is a chain for."""
        return self.name if self.name_state is NameState.MATCHED else ""

    @property
    def name_state(self) -> NameState:
        """What became of it."""
        return self._negotiation.name_state

    @property
    def usable_records(self) -> bool:
        """False if there are TLSA records or anchors, and not one can be used."""
        spec = self._spec
        records = () if spec is None else spec.tlsa or spec.anchors
        return not records or len(self.unusable) < len(records)

    @property
    def refused(self) -> Refusal | None:
        """What is wrong with the certificate of the peer, None if nothing is."""
        negotiation, spec = self._negotiation, self._spec
        if spec is not None and spec.fingerprints:
            shown = set() if self.peer is None else self.peer.fingerprints(spec.digest)
            return None if spec.fingerprints & shown else _NO_MATCH
        found = negotiation.refused or negotiation.misnamed
        if found is None and (code := SSL.SSL_get_verify_result(self._ssl)):
            found = Refusal(code, 0, verify_words(code))  # of the session that was resumed
        return found

    @property
    def trust(self) -> Trust:
        """How much is known of the peer."""
        if self.peer is None:
            return Trust.ANONYMOUS
        refused, spec = self.refused, self._spec
        if refused is None:
            matched = spec is not None and self.usable_records and spec.names_a_peer
            return Trust.VERIFIED if matched else Trust.TRUSTED
        return Trust.TRUSTED if refused.is_name_only else Trust.UNTRUSTED

    @property
    def matched_name(self) -> str:
        """The name in the certificate that was one of those asked for; "" for none."""
        name = SSL.SSL_get0_peername(self._ssl)
        return "" if name == FFI.NULL else text(name)

    @property
    def dane_match(self) -> Tlsa | None:
        """The TLSA record that matched, None for none or a session that was resumed."""
        return matched_record(self._ssl)

    def saved_session(self) -> SavedSession | None:
        """The session to be resumed later, if there is a new one; TLS 1.3 sends it with data."""
        saved, self._negotiation.saved = self._negotiation.saved, None
        return saved

    def watch(self, tell: Callable[[str], None], peer: str) -> None:
        """Have the handshake with a peer told in lines of the log, for loglevel 2."""
        self._watched = tell
        tell(f"setting up TLS connection {'from' if self.server else 'to'} {peer}")
        tell(f'{peer}: TLS cipher list "{self._ciphers}"')
        follow(self._ssl, self._negotiation, self._verb, tell, peer)

    @property
    def _verb(self) -> str:
        return "SSL_accept" if self.server else "SSL_connect"

    def peer_line(self, peer: str, digest: str) -> str:
        """What loglevel 2 tells of the peer's certificate; "" if it has shown none."""
        identity = self.peer
        if identity is None:
            return ""
        return identity.line(peer, "issuer" if self.server else "issuer_CN", digest)

    def dump(self, tell: Callable[[str], None], peer: str, *, after: bool) -> None:
        """Have the octets of the network shown in lines of the log, for loglevels 3 and 4.

        after: also those that follow the handshake; they are encrypted.
        """
        self._dump = Dump(tell, peer, after=after)

    def trace(self, limit: int) -> None:
        """Have the handshake written down in full; `traced` gives it. limit: octets."""
        self._trace = Trace(self._ssl, limit)

    def traced(self) -> bytes:
        """What was written down since the last call."""
        return self._trace.taken() if self._trace is not None else b""

    # -- the end

    def _note_end(self, code: int) -> None:
        if code == _CLOSED:
            self.end = TlsClosed("the peer has closed the TLS session")
        elif code != _WANT_READ:
            self._failed(code)

    def _failed(self, code: int) -> TlsFailed:
        """The error for a result that is none of those that are expected."""
        found = problems()
        if self._watched is not None:
            self._watched(f"{self._verb}:error in {text(SSL.SSL_state_string_long(self._ssl))}")
        lost = code == _SYSTEM or any("unexpected eof" in line for line in found)
        self.end = TlsFailed("lost connection" if lost else "-1", () if lost else found, lost=lost)
        return self.end


def _closed() -> TlsFailed:
    return TlsFailed("the TLS session is closed")


_NO_MATCH: Final = Refusal(NO_DANE_MATCH, 0, verify_words(NO_DANE_MATCH))


def accept(context: ServerContext) -> Connection:
    """The server's end of a session that a client begins."""
    negotiation, ciphers = Negotiation(context.terms), context.settings.ciphers
    return Connection(context.handle, context, negotiation, ciphers, server=True)


def connect(context: ClientContext, spec: ClientSpec, session: bytes = b"") -> Connection:
    """The client's end of a session that we begin. Raises TlsConfigError.

    session: to be resumed, b"" for none.
    """
    negotiation = Negotiation(context.terms)
    handle = context.variant(spec.ciphers, spec.protocols, spec.raw_keys)
    connection = Connection(handle, context, negotiation, spec.ciphers, server=False)
    connection.expect(spec, context.own, session)
    return connection
