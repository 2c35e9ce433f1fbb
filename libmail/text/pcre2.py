"""The functions of libpcre2 (pcre2api(3)), bound once for everybody who needs them.

The library is part of every Debian; where it is missing, `LIBRARY` is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, cast

import cffi

__all__ = ["FFI", "JIT_COMPLETE", "LIBRARY", "LIBRARY_NAME", "Functions"]

LIBRARY_NAME: Final = "libpcre2-8.so.0"
_DECLARATIONS: Final = """
    void *pcre2_compile_8(const char *pattern, size_t length, uint32_t options, int *error,
                          size_t *offset, void *context);
    int pcre2_jit_compile_8(void *code, uint32_t options);
    void pcre2_code_free_8(void *code);
    int pcre2_pattern_info_8(const void *code, uint32_t what, void *where);
    void *pcre2_match_data_create_8(uint32_t ovecsize, void *context);
    void pcre2_match_data_free_8(void *match_data);
    int pcre2_match_8(const void *code, const char *subject, size_t length, size_t start,
                      uint32_t options, void *match_data, void *context);
    int pcre2_jit_match_8(const void *code, const char *subject, size_t length, size_t start,
                          uint32_t options, void *match_data, void *context);
    size_t *pcre2_get_ovector_pointer_8(void *match_data);
    int pcre2_get_error_message_8(int errorcode, unsigned char *buffer, size_t bufflen);
"""
JIT_COMPLETE: Final = 1


class Functions(Protocol):
    """The functions of the library, as cffi offers them; pcre2api(3) describes each."""

    def pcre2_compile_8(
        self,
        pattern: bytes,
        length: int,
        options: int,
        error: object,
        offset: object,
        context: object,
    ) -> cffi.FFI.CData: ...
    def pcre2_jit_compile_8(self, code: object, options: int) -> int: ...
    def pcre2_code_free_8(self, code: object) -> None: ...
    def pcre2_pattern_info_8(self, code: object, what: int, where: object) -> int: ...
    def pcre2_match_data_create_8(self, ovecsize: int, context: object) -> cffi.FFI.CData: ...
    def pcre2_match_data_free_8(self, match_data: object) -> None: ...
    def pcre2_match_8(
        self,
        code: object,
        subject: bytes,
        length: int,
        start: int,
        options: int,
        match_data: object,
        context: object,
    ) -> int: ...
    def pcre2_jit_match_8(
        self,
        code: object,
        subject: bytes,
        length: int,
        start: int,
        options: int,
        match_data: object,
        context: object,
    ) -> int: ...
    def pcre2_get_ovector_pointer_8(self, match_data: object) -> Sequence[int]: ...
    def pcre2_get_error_message_8(self, errorcode: int, buffer: object, size: int) -> int: ...


FFI: Final = cffi.FFI()
FFI.cdef(_DECLARATIONS)


def _open() -> Functions | None:
    try:
        return cast(Functions, FFI.dlopen(LIBRARY_NAME))
    except OSError:
        return None


LIBRARY: Final = _open()
