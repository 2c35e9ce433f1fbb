"""A `Wire` that can switch to encryption, for STARTTLS.

Records of the layer go through the same output queue as everything else, so that they are never
interleaved. A file is read and encrypted in pieces, where a plain wire uses sendfile(2).
"""

import os
from collections.abc import Coroutine, Mapping
from typing import Final

from libmail.net.layer import Layer
from libmail.net.poller import Poller
from libmail.net.wire import Lost, Wire
from libmail.smtp.client import STARTTLS, Phase, ReplyReader

__all__ = ["SecureWire"]

_PIECE: Final = 1 << 18  # octets that are encrypted at a time


class SecureWire(Wire):
    """See Wire; plain until `secure`."""

    __slots__ = ("_handshaking", "_layer")

    def __init__(
        self,
        poller: Poller,
        family: int,
        limits: Mapping[Phase, float],
        *,
        min_rate: int = 0,
        window: int = 0,
    ) -> None:
        """See Wire."""
        self._layer: Layer | None = None
        self._handshaking = False
        super().__init__(poller, family, limits, min_rate=min_rate, window=window)

    @property
    def own_address(self) -> str:
        """Our end of the connection; "" for that of a UNIX socket, or once it is lost."""
        try:
            name: object = self._socket.getsockname()
        except OSError:
            return ""
        return str(name[0]) if isinstance(name, tuple) else ""

    def bindings(self) -> Mapping[str, bytes]:
        """The data of channel bindings by name; none without encryption."""
        return {} if self._layer is None else self._layer.bindings()

    async def secure(self, layer: Layer, *, hold: bool = False) -> None:
        """Perform the handshake; all data goes through the layer from then on.

        Input from before is dropped, as an attacker may have inserted it. hold: the last that the
        layer has to say goes with what is sent next, at once. Raises what the layer raises, and
        Lost for a timeout.
        """
        self._reader = ReplyReader()
        self._layer, self._handshaking = layer, True
        try:
            await self._handshake(layer)
        except BaseException:
            hold = False
            raise
        finally:
            self._handshaking = False
            if not hold:
                self._speak(layer)
        self._decrypt(layer)

    async def _handshake(self, layer: Layer) -> None:
        if self._eof:
            layer.receive(b"")
        self._resume_reading()
        seconds, clock = self._limits[STARTTLS], self._poller.loop.time
        until = clock() + seconds
        while not layer.handshake():
            self._speak(layer)
            self._poller.limit(self, max(until - clock(), 0.001) if seconds else 0.0)
            try:
                await self._wakeup
            except TimeoutError:
                raise Lost(STARTTLS, timed_out=True) from None

    # reading

    def _receive(self, data: bytes) -> None:
        layer = self._layer
        if layer is None:
            super()._receive(data)
            return
        layer.receive(data)
        if not self._handshaking:
            self._decrypt(layer)
        if not data and not self._eof:
            super()._receive(b"")

    def _decrypt(self, layer: Layer) -> None:
        data = layer.read()
        if data is None:
            self._speak(layer)  # an alert, perhaps; other things go with what we say next
        if data != b"":
            super()._receive(data or b"")

    # writing

    def _speak(self, layer: Layer) -> None:
        """Send what the layer itself has to send."""
        if data := layer.protect(b""):
            super().send(data)

    def send(self, data: bytes) -> None:
        """See Wire."""
        super().send(data if self._layer is None else self._layer.protect(data))

    def send_all(self, data: bytes, phase: Phase) -> Coroutine[object, object, None]:
        """See Wire."""
        if self._layer is None:
            return super().send_all(data, phase)
        return self._send_protected(data, phase, self._layer)

    async def _send_protected(self, data: bytes, phase: Phase, layer: Layer) -> None:
        for at in range(0, len(data), _PIECE):
            super().send(layer.protect(data[at : at + _PIECE]))
            while self._out:
                unsent = len(self._out)
                await self._writable(phase)
                self._content.earn(unsent - len(self._out), self._limits[phase])
            if self._error is not None:
                raise Lost(phase)

    async def sendfile(self, fd: int, offset: int, length: int, phase: Phase) -> None:
        """See Wire."""
        if self._layer is None:
            await super().sendfile(fd, offset, length, phase)
            return
        end = offset + length
        while offset < end:
            data = os.pread(fd, min(end - offset, _PIECE), offset)
            if not data:
                raise OSError(5, "unexpected end of queue file")
            await self.send_all(data, phase)
            offset += len(data)

    # the end

    def close(self) -> None:
        """See Wire."""
        layer, self._layer = self._layer, None
        if layer is not None:
            farewell = layer.end()
            if farewell and not self._out:
                super().send(farewell)
        super().close()
