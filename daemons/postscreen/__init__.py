"""postscreen(8): who may talk to the SMTP server? Keeps those away that only bots are like.

called by: clients in the network. asks: dnsblog (DNS lists), proxymap (shared tables). writes:
postscreen_cache_map. tells: nobody. hands over: clients that pass, with their socket, to the
service smtpd_service_name, of type pass.

needs: its tables open before the jail; after it private/dnsblog, private/smtpd and the network.

trials      what tests there are, and how long a pass is remembered (pure)
trial       one client: what it passed and failed, and what follows (pure)
dnsbl       postscreen_dnsbl_sites, and scores (pure)
access      postscreen_access_list
engine      its own SMTP, for clients that failed or have to pass deeper tests; verbs, replies
session     a client from arrival to end; visitor: its socket; upstream: PROXY; handover
front       what sessions share; scores: of DNS lists; memory: of clients that were here
"""

from typing import Final

from daemons.postscreen.front import Front
from daemons.postscreen.prepared import Prepared, prepare
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE"]


def _prepare(startup: Startup) -> Prepared:
    return prepare(startup.config)


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    return Handlers(connection=Front(prepared, runtime).accept)


SERVICE: Final = Service("postscreen", _prepare, _start, shared=True)
