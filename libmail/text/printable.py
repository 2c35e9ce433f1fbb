"""Text that comes from elsewhere, made fit to be shown: the one place that decides what is.

All output to terminals, logs, JSON, reports and header fields of our own goes through here. A
control character could move the cursor, set a title or begin a line of its own; an octet that is no
UTF-8 breaks whatever reads the output; a bidirectional control makes a reader see another text
than the one that is there. Each becomes one "?".

Loaded by every short-lived command: no module is imported for it.
"""

from __future__ import annotations

import sys

__all__ = ["complain", "printable", "printable_octets", "without_controls"]

# C0, DEL, C1; Arabic letter mark, left-to-right and right-to-left marks; separators of lines and
# paragraphs; embeddings, overrides, isolates; annotations; surrogates (octets that are no UTF-8);
# tags. Other format characters (joiners, soft hyphens) belong to the text of some language.
_CONTROLS = dict.fromkeys((*range(0x20), 0x7F), "?")
_UNPRINTABLE = dict.fromkeys(
    (*_CONTROLS, *range(0x80, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F),
     *range(0x2066, 0x206A), *range(0xFFF9, 0xFFFC), *range(0xD800, 0xE000),
     *range(0xE0000, 0xE0080)), "?"
)  # fmt: skip


def printable(text: str) -> str:
    """The text, with "?" for each character that must not be shown."""
    return text if text.isprintable() else text.translate(_UNPRINTABLE)


def printable_octets(text: str) -> str:
    """The same for readers of ASCII: "?" for each octet of what is not."""
    if text.isascii() and text.isprintable():
        return text
    octets = text.encode("utf-8", "surrogateescape")
    return "".join(chr(octet) if 32 <= octet < 127 else "?" for octet in octets)


def without_controls(text: str) -> str:
    """The text, with "?" for ASCII controls; octets that are no UTF-8 stay, as in header fields."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def complain(program: str, text: str) -> None:
    """Write `PROGRAM: text` to standard error, on one line, after what standard output has."""
    try:
        sys.stdout.flush()
    except (AttributeError, OSError):
        pass  # there is none, or nobody reads it: whoever writes to it will see
    sys.stderr.write(f"{program}: {printable(text)}\n")
