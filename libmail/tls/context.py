"""Contexts: what all sessions of a process have in common, made once, before the jail.

`ServerContext` and `ClientContext` are made of settings that are already decided; what of them
comes from main.cf says libmail.tls.params. A client context has variants inside, one for each set
of ciphers and protocols that a policy asks for: to parse a list of ciphers for each session costs
more than the rest of its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, cast

from libmail.tls import callbacks
from libmail.tls.base_context import BaseContext, Common, dh_parameters
from libmail.tls.errors import TlsConfigError
from libmail.tls.library import CRYPTO, FFI, SSL, Handle, at_least, clear_problems, problems
from libmail.tls.negotiation import Terms
from libmail.tls.own_sessions import OwnSessions
from libmail.tls.settings import Protocols
from libmail.tls.tickets import TicketKeys

__all__ = [
    "Ask",
    "ClientContext",
    "ClientSettings",
    "ServerContext",
    "ServerSettings",
]

_SESSION_CACHE: Final = 44
_SERVER_NAME_CALLBACK: Final = 53
_DH_AUTO: Final = 118
_CACHE_OFF: Final = 0
_CACHE_CLIENT: Final = 0x0001 | 0x0300  # the library itself stores nothing and looks nothing up
_CACHE_SERVER: Final = 0x0002 | 0x0080 | 0x0300
_NO_TICKET: Final = 1 << 14  # options
_SERVER_PREFERENCE: Final = 1 << 22
_VERIFY_PEER: Final = 0x01
_VERIFY_OR_FAIL: Final = 0x02
_VERIFY_ONCE: Final = 0x04
_RAW_KEY_OR_CERTIFICATE: Final = b"\x02\x00"  # RFC 7250 §3
_MOST_VARIANTS: Final = 50
_CBC_BLOCK: Final = 16
_NO_RAW_KEYS: Final = "raw public keys need OpenSSL 3.2: using certificates only"


class Ask(Enum):
    """Whether a server asks clients for a certificate."""

    NO = 0
    YES = _VERIFY_PEER | _VERIFY_ONCE
    REQUIRE = _VERIFY_PEER | _VERIFY_ONCE | _VERIFY_OR_FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings(Common):
    """Settings of a server. dh_file: with parameters; "" or "auto": built-in ones.

    session_context: sessions of one name are not resumed under another. cached: whether the caller
    keeps sessions of clients without tickets. names: whether it has chains by server name.
    """

    ciphers: str
    protocols: Protocols
    ask: Ask = Ask.NO
    preempt: bool = False
    dh_file: str = ""
    session_context: bytes = b"smtpd"
    session_timeout: int = 3600
    session_ids: bool = True
    cached: bool = False
    names: bool = False
    tickets: TicketKeys | None = field(default=None, repr=False)
    ticket_cipher: str = "aes-256-cbc"
    accept_server_purpose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings(Common):
    """Settings of a client. dane_digests: (algorithm, matching type), strongest first."""

    dane_digests: tuple[tuple[str, int], ...] = (("sha512", 2), ("sha256", 1))
    cached: bool = False


class ServerContext(BaseContext):
    """For the sessions that clients begin."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises TlsConfigError."""
        super().__init__(SSL.TLS_server_method(), settings)
        self.settings = settings
        self.ticket_cipher = self._ticket_cipher()
        self.terms = Terms(
            limit=settings.verify_depth,
            server=True,
            tickets=settings.tickets,
            ticket_cipher=self.ticket_cipher,
            wants_name=settings.names,
            wants_session=settings.cached,
            accept_server_purpose=settings.accept_server_purpose,
            keep=settings.cached,
        )
        self.set_versions(settings.ciphers, settings.protocols)
        if settings.preempt:
            SSL.SSL_CTX_set_options(self.handle, _SERVER_PREFERENCE)
        self._use_parameters()
        self._set_verify()
        self._set_sessions()
        SSL.SSL_CTX_set_client_hello_cb(self.handle, callbacks.client_hello, FFI.NULL)
        function = FFI.cast("void (*)(void)", cast(Handle, callbacks.server_name))
        SSL.SSL_CTX_callback_ctrl(self.handle, _SERVER_NAME_CALLBACK, function)
        if settings.raw_keys and self._has_raw_keys():
            kinds = _RAW_KEY_OR_CERTIFICATE
            SSL.SSL_CTX_set1_server_cert_type(self.handle, kinds, len(kinds))
            if settings.ask is not Ask.NO:
                SSL.SSL_CTX_set1_client_cert_type(self.handle, kinds, len(kinds))

    def _has_raw_keys(self) -> bool:
        if not at_least(3, 2):
            self.warnings.append(_NO_RAW_KEYS)
        return at_least(3, 2)

    def _use_parameters(self) -> None:
        """Of Diffie-Hellman. A bad file costs a warning."""
        path = self.settings.dh_file
        if path and path != "auto":
            try:
                key = dh_parameters(path)
            except TlsConfigError as error:
                self.warnings.append(f"{error.reason} -- using compiled-in defaults")
            else:
                if SSL.SSL_CTX_set0_tmp_dh_pkey(self.handle, key) == 1:
                    return
                CRYPTO.EVP_PKEY_free(key)
                self.warnings.append("error configuring explicit DH parameters")
        SSL.SSL_CTX_ctrl(self.handle, _DH_AUTO, 1, FFI.NULL)
        clear_problems()

    def _set_verify(self) -> None:
        ask, authorities = self.settings.ask, self.settings.authorities
        SSL.SSL_CTX_set_verify(self.handle, ask.value, callbacks.verify)
        if ask is Ask.NO or authorities is None:
            return
        names = CRYPTO.OPENSSL_sk_new_null()
        for certificate in authorities.names:
            name = CRYPTO.X509_get_subject_name(certificate.handle)
            CRYPTO.OPENSSL_sk_push(names, CRYPTO.X509_NAME_dup(name))
        SSL.SSL_CTX_set_client_CA_list(self.handle, names)

    def _set_sessions(self) -> None:
        settings = self.settings
        SSL.SSL_CTX_set_timeout(self.handle, settings.session_timeout)
        name = settings.session_context[:32]
        SSL.SSL_CTX_set_session_id_context(self.handle, name, len(name))
        use_ids = settings.cached or settings.session_ids
        mode = _CACHE_SERVER if use_ids else _CACHE_OFF
        SSL.SSL_CTX_ctrl(self.handle, _SESSION_CACHE, mode, FFI.NULL)
        if settings.cached:
            SSL.SSL_CTX_sess_set_new_cb(self.handle, callbacks.new_session)
            SSL.SSL_CTX_sess_set_get_cb(self.handle, callbacks.get_session)
        if self.ticket_cipher is None or settings.options & _NO_TICKET:
            SSL.SSL_CTX_set_options(self.handle, _NO_TICKET)
            SSL.SSL_CTX_set_num_tickets(self.handle, 0)
        else:
            SSL.SSL_CTX_set_tlsext_ticket_key_evp_cb(self.handle, callbacks.ticket_key)
            SSL.SSL_CTX_set_num_tickets(self.handle, 1)

    def _ticket_cipher(self) -> Handle | None:
        """The cipher of tickets; None for no tickets."""
        name = self.settings.ticket_cipher
        if not name or self.settings.tickets is None:
            return None
        cipher = CRYPTO.EVP_CIPHER_fetch(FFI.NULL, name.encode(), FFI.NULL)
        clear_problems()
        if (
            cipher == FFI.NULL
            or CRYPTO.EVP_CIPHER_get_block_size(cipher) != _CBC_BLOCK
            or CRYPTO.EVP_CIPHER_get_iv_length(cipher) != _CBC_BLOCK
            or not 16 <= CRYPTO.EVP_CIPHER_get_key_length(cipher) <= 32
        ):
            self.warnings.append(
                f"tls_session_ticket_cipher: invalid value: {name}; session tickets disabled"
            )
            return None
        return FFI.gc(cipher, CRYPTO.EVP_CIPHER_free)


