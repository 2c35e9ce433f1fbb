"""Passwords as a table keeps them: hashes that cost time, never the password itself.

    {SCRAM-SHA-256}...   what SCRAM needs (libmail.sasl.scram); PLAIN and LOGIN work with it, too
    $y$, $6$, $2b$, ...  whatever crypt(3) of this system knows; a prefix {CRYPT} is passed over
    $argon2id$...        with the library argon2 (argon2-cffi), where it is installed

Both functions are meant to take long: on the way of a session they belong into a thread.
"""

from __future__ import annotations

import hmac
from importlib import import_module
from types import ModuleType
from typing import Final, Protocol, cast

import cffi

from libmail.sasl.scram import derive, parse_secret

__all__ = ["PasswordChecker", "hash_password"]

_ARGON2: Final = "$argon2"
_LIBRARIES: Final = ("libcrypt.so.1", "libcrypt.so.2")
_MAX_HASH: Final = 1024
_MAX_PASSWORD: Final = 512


class _Functions(Protocol):
    """Of the C library, see crypt(3)."""

    def crypt_ra(
        self, password: bytes, setting: bytes, data: cffi.FFI.CData, size: cffi.FFI.CData
    ) -> cffi.FFI.CData: ...

    def free(self, pointer: cffi.FFI.CData) -> None: ...


def _load_argon2() -> ModuleType | None:
    try:
        return import_module("argon2")
    except ImportError:
        return None


def hash_password(password: str) -> str:
    """A new entry for a password. Raises ValueError for what cannot be one."""
    if not password or len(password.encode("utf-8", "surrogateescape")) > _MAX_PASSWORD:
        raise ValueError("a password has 1 to 512 octets")
    return derive(password).text()


class PasswordChecker:
    """Compares passwords with what tables keep. Made before the jail: it loads libraries."""

    def __init__(self) -> None:
        self._ffi = cffi.FFI()
        self._ffi.cdef(
            "char *crypt_ra(const char *phrase, const char *setting, void **data, int *size);"
            "void free(void *pointer);"
        )
        self._crypt = self._load()
        self._libc = cast(_Functions, self._ffi.dlopen(None))
        self._argon2 = _load_argon2()

    def _load(self) -> _Functions | None:
        for name in _LIBRARIES:
            try:
                return cast(_Functions, self._ffi.dlopen(name))
            except OSError:
                continue
        return None

    def matches(self, stored: str, password: str) -> bool:
        """Whether `password` is the one of which `stored` was made.

        Raises ValueError for an entry that nothing here understands: an error of the table, which
        says nothing about the password.
        """
        if "\0" in password or len(password.encode("utf-8", "surrogateescape")) > _MAX_PASSWORD:
            return False
        secret = parse_secret(stored)
        if secret is not None:
            try:
                return secret.matches(password)
            except ValueError:
                return False  # not a text that can be a password
        if stored.startswith(_ARGON2):
            return self._argon2_matches(stored, password)
        return self._crypt_matches(stored.removeprefix("{CRYPT}"), password)

    def _argon2_matches(self, stored: str, password: str) -> bool:
        if self._argon2 is None:
            raise ValueError("argon2 hash, but the library argon2 is not installed")
        try:
            self._argon2.PasswordHasher().verify(stored, password)
        except self._argon2.exceptions.VerifyMismatchError:
            return False
        except self._argon2.exceptions.Argon2Error as error:
            raise ValueError(f"malformed argon2 hash: {error}") from None
        return True

    def _crypt_matches(self, stored: str, password: str) -> bool:
        setting = stored.encode("utf-8", "surrogateescape")
        if not setting.startswith(b"$") or b"\0" in setting or len(setting) > _MAX_HASH:
            raise ValueError("unknown kind of password hash")
        if self._crypt is None:
            raise ValueError("no crypt library on this system")
        ffi = self._ffi
        data, size = ffi.new("void **"), ffi.new("int *")
        try:
            found = self._crypt.crypt_ra(
                password.encode("utf-8", "surrogateescape"), setting, data, size
            )
            result = b"" if found == ffi.NULL else cast(bytes, ffi.string(found, _MAX_HASH))
        finally:
            self._libc.free(data[0])
        if not result or result.startswith(b"*"):
            raise ValueError("crypt(3) does not know this kind of password hash")
        return hmac.compare_digest(result, setting)
