"""The units of the wire, and frames whose attributes are plain text.

What `libmail.ipc.codec` derives from typed messages is done here by hand, so that sendmail(1) and
postqueue(1), which say little, need not load and derive it all first. Imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Value = str | int | Iterable[tuple[str | int, ...]]

__all__ = [
    "CHUNK_BIT",
    "CHUNK_END",
    "MAX_CHUNK",
    "MAX_FRAME",
    "WireError",
    "chunk_parts",
    "encode_chunk",
    "frame",
    "frame_attributes",
]

MAX_FRAME = 1 << 20
MAX_CHUNK = 1 << 18
CHUNK_BIT = 1 << 31
CHUNK_END = CHUNK_BIT.to_bytes(4, "big")


class WireError(Exception):
    """The peer sent something that is no message of the protocol."""


def _chunk_header(size: int) -> bytes:
    return (CHUNK_BIT | size).to_bytes(4, "big")


def chunk_parts(data: bytes) -> list[bytes | memoryview]:
    """`data`, cut into chunks, each as two parts; none for b"" (the end is `CHUNK_END`)."""
    if len(data) <= MAX_CHUNK:
        return [_chunk_header(len(data)), data] if data else []
    view = memoryview(data)
    parts: list[bytes | memoryview] = []
    for start in range(0, len(data), MAX_CHUNK):
        piece = view[start : start + MAX_CHUNK]
        parts += (_chunk_header(len(piece)), piece)
    return parts


def encode_chunk(data: bytes) -> bytes:
    """`data`, cut into chunks; nothing for b""."""
    return b"".join(chunk_parts(data))


def _words(value: Value) -> list[str]:
    if isinstance(value, (str, int)):
        return [str(int(value)) if isinstance(value, int) else value]
    items = list(value)
    return [str(len(items)), *(str(word) for item in items for word in item)]


def frame(name: str, **attributes: Value) -> bytes:
    """A frame with the message type and its attributes, in the order of the type's fields.

    A field of several elements is given as their tuples of values. Raises WireError as
    `Codec.encode` does.
    """
    words = ["request", name]
    for attribute, value in attributes.items():
        words += (attribute, *_words(value))
    if any("\0" in word for word in words):
        raise WireError(f"{name}: NUL in an attribute value")
    data = "\0".join((*words, "")).encode("utf-8", "surrogateescape")
    if len(data) > MAX_FRAME:
        raise WireError(f"{name}: {len(data)} octets, limit {MAX_FRAME}")
    return len(data).to_bytes(4, "big") + data


def frame_attributes(data: bytes, name: str) -> dict[str, str]:
    """The attributes in a frame (without the length word) of this type. Raises WireError."""
    words = data.decode("utf-8", "surrogateescape").split("\0")
    if words.pop() or len(words) % 2 or words[:1] != ["request"]:
        raise WireError("a frame that does not begin with a request name")
    if words[1] != name:
        raise WireError(f"unexpected {words[1][:40]!r}")
    return dict(zip(words[2::2], words[3::2], strict=True))
