"""Finding line ends that are out of place in message content, at memory speed.

These searches run over every octet of every message. The just-in-time compiler of libpcre2 does
them several times faster than any method of `bytes` or module re (1 MB of text: 0.1 ms, against
0.8 ms and more); without the library, module re serves.
"""

import re
from collections.abc import Callable
from typing import Final

from libmail.text.pcre2 import FFI, JIT_COMPLETE, LIBRARY, Functions

__all__ = ["has_bare_newline", "has_doubled_return", "has_leading_dot", "has_stray_line_end"]

Search = Callable[[bytes], bool]


def _with_re(pattern: bytes) -> Search:
    search = re.compile(pattern).search
    return lambda data: search(data) is not None


def _with_pcre2(library: Functions, pattern: bytes) -> Search | None:
    """None where there is no just-in-time compiler."""
    error, offset, null = FFI.new("int *"), FFI.new("size_t *"), FFI.NULL
    raw = library.pcre2_compile_8(pattern, len(pattern), 0, error, offset, null)
    if raw == null or library.pcre2_jit_compile_8(raw, JIT_COMPLETE) != 0:
        return None
    code = FFI.gc(raw, library.pcre2_code_free_8)
    space = FFI.gc(library.pcre2_match_data_create_8(1, null), library.pcre2_match_data_free_8)
    match = library.pcre2_jit_match_8
    return lambda data: match(code, data, len(data), 0, 0, space, null) >= 0


def _search(pattern: bytes) -> Search:
    found = None if LIBRARY is None else _with_pcre2(LIBRARY, pattern)
    return found or _with_re(pattern)


has_stray_line_end: Final = _search(rb"(?<!\r)\n|\r(?!\n)")
"""Whether there is a CR without LF behind it, or an LF without CR before it."""

has_bare_newline: Final = _search(rb"(?<!\r)\n")
"""Whether there is an LF without CR before it."""

has_doubled_return: Final = _search(rb"\r\r\n")
"""Whether a line ends in more than one CR and an LF."""

has_leading_dot: Final = _search(rb"\n\.")
"""Whether a line, other than the first, begins with a dot."""
