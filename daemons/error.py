"""error(8) and retry(8): deliver nothing, for the reason given as next hop.

called by: qmgr. asks: nobody. writes: the done mark. tells: bounce or defer. needs: the queue.

The service named "error" returns mail; the same program under any other name, such as "retry",
defers it. The next hop is the reason, with an enhanced status code at its start if it is not to be
5.0.0 (4.0.0).
"""

from typing import Final

from libmail.agents.delivery import (
    Bounced,
    Deferred,
    Delivery,
    DeliveryParams,
    DeliveryServices,
    delivery_handlers,
)
from libmail.dsn.codes import split_dsn
from libmail.log import LOG
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "checked"]


def checked(dsn: str, wanted: str, action: str) -> str:
    """The status, or one that says nothing where its class does not fit what happens."""
    if dsn.startswith(wanted):
        return dsn
    LOG.warning(f'{action}: ignoring dsn code "{dsn}"')
    return f"{wanted}.0.0"


async def _return(delivery: Delivery) -> None:
    dsn, reason = split_dsn(delivery.request.nexthop, "5.0.0")
    outcome = Bounced(checked(dsn, "5", "bounce_append"), reason, relay="none")
    await delivery.finish_all(delivery.request.recipients, outcome)


async def _defer(delivery: Delivery) -> None:
    dsn, reason = split_dsn(delivery.request.nexthop, "4.0.0")
    outcome = Deferred(checked(dsn, "4", "defer_append"), reason, relay="none")
    await delivery.finish_all(delivery.request.recipients, outcome)


def _prepare(startup: Startup) -> DeliveryParams:
    return startup.config.load(DeliveryParams)


async def _start(params: DeliveryParams, runtime: Runtime) -> Handlers:
    agent = _return if runtime.service == "error" else _defer
    return delivery_handlers(runtime, agent, DeliveryServices.of(params))


SERVICE: Final = Service("error", _prepare, _start)
