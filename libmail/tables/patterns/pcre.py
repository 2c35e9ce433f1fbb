"""pcre:/path - Perl compatible regular expressions, by libpcre2 with its just-in-time compiler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from libmail.tables.patterns.rules import Groups, Matcher, PatternError, RuleTable, open_rules
from libmail.tables.table import TableConfigError, TableOptions
from libmail.text.pcre2 import FFI, JIT_COMPLETE, LIBRARY, LIBRARY_NAME, Functions

__all__ = ["PcreEngine", "open_named"]

_CASELESS: Final = 0x00000008
_MULTILINE: Final = 0x00000400
_DOTALL: Final = 0x00000020
_EXTENDED: Final = 0x00000080
_ANCHORED: Final = 0x80000000
_DOLLAR_ENDONLY: Final = 0x00000010
_UNGREEDY: Final = 0x00040000
_UTF: Final = 0x00080000
_INFO_CAPTURECOUNT: Final = 4
_MESSAGE_SIZE: Final = 256
_NO_MATCH: Final = -1
_UNSET: Final = (1 << 64) - 1, (1 << 32) - 1

# Letter: option bit, whether it is on by default.
_FLAGS: Final = {
    "i": (_CASELESS, True),
    "m": (_MULTILINE, False),
    "s": (_DOTALL, True),
    "x": (_EXTENDED, False),
    "A": (_ANCHORED, False),
    "E": (_DOLLAR_ENDONLY, False),
    "U": (_UNGREEDY, False),
    "X": (0, False),  # of PCRE1; has no meaning here
}


class PcreMatcher:
    """One pattern, compiled by pcre2_compile."""

    def __init__(
        self,
        engine: PcreEngine,
        library: Functions,
        code: object,
        data: object,
        groups: int,
    ) -> None:
        self.groups = groups
        self._engine = engine
        self._code = code
        self._data = data
        self._match = library.pcre2_match_8
        self._null = engine.null
        self._spans = library.pcre2_get_ovector_pointer_8(data)

    def matches(self, subject: bytes) -> bool:
        """Tell whether the pattern matches somewhere in the subject."""
        size, null = len(subject), self._null
        count = self._match(self._code, subject, size, 0, 0, self._data, null)
        if count < _NO_MATCH:
            raise PatternError(self._engine.message(count))
        return count >= 0

    def find(self, subject: bytes) -> Groups | None:
        """Return what the groups matched; a group that took no part is empty."""
        if not self.matches(subject):
            return None
        spans = list(self._spans[0 : 2 * self.groups + 2])
        return [
            b"" if start in _UNSET else subject[start:end]
            for start, end in zip(spans[::2], spans[1::2], strict=True)
        ]


class PcreEngine:
    """Compiles with libpcre2, for matching byte by byte."""

    kind = "pcre"
    flags = "".join(_FLAGS)
    obsolete = "X"
    skipping = "ignoring"
    no_group = "out of range"
    second = False

    def __init__(self) -> None:
        if LIBRARY is None:
            raise TableConfigError(f"unsupported dictionary type: pcre: no {LIBRARY_NAME}")
        self._ffi = FFI
        self.null = FFI.NULL
        self._library = LIBRARY

    def compile(self, pattern: bytes, flags: frozenset[str], *, groups: bool) -> Matcher:
        """Compile a pattern; raises `PatternError`."""
        ffi, library = self._ffi, self._library
        options = 0
        for letter, (bit, default) in _FLAGS.items():
            options |= bit if default != (letter in flags) else 0
        error = cast("Sequence[int]", ffi.new("int *"))
        offset = cast("Sequence[int]", ffi.new("size_t *"))
        raw = library.pcre2_compile_8(pattern, len(pattern), options, error, offset, ffi.NULL)
        if raw == ffi.NULL:
            raise PatternError(f"error in regex at offset {offset[0]}: {self.message(error[0])}")
        code = ffi.gc(raw, library.pcre2_code_free_8)
        # Without success (no memory that may be executed) the interpreter does the work.
        library.pcre2_jit_compile_8(code, JIT_COMPLETE)
        count = cast("Sequence[int]", ffi.new("uint32_t *"))
        library.pcre2_pattern_info_8(code, _INFO_CAPTURECOUNT, count)
        data = ffi.gc(
            library.pcre2_match_data_create_8(count[0] + 1, ffi.NULL),
            library.pcre2_match_data_free_8,
        )
        return PcreMatcher(self, library, code, data, count[0])

    def message(self, number: int) -> str:
        """Return the library's text for an error number."""
        text = self._ffi.new("unsigned char[]", _MESSAGE_SIZE)
        self._library.pcre2_get_error_message_8(number, text, _MESSAGE_SIZE)
        return cast(bytes, self._ffi.string(text)).decode("ascii", "replace")


def open_named(kind: str, name: str, options: TableOptions) -> RuleTable:
    """Open `pcre:name` or `pcre:{ {rule} ... }`; raises `TableConfigError`."""
    return open_rules(PcreEngine(), kind, name, options)
