"""The SMTP client that a message came from first, by its envelope."""

from typing import NamedTuple

from libmail.ipc.messages import Envelope

__all__ = ["Origin", "origin_of"]


class Origin(NamedTuple):
    """What is known of a client, "" for the rest."""

    name: str
    address: str
    port: str
    helo: str
    protocol: str


def origin_of(envelope: Envelope) -> Origin:
    """Of the client that XFORWARD told of, nothing but what it said is known."""
    if (
        envelope.log_client_name
        or envelope.log_client_address
        or envelope.log_client_port
        or envelope.log_helo_name
        or envelope.log_protocol_name
    ):
        return Origin(
            envelope.log_client_name,
            envelope.log_client_address,
            envelope.log_client_port,
            envelope.log_helo_name,
            envelope.log_protocol_name,
        )
    return Origin(
        envelope.client_name,
        envelope.client_address,
        envelope.client_port,
        envelope.helo_name,
        envelope.protocol_name,
    )
