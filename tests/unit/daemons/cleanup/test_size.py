"""The sizes are those that a Postfix made of the same messages."""

from __future__ import annotations

import pytest

from daemons.cleanup.size import envelope_size, exceeds
from libmail.ipc.messages import Envelope, QueueId, Recipient

LOCAL = Envelope("carol@example.test", full_name="root")
ALICE = Recipient("alice@example.test", "alice", "rfc822;alice@example.test")
REMOTE = Envelope(
    "a@example.test",
    client_name="localhost",
    reverse_client_name="localhost",
    client_address="127.0.0.1",
    client_port="40000",
    helo_name="client.example.org",
    protocol_name="ESMTP",
    server_address="127.0.0.1",
    server_port="25",
)
TWO = (
    Recipient("bob@example.test", "bob@example.test"),
    Recipient("carol@example.test", "carol@example.test"),
)


@pytest.mark.parametrize(
    ("envelope", "recipients", "size"), [(LOCAL, (ALICE,), 536 - 273), (REMOTE, TWO, 1050 - 295)]
)
def test_envelope(envelope: Envelope, recipients: tuple[Recipient, ...], size: int) -> None:
    assert envelope_size(QueueId("ABCDEF1"), envelope, recipients) == size


@pytest.mark.parametrize(("limit", "large"), [(535, True), (536, False), (1_000_000, False)])
def test_limit(limit: int, large: bool) -> None:
    assert exceeds(limit, 273, QueueId("ABCDEF1"), LOCAL, [ALICE]) is large
