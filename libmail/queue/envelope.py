"""The envelope in a queue file, which outlives the version of the program that wrote it.

The attributes of a message are stored as NUL-terminated names and values, as they go over the
wire: `request`, `Envelope`, then the fields of `Envelope`. The wire is strict, because both ends
are of one version. A file may have waited through an upgrade, or through a step back. So it is
read by name: a field that is missing has its default, one that is not known is left out, and
nothing depends on their order. Only the sender has to be there.
"""

from collections.abc import Callable
from typing import Final, get_type_hints

from libmail.ipc.codec import KnownValues, WireError
from libmail.ipc.messages import CODEC, Envelope

__all__ = ["BadEnvelope", "encode_envelope", "read_envelope", "value_offset"]

_HEAD: Final = ["request", "Envelope"]
_NEEDED: Final = "sender"
_LATEST: Final = 2.0**36  # of the epoch; the year 4147


class BadEnvelope(ValueError):
    """No envelope at all, or a value that is none of its field; the text says which."""


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(text)
    return int(text)


def _float(text: str) -> float:
    """A time, which must be one that can be shown."""
    value = float(text)
    if not -_LATEST < value < _LATEST:
        raise ValueError(text)
    return value


_HINTS: Final = get_type_hints(Envelope)
_NAMES: Final = list(Envelope._fields)
_READERS: Final[dict[type, Callable[[str], object]]] = {
    int: KnownValues({str(number): number for number in range(1024)}, _integer).__getitem__,
    float: KnownValues({"0.0": 0.0}, _float).__getitem__,
}
_NUMBERS: Final = [
    (at, _READERS[_HINTS[name]]) for at, name in enumerate(_NAMES) if _HINTS[name] is not str
]
_DEFAULTS: Final = {name: str(value) for name, value in Envelope("")._asdict().items()}


def encode_envelope(envelope: Envelope) -> bytes:
    """What a file gets. Raises ValueError when a value has a NUL."""
    try:
        return CODEC.attributes(envelope)
    except WireError as err:
        raise ValueError(str(err)) from err


def read_envelope(data: bytes) -> Envelope:
    """The envelope, whatever version has written it. Raises BadEnvelope."""
    words = data.decode("utf-8", "surrogateescape").split("\0")
    if words.pop() or len(words) % 2:
        raise BadEnvelope("a name without value")
    if words[:2] != _HEAD:
        raise BadEnvelope("no envelope")
    names, texts = words[2::2], words[3::2]
    if names != _NAMES:  # of another version
        found = dict(zip(names, texts, strict=True))
        if _NEEDED not in found:
            raise BadEnvelope(f"no {_NEEDED}")
        texts = [found.get(name, _DEFAULTS[name]) for name in _NAMES]
    values: list[object] = [*texts]
    try:
        for at, reader in _NUMBERS:
            values[at] = reader(texts[at])
    except ValueError:
        raise BadEnvelope(f"{_NAMES[at]}: not a number: {texts[at][:40]!r}") from None
    return tuple.__new__(Envelope, values)


def value_offset(data: bytes, name: str) -> int | None:
    """Where the value of a field begins in `data`, an envelope; None without it."""
    field = b"\0%b\0" % name.encode()
    at = data.find(field)
    while at >= 0 and data.count(0, 0, at + 1) % 2:  # a value that looks like the name
        at = data.find(field, at + 1)
    return at + len(field) if at >= 0 else None
