"""Encryption between the network and what is said over it, without I/O."""

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Layer"]


class Layer(Protocol):
    """What `ClientChannel` and `SecureWire` put octets through, both ways."""

    @property
    def ended(self) -> bool:
        """Whether `decrypt` has found the end of the session, or what is against the protocol."""

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is complete. Raises an error of the layer."""

    def receive(self, data: bytes) -> None:
        """Take input from the network; b"" for its end."""

    def read(self) -> bytes | None:
        """Decrypted input; None when the session has ended."""

    def decrypt(self, data: bytes) -> bytes:
        """Take input from the network, and return what can be read of it by now."""

    def protect(self, data: bytes) -> bytes:
        """Encrypt data; the output also has whatever else the layer has to send."""

    def bindings(self) -> Mapping[str, bytes]:
        """The data of channel bindings (RFC 5056) by name."""

    def end(self) -> bytes:
        """End the session; its last output. What is protected after it comes to nothing."""
