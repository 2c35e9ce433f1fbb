"""A handshake to look at: its states for the log, the whole of it for a file; memory BIOs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from libmail.tls import callbacks
from libmail.tls.library import CRYPTO, FFI, SSL, Handle, text
from libmail.tls.negotiation import Negotiation

__all__ = ["Dump", "Trace", "dump_lines", "follow", "new_buffer", "taken"]

_SET_ARGUMENT: Final = 16  # SSL_CTRL_SET_MSG_CALLBACK_ARG
_LOOP: Final = 0x01  # what the callback for information is told, SSL_CB_...
_EXIT: Final = 0x02
_READ: Final = 0x04
_ALERT: Final = 0x4000
_CLOSE_NOTIFY: Final = 0  # RFC 8446 §6.1

new_buffer = FFI.new_allocator(should_clear_after_alloc=False)


_FLIGHT: Final = 1 << 13  # octets of what mostly goes out at once
_room: Final = new_buffer("char[]", _FLIGHT)
_octets: Final = FFI.buffer(_room)
_get: Final = CRYPTO.BIO_read


def taken(bio: Handle) -> bytes:
    """What is in a memory BIO."""
    data: bytes = _octets[: max(_get(bio, _room, _FLIGHT), 0)]
    if len(data) < _FLIGHT:
        return data
    size = CRYPTO.BIO_ctrl_pending(bio)
    buffer = new_buffer("char[]", size)
    rest: bytes = FFI.buffer(buffer)[: max(_get(bio, buffer, size), 0)]
    return data + rest


class Trace:
    """What SSL_trace(3) writes of a handshake, up to a limit, and nothing of what follows it."""

    def __init__(self, ssl: Handle, limit: int) -> None:
        self._ssl = ssl
        self._left = limit
        self._bio = FFI.gc(CRYPTO.BIO_new(CRYPTO.BIO_s_mem()), CRYPTO.BIO_free)
        SSL.SSL_set_msg_callback(ssl, SSL.SSL_trace)
        SSL.SSL_ctrl(ssl, _SET_ARGUMENT, 0, self._bio)

    def end(self) -> None:
        """Write no more."""
        SSL.SSL_set_msg_callback(self._ssl, FFI.NULL)

    def taken(self) -> bytes:
        """What was written since the last call."""
        told = taken(self._bio)[: self._left]
        self._left -= len(told)
        if not self._left:
            self.end()
        return told


class Dump:
    """Tells what goes over the network, as Postfix does. after: also behind the handshake."""

    def __init__(self, tell: Callable[[str], None], peer: str, *, after: bool) -> None:
        self._tell = tell
        self._peer = peer
        self._after = after
        self._over = False

    def received(self, data: bytes, *, done: bool) -> None:
        """done: whether the handshake is complete."""
        self._over = self._over or (done and not self._after)
        self._show("read from", data)

    def sent(self, data: bytes, *, done: bool) -> None:
        """done: as with `received`, but the first output of then belongs to the handshake."""
        self._show("write to", data)
        self._over = self._over or (done and not self._after)

    def _show(self, verb: str, data: bytes) -> None:
        if self._over:
            return
        size = len(data)
        self._tell(f"{verb} {self._peer} ({size} bytes => {size} (0x{size:X}))")
        for line in dump_lines(data):
            self._tell(line)


def dump_lines(data: bytes) -> Iterator[str]:
    """Rows of 16 octets, hexadecimal and as text; blanks and NULs at the end are left out."""
    shown = data.rstrip(b" \0")
    for at in range(0, len(shown), 16):
        row = shown[at : at + 16]
        digits = " ".join(f"{octet:02x}" for octet in row)
        if len(row) > 8:
            digits = f"{digits[:23]}|{digits[24:]}"
        text = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in row)
        yield f"{at:04x} {digits:47}  {text[:8]} {text[8:]}".rstrip()
    if len(shown) < len(data):
        yield f"{len(shown):04x} - <SPACES/NULLS>"


def follow(
    ssl: Handle, negotiation: Negotiation, verb: str, tell: Callable[[str], None], peer: str
) -> None:
    """Have states and certificates told. verb: "SSL_accept" or "SSL_connect"."""

    def state(where: int, result: int) -> None:
        if line := state_line(ssl, verb, where, result):
            tell(line)

    def certificate(depth: int, good: bool, subject: str) -> None:
        tell(f"{peer}: depth={depth} verify={good:d} subject={subject}")

    negotiation.watch = state
    negotiation.watch_certificate = certificate
    SSL.SSL_set_info_callback(ssl, callbacks.information)


def state_line(ssl: Handle, verb: str, where: int, result: int) -> str:
    """What Postfix logs of a state of the handshake; "" for what it does not."""
    if where & _LOOP:
        return f"{verb}:{text(SSL.SSL_state_string_long(ssl))}"
    if where & _ALERT:
        if result & 0xFF == _CLOSE_NOTIFY:
            return ""  # that is how every session ends
        direction = "read" if where & _READ else "write"
        kind = text(SSL.SSL_alert_type_string_long(result))
        return f"SSL3 alert {direction}:{kind}:{text(SSL.SSL_alert_desc_string_long(result))}"
    if where & _EXIT and result == 0:
        return f"{verb}:failed in {text(SSL.SSL_state_string_long(ssl))}"
    return ""
