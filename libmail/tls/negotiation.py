"""The part of a session that the library calls back: verification, names, tickets, sessions.

It is an object of its own, and not the connection, so that the connection is in no cycle of
references and ends when nobody holds it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from libmail.tls.certificate import Certificate, encoded, one_line
from libmail.tls.facts import CHAIN_TOO_LONG, INVALID_PURPOSE, WRONG_NAME, Refusal
from libmail.tls.library import CRYPTO, FFI, SSL, Handle, octets, text
from libmail.tls.own_sessions import OwnSessions, decoded_session
from libmail.tls.tickets import MAC_KEY_SIZE, NAME_SIZE, TicketKeys

__all__ = [
    "Hello",
    "NameState",
    "Negotiation",
    "SavedSession",
    "Terms",
    "verify_words",
]

_ASK_LATER: Final = -1  # results of the callback for the ClientHello
_FAIL: Final = 0
_GO_ON: Final = 1
_ACKNOWLEDGED: Final = 0  # results of the callback for the server name
_NOT_ACKNOWLEDGED: Final = 3
_NO_TICKET: Final = 0  # results of the callback for tickets
_TICKET: Final = 1
_TICKET_RENEW: Final = 2
_SERVER_NAME: Final = 0  # extensions of a ClientHello
_SESSION_TICKET: Final = 35
_SUPPORTED_VERSIONS: Final = 43
_SERVER_PURPOSE: Final = 2  # X509_PURPOSE_SSL_SERVER
_TLS_1_3: Final = 0x0304
_LONGEST_NAME: Final = 255
_LONGEST_SESSION: Final = 1 << 15  # octets of a session that is worth to be kept
_UTF8: Final = 4  # types of OSSL_PARAM(3)
_OCTETS: Final = 5
_data: Final = FFI.new("unsigned char **")  # where the library says what it has, and how much
_length: Final = FFI.new("size_t *")
# The parameters of tickets' message authentication codes: HMAC with SHA-256 and a key.
_HASH: Final = FFI.new("char[]", b"SHA256")
_PARAMETER_DIGEST: Final = FFI.new("char[]", b"digest")
_PARAMETER_KEY: Final = FFI.new("char[]", b"key")
_MAC_KEY: Final = FFI.new("unsigned char[]", MAC_KEY_SIZE)
_MAC_PARAMETERS: Final = FFI.new(
    "OSSL_PARAM[3]",
    [
        (_PARAMETER_KEY, _OCTETS, _MAC_KEY, MAC_KEY_SIZE, 0),
        (_PARAMETER_DIGEST, _UTF8, _HASH, 6, 0),
        (FFI.NULL, 0, FFI.NULL, 0, 0),
    ],
)


class NameState(Enum):
    """What became of the name that a client asked for (SNI)."""

    NONE = "none"
    INVALID = "invalid"
    MATCHED = "matched"
    UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client asks for that has to be looked up. name: SNI, "" for none.

    session_id: of a session that it wants to resume without a ticket, b"" for none.
    """

    name: str
    session_id: bytes


