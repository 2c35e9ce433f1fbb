"""Where refresh tokens are kept: a file for each account, mail_owner's alone.

`data_directory/oauth2/ACCOUNT` has the token in its only line. A new one is on disk before what
came with it is used: the server may have forgotten the old one. Whoever renews holds a lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from libmail.files.durable import sync_directory
from libmail.oauth.answers import is_token

__all__ = ["Busy", "TokenStore"]

_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW


class Busy(Exception):
    """Another process renews the tokens of the account now."""


class TokenStore:
    """The files of a data directory. All of it is done with the rights of mail_owner."""

    def __init__(self, data_directory: str) -> None:
        self._folder = f"{data_directory}/oauth2"

    def read(self, account: str) -> str:
        """The refresh token of an account, "" if there is none. Raises OSError."""
        try:
            fd = os.open(f"{self._folder}/{account}", os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return ""
        with open(fd, "rb") as file:
            text = file.read(1 << 15).decode("ascii", "replace").strip()
        return text if is_token(text) else ""

    def write(self, account: str, token: str) -> None:
        """Keep a refresh token in place of the one before. Raises OSError."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        path, new = f"{self._folder}/{account}", f"{self._folder}/.{account}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(token.encode("ascii") + b"\n")
            file.flush()
            os.fsync(fd)
        os.rename(new, path)
        sync_directory(self._folder)

    @contextmanager
    def locked(self, account: str) -> Iterator[None]:
        """Be the one who renews. Raises Busy, OSError."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        fd = os.open(f"{self._folder}/.{account}.lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy from None
            yield
        finally:
            os.close(fd)
