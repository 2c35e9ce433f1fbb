"""What the library calls while it shakes hands; each finds its session and hands on to it.

Made once, at import (see libmail.tls.library). An exception must not pass through the library, so
it is kept, the library is told to fail, and `raise_kept` raises it where Python called the library.
"""

from __future__ import annotations

from typing import Final, Protocol, cast

from libmail.tls.library import CRYPTO, FFI, SSL, Handle

__all__ = [
    "Callee",
    "client_hello",
    "get_session",
    "information",
    "kept",
    "new_session",
    "raise_kept",
    "server_name",
    "ticket_key",
    "verify",
]

SESSION_INDEX: Final = 0  # of SSL_set_ex_data, reserved for the application
_STORE_INDEX: Final = SSL.SSL_get_ex_data_X509_STORE_CTX_idx()
kept: Final[list[BaseException]] = []  # empty but between a callback and its caller


class Callee(Protocol):
    """A session, as the callbacks see it; results are those that the library expects."""

    def on_verify(self, good: bool, store_context: Handle) -> int:
        """One certificate was looked at, or something is wrong with it."""
        ...

    def on_client_hello(self) -> int:
        """The client has said what it wants: success, failure or "ask me again later"."""
        ...

    def on_server_name(self) -> int:
        """Whether the name that the client asked for is acknowledged."""
        ...

    def on_new_session(self, session: Handle) -> None:
        """There is a session that could be resumed later."""
        ...

    def on_get_session(self, identity: bytes) -> Handle:
        """The session that a client wants to resume, or NULL."""
        ...

    def on_ticket(self, name: Handle, iv: Handle, cipher: Handle, mac: Handle, making: bool) -> int:
        """A ticket is made or opened."""
        ...

    def on_information(self, where: int, result: int) -> None:
        """The handshake has come to another state."""
        ...


def _keep(_kind: object, error: BaseException, _trace: object) -> None:
    kept.append(error)


def raise_kept() -> None:
    """Raise what a callback could not raise, if there is something."""
    if kept:
        error = kept.pop()
        kept.clear()
        raise error


def _callee(ssl: Handle) -> Callee:
    return cast(Callee, FFI.from_handle(SSL.SSL_get_ex_data(ssl, SESSION_INDEX)))


@FFI.callback("verify_cb", error=0, onerror=_keep)
def verify(good: int, context: Handle) -> int:
    """SSL_CTX_set_verify(3)."""
    ssl = FFI.cast("SSL *", CRYPTO.X509_STORE_CTX_get_ex_data(context, _STORE_INDEX))
    return _callee(ssl).on_verify(bool(good), context)


@FFI.callback("hello_cb", error=0, onerror=_keep)
def client_hello(ssl: Handle, _alert: Handle, _argument: Handle) -> int:
    """SSL_CTX_set_client_hello_cb(3)."""
    return _callee(ssl).on_client_hello()


@FFI.callback("servername_cb", error=2, onerror=_keep)
def server_name(ssl: Handle, _alert: Handle, _argument: Handle) -> int:
    """SSL_CTX_set_tlsext_servername_callback(3)."""
    return _callee(ssl).on_server_name()


@FFI.callback("new_session_cb", error=0, onerror=_keep)
def new_session(ssl: Handle, session: Handle) -> int:
    """SSL_CTX_sess_set_new_cb(3); 0: we keep no reference."""
    _callee(ssl).on_new_session(session)
    return 0


@FFI.callback("get_session_cb", error=FFI.NULL, onerror=_keep)
def get_session(ssl: Handle, identity: Handle, length: int, copied: Handle) -> Handle:
    """SSL_CTX_sess_set_get_cb(3); the library takes over the reference that it gets."""
    cast("list[int]", copied)[0] = 0
    return _callee(ssl).on_get_session(FFI.buffer(identity, min(length, 32))[:])


@FFI.callback("ticket_cb", error=-1, onerror=_keep)
def ticket_key(
    ssl: Handle, name: Handle, iv: Handle, cipher: Handle, mac: Handle, making: int
) -> int:
    """SSL_CTX_set_tlsext_ticket_key_evp_cb(3)."""
    return _callee(ssl).on_ticket(name, iv, cipher, mac, bool(making))


@FFI.callback("info_cb", onerror=_keep)
def information(ssl: Handle, where: int, result: int) -> None:
    """SSL_set_info_callback(3)."""
    _callee(FFI.cast("SSL *", ssl)).on_information(where, result)
