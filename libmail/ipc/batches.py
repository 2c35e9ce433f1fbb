"""Many elements on their way over the wire: as many in a frame as fit.

The fields of an element are bounded where they enter the mail system, but not their number: a
count alone does not keep a frame below `MAX_FRAME`.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["batches", "octets"]

_ROOM: Final = 1 << 19  # octets in a frame, half of what one may have
_FEW: Final = 8  # elements that fit whatever they are

T = TypeVar("T", bound=str | tuple[object, ...])


def octets(element: str | tuple[object, ...]) -> int:
    """About how many an element has in a frame, rather more than less."""
    fields: tuple[object, ...] = (element,) if isinstance(element, str) else element
    text = "".join([field for field in fields if isinstance(field, str)])
    # For each field what ends it, and a number has.
    return 24 * len(fields) + (len(text) if text.isascii() else 4 * len(text))


def batches(elements: Sequence[T], most: int) -> Iterator[tuple[T, ...]]:
    """The elements in groups that fit into a frame, at most so many in each; none for none."""
    if len(elements) <= min(most, _FEW):
        if elements:
            yield tuple(elements)
        return
    group: list[T] = []
    room = _ROOM
    for element in elements:
        size = octets(element)
        if group and (size > room or len(group) == most):
            yield tuple(group)
            group, room = [], _ROOM
        group.append(element)
        room -= size
    yield tuple(group)