class ClientContext:
    """For the sessions that we begin. warnings: what the log should say of the settings.

    own: those that can be resumed.
    """

    def __init__(self, settings: ClientSettings) -> None:
        """Raises TlsConfigError."""
        self.settings = settings
        self.own = OwnSessions()
        self.terms = Terms(
            limit=settings.verify_depth, server=False, keep=settings.cached, own=self.own
        )
        self._variants: OrderedDict[tuple[str, Protocols, bool], BaseContext] = OrderedDict()
        self.warnings = self._made().warnings
        if settings.raw_keys and not at_least(3, 2):
            self.warnings.append(_NO_RAW_KEYS)

    def variant(self, ciphers: str, protocols: Protocols, raw_keys: bool) -> Handle:
        """The SSL_CTX with these ciphers and protocols, which we own. Raises TlsConfigError."""
        wanted = (ciphers, protocols, raw_keys and at_least(3, 2))
        found = self._variants.get(wanted)
        if found is None:
            found = self._made()
            found.set_versions(ciphers, protocols)
            if wanted[2]:
                kinds = _RAW_KEY_OR_CERTIFICATE
                SSL.SSL_CTX_set1_server_cert_type(found.handle, kinds, len(kinds))
                SSL.SSL_CTX_set1_client_cert_type(found.handle, kinds, len(kinds))
            self._variants[wanted] = found
            if len(self._variants) > _MOST_VARIANTS:
                self._variants.popitem(last=False)
        self._variants.move_to_end(wanted)
        return found.handle

    def _made(self) -> BaseContext:
        base = BaseContext(SSL.TLS_client_method(), self.settings)
        SSL.SSL_CTX_set_verify(base.handle, 0, callbacks.verify)
        mode = _CACHE_CLIENT if self.settings.cached else _CACHE_OFF
        SSL.SSL_CTX_ctrl(base.handle, _SESSION_CACHE, mode, FFI.NULL)
        SSL.SSL_CTX_sess_set_new_cb(base.handle, callbacks.new_session)
        self._enable_dane(base)
        return base

    def _enable_dane(self, base: BaseContext) -> None:
        if SSL.SSL_CTX_dane_enable(base.handle) <= 0:
            raise TlsConfigError("OpenSSL DANE initialization failed", problems())
        digests = self.settings.dane_digests
        used = {number for _, number in digests}
        for number in {1, 2} - used:
            SSL.SSL_CTX_dane_mtype_set(base.handle, FFI.NULL, number, 0)
        for rank, (name, number) in enumerate(reversed(digests), 1):
            algorithm = CRYPTO.EVP_get_digestbyname(name.encode())
            if algorithm == FFI.NULL:
                base.warnings.append(f'digest algorithm "{name}"({number}) unknown')
            elif SSL.SSL_CTX_dane_mtype_set(base.handle, algorithm, number, rank) <= 0:
                raise TlsConfigError(f"error configuring matching type {number}", problems())
