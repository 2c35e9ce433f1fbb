"""Contents of files that were found good, kept in memory for when new ones turn out to be bad.

Made by master(8), which leaves it to those of its processes that need it. tablewatch(8) alone
writes.  A service reads it before its jail, and gives up the contents then; what it keeps is a
table of digests, by which it notices that what it has read is not the newest any more.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
from collections.abc import Mapping
from typing import Final, TypeAlias

__all__ = ["ApprovedFiles", "Contents", "FilesKey"]

FilesKey: TypeAlias = tuple[str, ...]
"""What a group of files is for, and their paths."""
Contents: TypeAlias = tuple[bytes, ...]
"""Their contents, in the same order."""

_MOST: Final = 4096  # groups of files
_DIGEST: Final = 8  # octets
_ROW: Final = 2 * _DIGEST
_SEAL: Final = 32  # octets in front of the contents: their digest
_TRIES: Final = 200
_PAUSE: Final = 0.005  # seconds
_LARGEST: Final = 1 << 28  # octets


class ApprovedFiles:
    """Shared by all processes that are forked from the one which has made it."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._fd = os.memfd_create("approved files")
        self._digests = mmap.mmap(-1, _MOST * _ROW)
        self._used: dict[FilesKey, tuple[bytes, bytes, bytes]] = {}

    # for readers

    def contents(self) -> dict[FilesKey, Contents]:
        """All of it; nothing where the writer has died while it wrote."""
        for _ in range(_TRIES):
            data = os.pread(self._fd, _LARGEST, 0)
            seal, body = data[:_SEAL], data[_SEAL:]
            if not data:
                return {}
            if hashlib.sha256(body).digest() == seal:
                return {
                    tuple(key): tuple(text.encode("latin-1") for text in texts)
                    for key, texts in json.loads(body)
                }
            time.sleep(_PAUSE)
        return {}

    def use(self, key: FilesKey, contents: Contents) -> None:
        """Tell that this process uses these contents."""
        name = _name(key)
        self._used[key] = name, self._approved(name), _digest(*contents)

    def forget_contents(self) -> None:
        """Have no way to them any more; the digests stay."""
        os.close(self._fd)

    def close(self) -> None:
        """Have nothing of it any more."""
        self.forget_contents()
        self._digests.close()

    @property
    def replaced(self) -> str:
        """A file of which others contents were approved than this process uses; "" for none."""
        for key, (name, at_first, used) in self._used.items():
            now = self._approved(name)
            if now == used:
                self._used[key] = name, used, used  # from now on the older one would be another one
            elif now not in (b"", at_first):
                return key[1]
        return ""

    def _approved(self, name: bytes) -> bytes:
        """The digest of what is approved under a name; b"" for nothing."""
        at = -1
        while (at := self._digests.find(name, at + 1)) >= 0:
            if at % _ROW == 0:
                return self._digests[at + _DIGEST : at + _ROW]
        return b""

    # for the writer

    def replace(self, approved: Mapping[FilesKey, Contents]) -> None:
        """Have these, and nothing else. Raises ValueError for too much."""
        rows = [_name(key) + _digest(*contents) for key, contents in approved.items()]
        texts = [
            [key, [data.decode("latin-1") for data in contents]]
            for key, contents in approved.items()
        ]
        body = json.dumps(texts).encode("ascii")
        if len(rows) > _MOST or len(body) + _SEAL > _LARGEST:
            raise ValueError("too many files")
        os.pwrite(self._fd, hashlib.sha256(body).digest() + body, 0)
        os.ftruncate(self._fd, len(body) + _SEAL)
        self._digests[:] = b"".join(rows).ljust(_MOST * _ROW, b"\0")


def _name(key: FilesKey) -> bytes:
    """Of a group of files in the table of digests."""
    return _digest(*(word.encode("utf-8", "surrogateescape") for word in key))


def _digest(*parts: bytes) -> bytes:
    """Of parts, in this order."""
    whole = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        whole.update(b"%d:" % len(part))
        whole.update(part)
    return whole.digest()
