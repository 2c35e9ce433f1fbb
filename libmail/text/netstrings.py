"""Netstrings, <https://cr.yp.to/proto/netstrings.txt>: `5:hello,`. Imports nothing."""

from __future__ import annotations

__all__ = ["netstring"]


def netstring(data: bytes) -> bytes:
    """Data as a netstring."""
    return b"%d:%s," % (len(data), data)
