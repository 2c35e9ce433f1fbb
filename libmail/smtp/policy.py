r"""The policy delegation protocol, without sockets (SMTPD_POLICY_README).

A request is lines "name=value" and an empty line; the answer is the same, with the attribute
"action", whose value is what an access(5) table could have as a result.
"""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["PolicyAnswer", "PolicyError", "encode_request"]

_MAX_ANSWER: Final = 65536
_PLAIN: Final = re.compile(rb"action=([^\n]*)\n\n")  # what most servers say
_LINE_ENDS: Final = str.maketrans({"\n": "?", "\r": "?", "\0": "?"})


class PolicyError(Exception):
    """The server's answer is none. The text is printable."""


def encode_request(attributes: Iterable[tuple[str, str]]) -> bytes:
    """The wire form of a request; what cannot stand in a value becomes a question mark."""
    lines = [f"{name}={value}\n" for name, value in attributes]
    text = "".join(lines)
    if text.count("\n") != len(lines) or "\r" in text or "\0" in text:
        text = "".join([f"{line[:-1].translate(_LINE_ENDS)}\n" for line in lines])
    return f"{text}\n".encode("utf-8", "surrogateescape")


class PolicyAnswer:
    """Collects one answer. Bytes in, the action out."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def receive_data(self, data: bytes) -> str | None:
        """Take bytes; the action when the answer is complete, None before. Raises PolicyError."""
        plain = None if self._buffer else _PLAIN.fullmatch(data)
        if plain is not None:
            return plain[1].decode("utf-8", "surrogateescape").strip()
        start = max(0, len(self._buffer) - 3)
        self._buffer += data
        buffer = self._buffer
        if buffer.startswith((b"\n", b"\r\n")):
            raise PolicyError("answer without attributes")
        end = min((at for end in (b"\n\n", b"\n\r\n") if (at := buffer.find(end, start)) >= 0),
                  default=-1)  # fmt: skip
        if end < 0:
            if len(buffer) > _MAX_ANSWER:
                raise PolicyError("answer too long")
            return None
        if buffer[end:].strip(b"\r\n"):
            raise PolicyError("more than one answer")
        return _action(buffer[:end].decode("utf-8", "surrogateescape"))


def _action(text: str) -> str:
    found: str | None = None
    for line in text.split("\n"):
        name, equals, value = line.rstrip("\r").partition("=")
        if not equals:
            raise PolicyError(f"malformed attribute: {line[:80]!a}")
        if name.strip() == "action":
            found = value.strip()
    if found is None:
        raise PolicyError("answer without action")
    return found
