"""Opens the engine of TLS, before the jail.

The library is loaded only where TLS is used, and then here: nothing is imported after the jail.
Keys or authorities that cannot be used do not stop the mail that may go in the clear; what must
not, waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libmail.config import Config
from libmail.tls.errors import possibly

if TYPE_CHECKING:
    from daemons.smtp.handshakes import Handshakes

__all__ = ["open_engine"]


def open_engine(config: Config, prefix: str) -> Handshakes | None:
    """None, with warnings, if something cannot be used. prefix: "smtp" or "lmtp"."""

    def make() -> Handshakes:
        from daemons.smtp.handshakes import open_handshakes

        return open_handshakes(config, prefix)

    return possibly(make)
