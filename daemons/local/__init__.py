"""local(8): deliver to the users of this system, and expand aliases.

called by: qmgr, local. asks: alias_maps and the other tables, trivial-rewrite, the user database.
writes: mailboxes, Maildirs, files, to commands; the done mark. tells: bounce, defer, trace; cleanup
(what is forwarded), other delivery agents (mailbox_transport). needs: root, to act as users.

Deliveries go on side by side. What is done with the files of a user is done by threads, each of
which acts as that user; the event loop stays root, and touches none of them. The work is in
`recipient`; `stage` is what it hands from step to step.
"""

from typing import Final

from daemons.local.clients import Clients
from daemons.local.params import Settings, prepare
from daemons.local.recipient import RecipientDelivery
from libmail.agents.delivery import Delivery, DeliveryServices, delivery_handlers
from libmail.clients.cleanup import CleanupClient
from libmail.clients.rewrite import RewriteClient
from libmail.message.delivered_to import earlier_recipients
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service
from libmail.service.workers import Workers

__all__ = ["SERVICE"]


async def _start(settings: Settings, runtime: Runtime) -> Handlers:
    params = settings.params
    clients = Clients(
        RewriteClient(
            ServicePool(f"private/{params.rewrite_service_name}", timeout=params.ipc_timeout)
        ),
        CleanupClient(
            ServicePool(f"public/{params.cleanup_service_name}", timeout=params.ipc_timeout),
            timeout=params.ipc_timeout,
        ),
        Workers.acting(),
    )

    async def agent(delivery: Delivery) -> None:
        loops = earlier_recipients(delivery.file.header())
        for recipient in delivery.request.recipients:
            await RecipientDelivery(settings, clients, delivery, loops).deliver(recipient)

    return delivery_handlers(
        runtime, agent, DeliveryServices.of(settings.delivery, settings.status_filter)
    )


SERVICE: Final = Service("local", prepare, _start, threads=True, commands=True)
