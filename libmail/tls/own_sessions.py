"""Sessions that this process has begun as a client, as the library holds them.

What tlsmgr(8) finds for a server is mostly what this process had it keep. To make a session of its
octets means to decode the server's certificate, which with OpenSSL 3.0 is a quarter of a resumed
handshake; what is still here need not be decoded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from libmail.tls.library import FFI, SSL, Handle, clear_problems

__all__ = ["OwnSessions", "decoded_session"]

_MOST: Final = 50  # sessions, of some 10 KB each


class OwnSessions:
    """The sessions that were kept last, by their encoding.

    Copies: the library marks those that it has resumed, or whose connection was cut off.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, Handle] = OrderedDict()

    def keep(self, data: bytes, session: Handle) -> None:
        """Hold a session of the library, whose encoding is data."""
        self._sessions[data] = _owned(SSL.SSL_SESSION_dup(session))
        if len(self._sessions) > _MOST:
            self._sessions.popitem(last=False)

    def find(self, data: bytes) -> Handle:
        """The session of an encoding, which the result owns; NULL for an encoding of none."""
        kept = self._sessions.get(data, FFI.NULL)
        return _owned(decoded_session(data) if kept == FFI.NULL else SSL.SSL_SESSION_dup(kept))


def _owned(session: Handle) -> Handle:
    return session if session == FFI.NULL else FFI.gc(session, SSL.SSL_SESSION_free)


def decoded_session(data: bytes) -> Handle:
    """A session of its encoding, NULL for what is none; the caller owns it."""
    source, start = FFI.from_buffer("unsigned char[]", data), FFI.new("unsigned char **")
    start[0] = source
    session = SSL.d2i_SSL_SESSION(FFI.NULL, start, len(data))
    if session == FFI.NULL:
        clear_problems()  # or the handshake that goes on would fail of them
    return session
