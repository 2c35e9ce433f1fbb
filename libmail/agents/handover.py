"""Passing a message on to another agent, as mailbox_transport and best_mx_transport say."""

import asyncio

from libmail.agents.delivery import Delivery
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    AgentReady,
    DeliverReply,
    DeliverRequest,
    Nexthop,
    Recipient,
    TraceFlag,
    Transport,
)
from libmail.log import LOG
from libmail.service.connection import ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable

__all__ = ["hand_over"]


def _request(delivery: Delivery, recipient: Recipient, sender: str, spec: str) -> DeliverRequest:
    transport, _, nexthop = spec.partition(":")
    request = delivery.request
    return request._replace(
        flags=request.flags & sum(TraceFlag),
        transport=Transport(transport),
        nexthop=Nexthop(nexthop) or request.nexthop,
        sender=sender,
        # The record in the queue file is ours to mark.
        recipients=(recipient._replace(offset=0),),
    )


async def hand_over(
    delivery: Delivery, recipient: Recipient, sender: str, spec: str, timeout: float
) -> bool:
    """Have "transport:nexthop" deliver, which logs and reports. Returns whether that is final.

    Raises ServiceUnavailable when nobody did anything.
    """
    request = _request(delivery, recipient, sender, spec)
    LOG.info(f"{request.queue_id}: passing <{recipient.address}> to transport={request.transport}")
    pool = ServicePool(f"private/{request.transport}", idle=0.0, timeout=timeout)
    connection = await pool.connect()
    try:
        async with asyncio.timeout(timeout):
            await connection.receive_as(AgentReady)
            connection.send_with(request, (delivery.file.fd,))
            reply = await connection.receive_as(DeliverReply)
    except (ConnectionLost, WireError, TimeoutError) as err:
        raise ServiceUnavailable(f"{pool.path}: {err or 'lost connection'}") from err
    finally:
        pool.discard(connection)
    return not reply.deferred
