"""postscreen(8): keeps spambots away from the SMTP server, by tests that mail servers pass.

Called by: clients in the network. Asks: dnsblog (DNS lists), tlsproxy (STARTTLS), proxymap (shared
tables). Writes: postscreen_cache_map. Tells: nobody. Hands over: clients that pass, with their
socket, to the service smtpd_service_name, of type pass.

Needs: its tables open before the jail; after it private/dnsblog, private/tlsproxy, private/smtpd.

screen_tests    the tests, and how long a result is valid (pure)
screening       the state of one client: tests passed and failed, and what follows (pure)
dnsbl           postscreen_dnsbl_sites, and the score of a client (pure)
access          postscreen_access_list
engine          the built-in SMTP engine, for clients that failed or have deep tests to pass (pure);
                verbs: its commands; replies: soft_bounce and footers
session         one client from its connection to its end: performs the tests; client_socket;
                upstream: the PROXY protocol; handover: to smtpd
front           what sessions share; scores: lookups of DNS lists; result_cache: known clients
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


SERVICE: Final = Service(
    "postscreen",
    _prepare,
    _start,
    shared=True,
    all_comers=True,
    network=True,
    watchdog="postscreen_watchdog_timeout",
)
