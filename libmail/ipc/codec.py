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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
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
    "KnownValues",
    "Unframer",
    "WireError",
    "chunk_parts",
    "encode_chunk",
]

_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_FLOAT: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?")

_MOST_PARTS: Final = 64  # of a unit that comes in very small ones
_WORD: Final = 4
_CHUNK_OCTET: Final = CHUNK_BIT >> 24  # in the first octet of a word
_LENGTH: Final = CHUNK_BIT - 1  # the bits of the word that are the length
_make: Final = cast(Callable[[type, Iterable[object]], object], tuple.__new__)

M = TypeVar("M")


class Chunk(NamedTuple):
    """A piece of message content; empty at the end of the content."""

    data: bytes


class KnownValues(dict[object, object]):
    """What texts stand for: the usual ones are known, others are parsed."""

    def __init__(self, usual: Mapping[object, object], parse: Callable[[str], object]) -> None:
        super().__init__(usual)
        self._parse = parse

    def __missing__(self, text: object) -> object:
        return self._parse(str(text))


def _integer(text: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise WireError(f"not a number: {text[:40]!r}")
    return int(text)


def _float(text: str) -> float:
    if _FLOAT.fullmatch(text) is None:
        raise WireError(f"not a number: {text[:40]!r}")
    return float(text)


def _boolean(text: str) -> bool:
    raise WireError(f"not a truth value: {text[:40]!r}")


Convert = Callable[[object], object]
_INTEGERS: Final = KnownValues({str(number): number for number in range(1024)}, _integer)
_FLOATS: Final = KnownValues({"0.0": 0.0}, _float)
_BOOLEANS: Final = KnownValues({"0": False, "1": True}, _boolean)

_SCALARS: Final[dict[type, tuple[str, Convert | None]]] = {
    str: ("%s", None),
    int: ("%d", _INTEGERS.__getitem__),
    float: ("%r", _FLOATS.__getitem__),
    bool: ("%d", _BOOLEANS.__getitem__),
}


def _scalar(hint: object) -> tuple[str, Convert | None]:
    """Format and converter of a scalar field; a NewType is what it is made of."""
    return _SCALARS[cast(type, getattr(hint, "__supertype__", hint))]


def _fields(cls: type) -> list[str]:
    return list(cls.__annotations__)


class _Item:
    """Values of one tuple element, without names; it has only scalar fields."""

    def __init__(self, cls: type) -> None:
        hints = [cls] if cls is str else list(get_type_hints(cls).values())
        scalars = [_scalar(hint) for hint in hints]
        self.width = len(hints)
        self.format = "".join(f"{form}\0" for form, _ in scalars)
        self._converters = [
            (at, convert) for at, (_, convert) in enumerate(scalars) if convert is not None
        ]
        self._make = None if cls is str else partial(_make, cls)

    def encode(self, items: Iterable[object]) -> str:
        text = self.format
        return "".join([text % item for item in items])

    def decode(self, texts: list[str]) -> tuple[object, ...]:
        if self._make is None:
            return tuple(texts)
        values: list[object] = [*texts]
        width = self.width
        if len(texts) == width:  # most often there is one
            for at, convert in self._converters:
                values[at] = convert(values[at])
            return (self._make(values),)
        for at, convert in self._converters:
            values[at::width] = map(convert, texts[at::width])
        return tuple(map(self._make, zip(*[iter(values)] * width, strict=True)))


class _Message(Generic[M]):
    """Encoder and decoder of one message type."""

    def __init__(self, cls: type[M]) -> None:
        self.cls = cls
        self.name = cls.__name__
        hints = get_type_hints(cls)
        self.fields = _fields(cls)
        self.items: dict[int, _Item] = {}
        parts = [f"request\0{self.name}\0"]
        self.converters: list[tuple[int, Convert]] = []
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
        self.names = self.fields[: len(self.fields) - len(self.items)]
        # Where the tuples begin in the attributes, which `request` and the name are the first of.
        self.scalars = 2 + 2 * len(self.names)
        if any(at < len(self.names) for at in self.items):
            raise ValueError(f"{self.name}: a tuple before a scalar")
        self.make = cast(Callable[[type[M], list[object]], M], tuple.__new__)
        self.format = "".join(parts)
        self.nuls = 2 + 2 * len(self.fields)

    def encode(self, message: M) -> bytes:
        """The attributes. Raises WireError for a NUL."""
        text, nuls = self._flat(message) if self.items else (self.format % message, self.nuls)
        if text.count("\0") != nuls:
            raise WireError(f"{self.name}: NUL in an attribute value")
        return text.encode("utf-8", "surrogateescape")

    def _flat(self, message: M) -> tuple[str, int]:
        """The text of a message with tuples, and how many NULs there have to be."""
        nuls = self.nuls
        values: list[tuple[object, ...] | str] = [*message]  # type: ignore[misc]  # it is a tuple
        for at, item in self.items.items():
            elements = values[at]
            nuls += len(elements) * item.width
            values[at] = f"{len(elements)}\0{item.encode(elements)}"
        return self.format % tuple(values), nuls

    def decode(self, parts: list[str]) -> M:
        """parts: names and values by turns. Raises WireError."""
        end = self.scalars
        if parts[2:end:2] != self.names or len(parts) < end:
            raise self._mismatch(parts[2:])
        values: list[object] = [*parts[3:end:2]]
        for at, convert in self.converters:
            values[at] = convert(values[at])
        if self.items:
            values += self._tuples(parts)
        elif len(parts) > end:
            raise self._mismatch(parts[2:])
        return self.make(self.cls, values)

    def _mismatch(self, words: list[str]) -> WireError:
        """words: names and values by turns."""
        if len(words) % 2:
            return WireError(f"{self.name}: a name without value")
        got = [name[:40] for name in words[:80:2]]
        return WireError(f"{self.name}: got attributes {got}, want {self.fields}")

    def _tuples(self, parts: list[str]) -> list[object]:
        """The fields that hold tuples, which are the last ones."""
        at = self.scalars
        values: list[object] = []
        for number, item in self.items.items():
            if at + 1 >= len(parts) or parts[at] != self.fields[number]:
                raise self._mismatch(parts[at : at + 2])
            end = at + 2 + cast(int, _INTEGERS[parts[at + 1]]) * item.width
            if not at + 2 <= end <= len(parts):
                raise WireError(f"{self.name}: {self.fields[number]}: wrong number of elements")
            values.append(item.decode(parts[at + 2 : end]))
            at = end
        if at != len(parts):
            raise self._mismatch(parts[at : at + 2])
        return values


class Codec:
    """Encodes and decodes the given NamedTuples, told apart by their names."""

    def __init__(self, classes: Iterable[type], usual: Iterable[object] = ()) -> None:
        """usual: messages that mostly come with just these values; they are recognised at once."""
        self._by_class: dict[type, _Message[object]] = {c: _Message(c) for c in classes}
        self._by_name = {c.name: c for c in self._by_class.values()}
        if len(self._by_name) != len(self._by_class):
            raise ValueError("two message types of one name")
        self._usual = {self.attributes(message): message for message in usual}

    def attributes(self, message: object) -> bytes:
        """The attributes of `message`, without the length word. Raises WireError for a NUL."""
        return self._by_class[type(message)].encode(message)

    def encode(self, message: object) -> bytes:
        """One frame. Raises WireError when a value has a NUL or the frame gets too long."""
        data = self._by_class[type(message)].encode(message)
        if len(data) > MAX_FRAME:
            raise WireError(f"{type(message).__name__}: {len(data)} octets, limit {MAX_FRAME}")
        return len(data).to_bytes(4, "big") + data

    def decode(self, data: bytes) -> object:
        """The message in a frame (without the length word). Raises WireError."""
        usual = self._usual.get(data)
        if usual is not None:
            return usual
        parts = data.decode("utf-8", "surrogateescape").split("\0")
        if len(parts) < 3 or parts[0] != "request" or parts.pop() != "":
            raise WireError("a frame that does not begin with a request name")
        message = self._by_name.get(parts[1])
        if message is None:
            raise WireError(f"unknown request: {parts[1][:40]!r}")
        return message.decode(parts)

    def first(self, data: bytes) -> tuple[object, int]:
        """The message that `data` begins with, and the octets that it has there with its length.

        For streams that go on in another protocol. Raises WireError, also if it is not complete.
        """
        end = _WORD + int.from_bytes(data[:_WORD], "big")
        if len(data) < max(end, _WORD) or end > _WORD + MAX_FRAME:
            raise WireError("no whole message")
        return self.decode(data[_WORD:end]), end


class Unframer:
    """Cuts a byte stream into messages and content chunks.

    Feed it with `receive_data`, take units with `next_event`; None means that more bytes are
    needed. Holds at most one unit that is not complete, and what was not taken. Raises WireError
    behind the last good unit, after which the stream is useless.
    """

    __slots__ = ("_codec", "_end", "_parts", "error", "pending", "units")

    def __init__(self, codec: Codec) -> None:
        """units: those that are complete. pending: octets of the one that is not. error: what is
        wrong with what follows, None for nothing."""
        self._codec = codec
        self.units: Final[deque[object]] = deque()
        self.error: WireError | None = None
        self._parts: list[bytes] = []  # of a unit that is not complete, its word in the first
        self.pending = 0
        self._end = 0  # octets that this unit will have with its word, or those of the word

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the stream."""
        if self.error is not None:
            return
        try:
            if self._parts:
                data = self._go_on(data)
                if not data:
                    return
            rest = self._cut(data)
        except WireError as err:
            self.error = err
            self.pending += len(data)
            return
        if rest < len(data):
            self._parts.append(data[rest:] if rest else data)
            self.pending = len(data) - rest

    def _cut(self, data: bytes) -> int:
        """Take the complete units. Returns where they end. Raises WireError."""
        at, size = 0, len(data)
        self._end = _WORD
        while size - at >= _WORD:
            word = int.from_bytes(data[at : at + _WORD], "big")
            end = at + _WORD + (word & _LENGTH)
            if end > size:
                self._end = end - at
                if self._end - _WORD > (MAX_CHUNK if word & CHUNK_BIT else MAX_FRAME):
                    raise WireError(f"a unit of {self._end - _WORD} octets")
                break
            unit = data[at + _WORD : end]
            self.units.append(Chunk(unit) if word & CHUNK_BIT else self._codec.decode(unit))
            at = end
        return at

    def _go_on(self, data: bytes) -> bytes:
        """More of the unit that is not complete. Returns what is still to be cut."""
        parts = self._parts
        parts.append(data)
        self.pending += len(data)
        if self.pending < self._end:
            if len(parts) > _MOST_PARTS:
                self._parts = [b"".join(parts)]
            return b""
        end = len(data) - (self.pending - self._end)
        self._parts, self.pending = [], 0
        if self._end == _WORD:
            return b"".join(parts)
        last = memoryview(data)[:end]  # content is copied once, though it comes in many parts
        unit = b"".join((memoryview(parts[0])[_WORD:], *parts[1:-1], last))
        is_chunk = parts[0][0] & _CHUNK_OCTET
        self.units.append(Chunk(unit) if is_chunk else self._codec.decode(unit))
        return data[end:]

    def next_event(self) -> object | None:
        """The next message or Chunk; None when it is not complete."""
        if self.units:
            return self.units.popleft()
        if self.error is not None:
            raise self.error
        return None

    def __iter__(self) -> Iterator[object]:
        return iter(self.next_event, None)
