"""discard(8): report success, deliver nothing; the next hop is the reason that is logged.

called by: qmgr. asks: nobody. writes: the done mark. tells: trace. needs: the queue.
"""

from typing import Final

from libmail.agents.delivery import (
    Delivery,
    DeliveryParams,
    DeliveryServices,
    Sent,
    delivery_handlers,
)
from libmail.dsn.codes import adapt_class, split_dsn
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE"]


async def _discard(delivery: Delivery) -> None:
    dsn, reason = split_dsn(delivery.request.nexthop, "2.0.0")
    outcome = Sent(dsn=adapt_class(dsn, "2"), reason=reason, relay="none", action="delivered")
    await delivery.finish_all(delivery.request.recipients, outcome)


def _prepare(startup: Startup) -> DeliveryParams:
    return startup.config.load(DeliveryParams)


async def _start(params: DeliveryParams, runtime: Runtime) -> Handlers:
    return delivery_handlers(runtime, _discard, DeliveryServices.of(params))


SERVICE: Final = Service("discard", _prepare, _start)