@dataclass(frozen=True, slots=True)
class SavedSession:
    """A session in the form in which it can be kept. It holds secrets."""

    session_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What callbacks want to know of a context, the same for all its sessions.

    limit: how many certificates there may be above the peer's. wants_name, wants_session: whether
    a server's caller looks up chains by name and saved sessions. keep: whether sessions are kept.
    own: where a client has them, too.
    """

    limit: int
    server: bool
    tickets: TicketKeys | None = None
    ticket_cipher: Handle | None = None
    wants_name: bool = False
    wants_session: bool = False
    accept_server_purpose: bool = False
    keep: bool = False
    own: OwnSessions | None = None


class Negotiation:
    """The state of one session as far as callbacks touch it.

    refused: the chain is not good; misnamed: it is good, for another name. resume: what the caller
    has found for hello.session_id. An instance holds what is other than here.
    """

    ssl: Handle
    refused: Refusal | None = None
    misnamed: Refusal | None = None
    name = ""
    name_state = NameState.NONE
    hello: Hello | None = None
    answered = False
    resume = b""
    saved: SavedSession | None = None
    watch: Callable[[int, int], None] | None = None
    watch_certificate: Callable[[int, bool, str], None] | None = None

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    # -- certificates

    def on_verify(self, good: bool, store_context: Handle) -> int:
        """Remember what is wrong, nearest to the peer first; the handshake goes on anyway."""
        depth = CRYPTO.X509_STORE_CTX_get_error_depth(store_context)
        code = 0 if good else CRYPTO.X509_STORE_CTX_get_error(store_context)
        if depth > self._terms.limit:
            code = CHAIN_TOO_LONG
        certificate = CRYPTO.X509_STORE_CTX_get_current_cert(store_context)
        if self.watch_certificate is not None and certificate != FFI.NULL:
            subject = one_line(Certificate.borrowed(certificate))
            self.watch_certificate(depth, good, subject)
        excused = code == INVALID_PURPOSE and self._server_purpose(certificate, depth)
        if code and not excused:
            self._note(code, depth, certificate)
        kept = self.refused or self.misnamed
        CRYPTO.X509_STORE_CTX_set_error(store_context, kept.code if kept else 0)
        return 1

    def _server_purpose(self, certificate: Handle, depth: int) -> bool:
        """tls_trust_server_ccerts: a client may have a certificate that is for servers only."""
        if not self._terms.accept_server_purpose or certificate == FFI.NULL:
            return False
        return CRYPTO.X509_check_purpose(certificate, _SERVER_PURPOSE, int(depth > 0)) == 1

    def _note(self, code: int, depth: int, certificate: Handle) -> None:
        earlier = self.misnamed if code == WRONG_NAME else self.refused
        if earlier is not None and earlier.depth <= depth:
            return
        issuer = ""
        if certificate != FFI.NULL:
            issuer = one_line(Certificate.borrowed(certificate), issuer=True)
        refusal = Refusal(code, depth, verify_words(code), issuer, self._terms.limit)
        if code == WRONG_NAME:
            self.misnamed = refusal
        else:
            self.refused = refusal

    # -- what a client asks for

    def on_client_hello(self) -> int:
        """Have the caller look up what must be looked up, outside of the library."""
        name, valid = self._asked_name()
        if self.answered:  # a second hello, after a retry, must ask for the same
            return _GO_ON if name == self.name else _FAIL
        if self.hello is not None:
            return _ASK_LATER
        self.name = name
        if not valid:
            self.name_state = NameState.INVALID
        session_id = self._asked_session() if self._terms.wants_session else b""
        if not session_id and not (name and self._terms.wants_name):
            self.answered = True
            return _GO_ON
        self.hello = Hello(name if self._terms.wants_name else "", session_id)
        return _ASK_LATER

    def _extension(self, kind: int) -> bytes | None:
        if SSL.SSL_client_hello_get0_ext(self.ssl, kind, _data, _length) != 1:
            return None
        return octets(_data[0], int(_length[0]))

    def _asked_name(self) -> tuple[str, bool]:
        """The name (RFC 6066 §3), and whether it is well-formed; "" for none."""
        data = self._extension(_SERVER_NAME)
        if data is None:
            return "", True
        length = int.from_bytes(data[3:5], "big")
        name = data[5 : 5 + length]
        if data[2:3] != b"\0" or len(name) != length or not 0 < length <= _LONGEST_NAME:
            return "", False
        if not name.isascii() or not name.decode().isprintable() or b" " in name:
            return "", False
        return name.decode().lower(), True

    def _asked_session(self) -> bytes:
        """The id of a session that only a cache can have: not a ticket, and not TLS 1.3."""
        for other in (_SESSION_TICKET, _SUPPORTED_VERSIONS):
            if self._extension(other) is not None:
                return b""
        data = FFI.new("unsigned char **")
        length = SSL.SSL_client_hello_get0_session_id(self.ssl, data)
        return octets(data[0], length) if length <= 32 else b""

    def on_server_name(self) -> int:
        """Tell the client that there is a chain for the name."""
        matched = self.name_state is NameState.MATCHED
        return _ACKNOWLEDGED if matched else _NOT_ACKNOWLEDGED

    # -- sessions

    def on_new_session(self, session: Handle) -> None:
        """Keep it for the caller, if it can be resumed, and by nothing else than a cache."""
        if not self._terms.keep or SSL.SSL_SESSION_is_resumable(session) != 1:
            return
        if self._terms.server and self._ticket_is_enough(session):
            return
        length = FFI.new("unsigned int *")
        identity = SSL.SSL_SESSION_get_id(session, length)
        try:
            data = encoded(SSL.i2d_SSL_SESSION, session)
        except ValueError:
            return
        if len(data) <= _LONGEST_SESSION:
            self.saved = SavedSession(octets(identity, int(length[0])), data)
            if self._terms.own is not None:
                self._terms.own.keep(data, session)

    def _ticket_is_enough(self, session: Handle) -> bool:
        newer = SSL.SSL_version(self.ssl) >= _TLS_1_3
        return newer or SSL.SSL_SESSION_has_ticket(session) == 1

    def on_get_session(self, identity: bytes) -> Handle:
        """What the caller has found; the library takes it over."""
        asked = self.hello
        if not self.resume or asked is None or identity != asked.session_id:
            return FFI.cast("SSL_SESSION *", 0)
        return decoded_session(self.resume)

    def on_ticket(self, name: Handle, iv: Handle, cipher: Handle, mac: Handle, making: bool) -> int:
        """Encrypt or decrypt a ticket with the keys at hand."""
        tickets, algorithm = self._terms.tickets, self._terms.ticket_cipher
        if tickets is None or algorithm is None:
            return _NO_TICKET
        newest = tickets.to_issue()
        presented = octets(name, NAME_SIZE) if not making else b""
        key = newest if making else tickets.to_open(presented)
        if key is None:
            return _NO_TICKET
        if making:
            FFI.memmove(name, key.name, NAME_SIZE)
            if CRYPTO.RAND_bytes(iv, CRYPTO.EVP_CIPHER_get_iv_length(algorithm)) != 1:
                return -1
        secret = key.cipher_key
        done = CRYPTO.EVP_CipherInit_ex(cipher, algorithm, FFI.NULL, secret, iv, int(making))
        FFI.memmove(_MAC_KEY, key.mac_key, MAC_KEY_SIZE)
        if done != 1 or CRYPTO.EVP_MAC_CTX_set_params(mac, _MAC_PARAMETERS) != 1:
            return -1
        return _TICKET if making or key is newest else _TICKET_RENEW

    # -- progress

    def on_information(self, where: int, result: int) -> None:
        """Tell whoever wants to follow the handshake."""
        if self.watch is not None:
            self.watch(where, result)


def verify_words(code: int) -> str:
    """The library's words for a result of verification."""
    return text(CRYPTO.X509_verify_cert_error_string(code))
