"""Opens the TLS engine, before the jail.

The TLS library is loaded only where TLS is used, and then here, as nothing can be imported after
the jail. With unusable keys or authorities, mail for which TLS is optional is sent in the clear,
and mail that requires TLS is deferred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libmail.config import Config
from libmail.files.approved import ApprovedFiles
from libmail.tls.errors import possibly

if TYPE_CHECKING:
    from daemons.smtp.handshakes import Handshakes

__all__ = ["open_engine"]


def open_engine(
    config: Config, prefix: str, approved: ApprovedFiles | None = None
) -> Handshakes | None:
    """The TLS engine; None, with warnings, if something is unusable.

    prefix: "smtp" or "lmtp". approved: for certificates that are renewed.
    """

    def make() -> Handshakes:
        from daemons.smtp.handshakes import open_handshakes

        return open_handshakes(config, prefix, approved)

    return possibly(make)
