r"""What a peer has said, as in a string of C: `\r`, `\033`, `\377`, as the original logs it."""

from typing import Final

__all__ = ["escaped", "escaped_octets"]

_CONTROLS: Final = {
    **{code: f"\\{code:03o}" for code in (*range(32), 127)},
    **{
        ord(char): f"\\{letter}"
        for char, letter in zip("\a\b\f\n\r\t\v\\", "abfnrtv\\", strict=True)
    },
}
_OCTETS: Final = {**_CONTROLS, **{octet: f"\\{octet:03o}" for octet in range(128, 256)}}


def escaped(text: str) -> str:
    """Text, whose control characters are escaped."""
    return text.translate(_CONTROLS)


def escaped_octets(data: bytes) -> str:
    """Octets, of which those that are no printable ASCII are escaped."""
    return data.decode("latin-1").translate(_OCTETS)
