"""pickup(8): take mail from local users, by its socket and from the maildrop directory.

called by: sendmail (SubmitOpen), master (wake-up), inotify. asks: cleanup. writes: nothing of its
own; removes maildrop files that are in the queue. tells: nobody. needs: mail_owner, the queue.

What a user says about himself is not believed: who it is tells the kernel, by SO_PEERCRED or as
the owner of the file.
"""

from typing import Final

from daemons.pickup.maildrop import Maildrop
from daemons.pickup.params import PickupParams, Prepared, prepare
from daemons.pickup.submit import Submitter
from libmail.clients.cleanup import CleanupClient
from libmail.ipc.codec import WireError
from libmail.ipc.messages import SubmitOpen
from libmail.service.connection import Connection, Trigger
from libmail.service.exchanges import exchanges
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service

__all__ = ["SERVICE", "PickupParams"]


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    params = prepared.params
    pool = ServicePool(f"public/{params.cleanup_service_name}", timeout=params.ipc_timeout)
    submitter = Submitter(prepared, CleanupClient(pool, timeout=params.ipc_timeout))
    maildrop = Maildrop(prepared, submitter)
    maildrop.begin(runtime)

    async def serve(connection: Connection) -> None:
        while True:
            message = await submitter.receive(connection)
            if isinstance(message, Trigger):
                maildrop.look()
            elif isinstance(message, SubmitOpen):
                if not await submitter.serve(connection, message):
                    return
            else:
                raise WireError(f"unexpected {type(message).__name__}")

    maildrop.look()
    return Handlers(stream=exchanges(runtime, serve, anyone=True), drain=maildrop.stop)


SERVICE: Final = Service("pickup", prepare, _start, permanent=True)
