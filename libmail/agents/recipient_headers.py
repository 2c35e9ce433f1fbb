"""flags=D and flags=O of pipe(8), smtp(8), lmtp(8): headers that tell of one recipient."""

from libmail.agents.delivery import Bounced, Deferred, Delivery
from libmail.log import LOG
from libmail.message.delivered_to import earlier_recipients, had_before

__all__ = ["recipient_header_obstacle"]


def recipient_header_obstacle(
    delivery: Delivery, *, delivered_to: bool, original_to: bool, called: str = "flag"
) -> Deferred | Bounced | None:
    """Why the message cannot go out with Delivered-To or X-Original-To in front; None if it can.

    It must be for one recipient only, who (with Delivered-To) has not had it before. called: what a
    warning calls the flag.
    """
    recipients, service = delivery.request.recipients, delivery.request.transport
    for wanted, letter in ((delivered_to, "D"), (original_to, "O")):
        if wanted and len(recipients) > 1:
            limit = f"{service}_destination_recipient_limit = 1"
            LOG.warning(f"{called} `{letter}' requires {limit}")
            return Deferred("4.3.5", "mail system configuration error", service)
    if not delivered_to:
        return None
    address = recipients[0].address
    if not had_before(address, earlier_recipients(delivery.file.header())):
        return None
    return Bounced("5.4.6", f"mail forwarding loop for {address}", service)
