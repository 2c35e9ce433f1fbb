"""flags=D and flags=O: for one recipient, who has not had the message before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from libmail.agents.delivery import Bounced, Deferred, Delivery
from libmail.agents.recipient_headers import recipient_header_obstacle
from libmail.ipc.messages import Recipient
from libmail.message.delivered_to import earlier_recipients

HEADER = (
    b"Subject: x\r\nX-Delivered-To: no@x.test\r\ndelivered-to: One@X.test\r\n"
    b'Delivered-To: "two words"@x.test\r\nDelivered-To : Three@x.test \r\nTo: no@x.test\r\n'
)
# Not what a delivery wrote: folded, with brackets, with a comment.
OTHERS = b"Delivered-To:\r\n a@x.test\r\nDelivered-To: <b@x.test>\r\nDelivered-To: c@x.test (d)\r\n"


def test_earlier_recipients() -> None:
    assert earlier_recipients(HEADER) == {"one@x.test", "two words@x.test", "three@x.test"}
    assert earlier_recipients(b"") == frozenset()
    assert not earlier_recipients(OTHERS) & {"a@x.test", "b@x.test", "c@x.test"}


def obstacle(*addresses: str, flags: str) -> Deferred | Bounced | None:
    recipients = tuple(Recipient(address) for address in addresses)
    request = SimpleNamespace(recipients=recipients, transport="box")
    delivery = SimpleNamespace(request=request, file=SimpleNamespace(header=lambda: HEADER))
    return recipient_header_obstacle(
        cast(Delivery, delivery), delivered_to="D" in flags, original_to="O" in flags
    )


CONFIG = Deferred("4.3.5", "mail system configuration error", "box")


@pytest.mark.parametrize(
    ("addresses", "flags", "outcome"),
    [
        (("a@x.test",), "DO", None),
        (("one@x.test",), "O", None),
        (("ONE@x.test",), "D", Bounced("5.4.6", "mail forwarding loop for ONE@x.test", "box")),
        (("a@x.test", "b@x.test"), "", None),
        (("a@x.test", "b@x.test"), "D", CONFIG),
        (("a@x.test", "b@x.test"), "O", CONFIG),
    ],
)
def test_obstacle(
    addresses: tuple[str, ...], flags: str, outcome: Deferred | Bounced | None
) -> None:
    assert obstacle(*addresses, flags=flags) == outcome
