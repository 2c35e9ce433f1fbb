"""lmtp(8): deliver mail by LMTP (RFC 2033). The program of smtp(8), with lmtp_ parameters.

called by: qmgr. asks: DNS. writes: the done marks. tells: bounce, defer, trace.
needs: the queue, the network, UNIX sockets of LMTP servers.
"""

from typing import Final

from daemons.smtp import Prepared, prepare, start
from libmail.service.skeleton import Service, Startup

__all__ = ["SERVICE"]


def _prepare(startup: Startup) -> Prepared:
    return prepare(startup, lmtp=True)


SERVICE: Final = Service("lmtp", _prepare, start, reads_approved=True, network=True)
