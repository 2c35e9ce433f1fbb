"""The state of a message that comes by BDAT, RFC 3030 §2."""

from dataclasses import dataclass

__all__ = ["Chunks"]


@dataclass(slots=True)
class Chunks:
    """What the BDAT commands of one message have announced, from the first one to the last.

    octets: of all chunks that were taken. refused: one was not, so that no later one is: what
    would be delivered is not what was sent. discarded: octets of chunks that were not taken.
    """

    octets: int = 0
    refused: bool = False
    discarded: int = 0
