"""Finding line ends that are out of place in message content.

These searches run over every octet of every message.
"""

from typing import Final

from libmail.text.search import contains

__all__ = ["has_bare_newline", "has_doubled_return", "has_leading_dot", "has_stray_line_end"]

has_stray_line_end: Final = contains(rb"(?<!\r)\n|\r(?!\n)")
"""Whether there is a CR without LF behind it, or an LF without CR before it."""

has_bare_newline: Final = contains(rb"(?<!\r)\n")
"""Whether there is an LF without CR before it."""

has_doubled_return: Final = contains(rb"\r\r\n")
"""Whether a line ends in more than one CR and an LF."""

has_leading_dot: Final = contains(rb"\n\.")
"""Whether a line, other than the first, begins with a dot."""
