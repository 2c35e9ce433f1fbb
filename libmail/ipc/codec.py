"""The codec of the wire between the programs of the mail system, without any I/O.

A connection carries two kinds of units, each behind a 4-byte big-endian word:

- a *frame*: the word is the length (at most `MAX_FRAME`), the content NUL-terminated attribute
  names and values. The first attribute is `request`, its value the name of the message type;
  the others follow in the order of the class's fields. A field that holds a tuple is sent
  as its count, followed by the values of its elements without their names; such fields are
  the last ones;
- a *chunk* of message content: the word has its top bit set, the rest is the length (at most
  `MAX_CHUNK`). A chunk of length zero ends the content.

A frame's first byte is therefore always 0 and a chunk's 0x80, which keeps both apart from the
printable bytes that trigger clients such as postkick(1) write.

Encoders and decoders are derived from the messages, which are NamedTuples: frozen and typed like
dataclasses, but made and formatted several times faster, on the path of every message, and
defined faster, at the start of every command. Fields: str, int, float, bool, and tuples of str or
of NamedTuples of these. Whatever does not decode to exactly the declared attributes raises
`WireError`, which names the offender.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

from libmail.ipc.frames import (
    CHUNK_BIT,
    CHUNK_END,
    MAX_CHUNK,
    MAX_FRAME,
    WireError,
    chunk_parts,
    encode_chunk,
)

__all__ = [
    "CHUNK_END",
    "MAX_CHUNK",
    "MAX_FRAME",
    "Chunk",
    "Codec",
    "Unframer",
    "WireError",
    "chunk_parts",
    "encode_chunk",
]

_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_FLOAT: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?")

_MOST_PARTS: Final = 64  # of a unit that comes in very small ones
_make: Final = cast(Callable[[type, list[object]], object], tuple.__new__)
_SMALL: Final = {str(number): number for number in range(1024)}  # most numbers are

M = TypeVar("M")


class Chunk(NamedTuple):
    """A piece of message content; empty at the end of the content."""

    data: bytes


def _integer(text: str) -> int:
    known = _SMALL.get(text)
    if known is not None:
        return known
    if _INTEGER.fullmatch(text) is None:
        raise WireError(f"not a number: {text[:40]!r}")
    return int(text)


def _float(text: str) -> float:
    if text == "0.0":
        return 0.0
    if _FLOAT.fullmatch(text) is None:
        raise WireError(f"not a number: {text[:40]!r}")
    return float(text)


def _boolean(text: str) -> bool:
    if text not in ("0", "1"):
        raise WireError(f"not a truth value: {text[:40]!r}")
    return text == "1"


Convert = Callable[[str], object] | None

_SCALARS: Final[dict[type, tuple[str, Convert]]] = {
    str: ("%s", None),
    int: ("%d", _integer),
    float: ("%r", _float),
    bool: ("%d", _boolean),
}


def _scalar(hint: object) -> tuple[str, Convert]:
    """Format and converter of a scalar field; a NewType is what it is made of."""
    return _SCALARS[cast(type, getattr(hint, "__supertype__", hint))]


def _fields(cls: type) -> list[str]:
    return list(cls.__annotations__)


class _Item:
    """Values of one tuple element, without names; it has only scalar fields."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        if cls is str:
            self.width = 1
            self.format = "%s\0"
            self.converters: list[tuple[int, Callable[[str], object]]] = []
            return
        hints = get_type_hints(cls)
        names = _fields(cls)
        self.width = len(names)
        self.format = "".join(f"{_scalar(hints[name])[0]}\0" for name in names)
        self.converters = [
            (at, convert)
            for at, name in enumerate(names)
            if (convert := _scalar(hints[name])[1]) is not None
        ]

    def encode(self, items: Iterable[object]) -> str:
        text = self.format
        return "".join([text % item for item in items])

    def decode(self, values: list[str]) -> tuple[object, ...]:
        if self.cls is str:
            return tuple(values)
        width, cls, converters = self.width, self.cls, self.converters
        items = []
        for start in range(0, len(values), width):
            fields: list[object] = [*values[start : start + width]]
            for at, convert in converters:
                fields[at] = convert(values[start + at])
            items.append(_make(cls, fields))
        return tuple(items)


