"""The client that a message came from first."""

from __future__ import annotations

from libmail.ipc.messages import Envelope
from libmail.queue.origin import Origin, origin_of

CLIENT = Envelope(
    "a@b.test", client_name="filter", client_address="127.0.0.1", client_port="1",
    helo_name="localhost", protocol_name="ESMTP",
)  # fmt: skip


def test_client() -> None:
    assert origin_of(CLIENT) == Origin("filter", "127.0.0.1", "1", "localhost", "ESMTP")


def test_what_was_not_said_of_the_first_client_is_not_known() -> None:
    told = CLIENT._replace(log_client_name="host.test", log_client_address="192.0.2.7")
    assert origin_of(told) == Origin("host.test", "192.0.2.7", "", "", "")


def test_identity_alone_says_nothing_of_the_client() -> None:
    assert origin_of(CLIENT._replace(log_ident="ABC")) == origin_of(CLIENT)
