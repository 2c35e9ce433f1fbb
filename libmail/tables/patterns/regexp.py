"""regexp:/path - POSIX extended regular expressions, by the C library's regcomp and regexec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, cast

import cffi

from libmail.tables.patterns.rules import Groups, Matcher, PatternError, RuleTable, open_rules
from libmail.tables.table import TableOptions

__all__ = ["RegexpEngine", "open_named"]

# <regex.h> and <locale.h> of the GNU C library.
_DECLARATIONS: Final = """
    typedef struct {
        void *buffer;
        unsigned long allocated, used, syntax;
        char *fastmap, *translate;
        size_t re_nsub;
        unsigned long rest[8];
    } regex_t;
    typedef struct { int rm_so; int rm_eo; } regmatch_t;
    int regcomp(regex_t *preg, const char *pattern, int cflags);
    int regexec(const regex_t *preg, const char *string, size_t nmatch, regmatch_t *pmatch,
                int eflags);
    size_t regerror(int errcode, const regex_t *preg, char *errbuf, size_t errbuf_size);
    void regfree(regex_t *preg);
    void *newlocale(int category_mask, const char *locale, void *base);
    void *uselocale(void *locale);
    void freelocale(void *locale);
"""
_REG_EXTENDED: Final = 1
_REG_ICASE: Final = 2
_REG_NEWLINE: Final = 4
_REG_NOSUB: Final = 8
_LC_CTYPE_MASK: Final = 1
_LC_COLLATE_MASK: Final = 8
_MESSAGE_SIZE: Final = 256


class _Compiled(Protocol):
    """A regex_t."""

    re_nsub: int


class _Span(Protocol):
    """A regmatch_t."""

    rm_so: int
    rm_eo: int


class _Functions(Protocol):
    """The functions of the C library, as cffi offers them."""

    def regcomp(self, preg: _Compiled, pattern: bytes, cflags: int) -> int: ...
    def regexec(
        self, preg: _Compiled, string: bytes, nmatch: int, pmatch: object, eflags: int
    ) -> int: ...
    def regerror(self, errcode: int, preg: _Compiled, errbuf: object, size: int) -> int: ...
    def regfree(self, preg: object) -> None: ...
    def newlocale(self, category_mask: int, locale: bytes, base: object) -> object: ...
    def uselocale(self, locale: object) -> object: ...
    def freelocale(self, locale: object) -> None: ...


_FFI: Final = cffi.FFI()
_FFI.cdef(_DECLARATIONS)
_LIBC: Final = cast(_Functions, _FFI.dlopen(None))


class RegexpMatcher:
    """One pattern, compiled by regcomp."""

    def __init__(self, ffi: cffi.FFI, libc: _Functions, compiled: _Compiled) -> None:
        self._compiled = compiled
        self._execute = libc.regexec
        self._null = ffi.NULL
        self.groups = compiled.re_nsub
        self._spans = cast("Sequence[_Span]", ffi.new("regmatch_t[]", self.groups + 1))

    def matches(self, subject: bytes) -> bool:
        """Tell whether the pattern matches somewhere in the subject."""
        return self._execute(self._compiled, subject, 0, self._null, 0) == 0

    def find(self, subject: bytes) -> Groups | None:
        """Return what the groups matched; a group that took no part is empty."""
        spans = self._spans
        if self._execute(self._compiled, subject, len(spans), spans, 0) != 0:
            return None
        return [subject[s.rm_so : s.rm_eo] if s.rm_so >= 0 else b"" for s in spans]


class RegexpEngine:
    """Compiles with the C library; flags i, m and x toggle what is the default."""

    kind = "regexp"
    flags = "imx"
    obsolete = ""
    skipping = "skipping"
    no_group = "out-of-range"
    second = True

    def __init__(self) -> None:
        self._ffi = _FFI
        self._libc = _LIBC

    def compile(self, pattern: bytes, flags: frozenset[str], *, groups: bool) -> Matcher:
        """Compile a pattern; raises `PatternError`."""
        options = 0 if groups else _REG_NOSUB
        options |= 0 if "i" in flags else _REG_ICASE
        options |= 0 if "x" in flags else _REG_EXTENDED
        options |= _REG_NEWLINE if "m" in flags else 0
        raw = cast(_Compiled, self._ffi.new("regex_t *"))
        error = self._compile_bytewise(raw, pattern, options)
        if error:
            text = self._ffi.new("char[]", _MESSAGE_SIZE)
            self._libc.regerror(error, raw, text, _MESSAGE_SIZE)
            raise PatternError(cast(bytes, self._ffi.string(text)).decode("ascii", "replace"))
        owned = self._ffi.gc(cast(cffi.FFI.CData, raw), self._libc.regfree)
        return RegexpMatcher(self._ffi, self._libc, cast(_Compiled, owned))

    def _compile_bytewise(self, raw: _Compiled, pattern: bytes, options: int) -> int:
        # Python takes the character set of the environment; mail is matched byte by byte, the
        # same on every host.  regcomp remembers the locale that it ran in.
        null = self._ffi.NULL
        plain = self._libc.newlocale(_LC_CTYPE_MASK | _LC_COLLATE_MASK, b"C", null)
        before = self._libc.uselocale(plain)
        try:
            return self._libc.regcomp(raw, pattern, options)
        finally:
            self._libc.uselocale(before)
            self._libc.freelocale(plain)


def open_named(kind: str, name: str, options: TableOptions) -> RuleTable:
    """Open `regexp:name` or `regexp:{ {rule} ... }`; raises `TableConfigError`."""
    return open_rules(RegexpEngine(), kind, name, options)