class _Message(Generic[M]):
    """Encoder and decoder of one message type."""

    def __init__(self, cls: type[M]) -> None:
        self.cls = cls
        self.name = cls.__name__
        hints = get_type_hints(cls)
        self.fields = _fields(cls)
        self.items: dict[int, _Item] = {}
        parts = [f"request\0{self.name}\0"]
        self.converters: list[tuple[int, Callable[[str], object]]] = []
        for at, name in enumerate(self.fields):
            hint = hints[name]
            if get_origin(hint) is tuple:
                self.items[at] = _Item(get_args(hint)[0])
                parts.append(f"{name}\0%s")
                continue
            form, convert = _scalar(hint)
            parts.append(f"{name}\0{form}\0")
            if convert is not None:
                self.converters.append((at, convert))
        self.width = len(self.fields)
        self.names = self.fields[: self.width - len(self.items)]
        self.scalars = 2 * len(self.names)  # where the tuples begin in the attributes
        if any(at < len(self.names) for at in self.items):
            raise ValueError(f"{self.name}: a tuple before a scalar")
        self.make = cast(Callable[[type[M], list[object]], M], tuple.__new__)
        self.format = "".join(parts)
        self.nuls = 2 + 2 * self.width

    def text(self, message: M) -> str:
        nuls = self.nuls
        values = cast(tuple[object, ...], message)
        for at, item in self.items.items():
            elements = cast(tuple[object, ...], values[at])
            nuls += len(elements) * item.width
            encoded = f"{len(elements)}\0{item.encode(elements)}"
            values = (*values[:at], encoded, *values[at + 1 :])
        text = self.format % values
        if text.count("\0") != nuls:
            raise WireError(f"{self.name}: NUL in an attribute value")
        return text

    def parse(self, parts: list[str]) -> M:
        """parts: names and values by turns, after the `request` attribute."""
        end = self.scalars if self.items else None
        head, texts = parts[:end:2], parts[1:end:2]
        if head != self.names:
            raise self._mismatch(head)
        if len(texts) != len(head):
            raise WireError(f"{self.name}: a name without value")
        values: list[object] = [*texts]
        for at, convert in self.converters:
            values[at] = convert(texts[at])
        if end is not None:
            values += self._tuples(parts)
        return self.make(self.cls, values)

    def _mismatch(self, names: list[str]) -> WireError:
        got = [name[:40] for name in names[:40]]
        return WireError(f"{self.name}: got attributes {got}, want {self.fields}")

    def _tuples(self, parts: list[str]) -> list[object]:
        """The fields that hold tuples, which are the last ones."""
        at = self.scalars
        values: list[object] = []
        for number, item in self.items.items():
            if at + 1 >= len(parts) or parts[at] != self.fields[number]:
                raise self._mismatch(parts[at : at + 1])
            end = at + 2 + _integer(parts[at + 1]) * item.width
            if not at + 2 <= end <= len(parts):
                raise WireError(f"{self.name}: {self.fields[number]}: wrong number of elements")
            values.append(item.decode(parts[at + 2 : end]))
            at = end
        if at != len(parts):
            raise self._mismatch(parts[at : at + 1])
        return values


class Codec:
    """Encodes and decodes the given NamedTuples, told apart by their names."""

    def __init__(self, classes: Iterable[type]) -> None:
        self._by_class: dict[type, _Message[object]] = {c: _Message(c) for c in classes}
        self._by_name = {c.name: c for c in self._by_class.values()}
        if len(self._by_name) != len(self._by_class):
            raise ValueError("two message types of one name")

    def attributes(self, message: object) -> bytes:
        """The attributes of `message`, without the length word. Raises WireError for a NUL."""
        text = self._by_class[type(message)].text(message)
        return text.encode("utf-8", "surrogateescape")

    def encode(self, message: object) -> bytes:
        """One frame. Raises WireError when a value has a NUL or the frame gets too long."""
        data = self.attributes(message)
        if len(data) > MAX_FRAME:
            raise WireError(f"{type(message).__name__}: {len(data)} octets, limit {MAX_FRAME}")
        return len(data).to_bytes(4, "big") + data

    def decode(self, data: bytes) -> object:
        """The message in a frame (without the length word). Raises WireError."""
        parts = data.decode("utf-8", "surrogateescape").split("\0")
        if len(parts) < 3 or parts[0] != "request" or parts.pop() != "":
            raise WireError("a frame that does not begin with a request name")
        message = self._by_name.get(parts[1])
        if message is None:
            raise WireError(f"unknown request: {parts[1][:40]!r}")
        return message.parse(parts[2:])


class Unframer:
    """Cuts a byte stream into messages and content chunks.

    Feed it with `receive_data`, take units with `next_event`; None means that more bytes are
    needed. Holds at most one unit plus what was fed in one go. Raises WireError, after which
    the stream is useless.
    """

    __slots__ = ("_at", "_buffer", "_codec", "_more", "_parts")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._buffer = b""
        self._at = 0
        self._parts: list[bytes] = []  # received after _buffer
        self._more = 0  # octets of _parts

    @property
    def pending(self) -> int:
        """Octets received and not yet taken."""
        return len(self._buffer) - self._at + self._more

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the stream."""
        if self._at == len(self._buffer) and not self._parts:
            self._buffer, self._at = data, 0
            return
        self._parts.append(data)
        self._more += len(data)
        if len(self._parts) > _MOST_PARTS:
            self._join()

    def _join(self) -> None:
        self._buffer = b"".join((memoryview(self._buffer)[self._at :], *self._parts))
        self._at = self._more = 0
        self._parts.clear()

    def next_event(self) -> object | None:
        """The next message or Chunk; None when it is not complete."""
        if self._parts and len(self._buffer) < self._at + 4:
            self._join()
        start, buffer = self._at + 4, self._buffer
        if len(buffer) < start:
            return None
        word = int.from_bytes(buffer[self._at : start], "big")
        size = word & ~CHUNK_BIT
        if size > (MAX_CHUNK if word & CHUNK_BIT else MAX_FRAME):
            raise WireError(f"a unit of {size} octets")
        end = start + size
        if len(buffer) < end:
            if len(buffer) + self._more < end:
                return None
            data = self._gather(end)
        else:
            self._at = end
            data = buffer[start:end]
        return Chunk(data) if word & CHUNK_BIT else self._codec.decode(data)

    def _gather(self, end: int) -> bytes:
        """The unit that `_buffer` has the beginning of, copied once: content comes in many parts.

        end: of the unit, if all of `_parts` were in `_buffer`.
        """
        start = self._at + 4
        last = self._parts[-1]
        rest = len(self._buffer) + self._more - end
        if rest >= len(last):
            end -= self._at
            self._join()
            self._at = end
            return self._buffer[4:end]
        cut = len(last) - rest
        data = b"".join(
            (memoryview(self._buffer)[start:], *self._parts[:-1], memoryview(last)[:cut])
        )
        self._buffer, self._at = last, cut
        self._parts.clear()
        self._more = 0
        return data

    def __iter__(self) -> Iterator[object]:
        return iter(self.next_event, None)
