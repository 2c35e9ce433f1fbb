"""What is a host name: RFC 1123 §2.1 with underscores, which exist in practice."""

from __future__ import annotations

__all__ = ["hostname_problem"]

_MAX_NAME = 255
_MAX_LABEL = 63
_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_NUMERIC = frozenset("0123456789.")


def hostname_problem(name: str) -> str:
    """Say why a text is no host name, in the words of the log; "" for a good one."""
    if not name:
        return "empty hostname"
    if len(name) > _MAX_NAME:
        return f"bad length {len(name)} for {name[:100]}..."
    if not _CHARS.issuperset(name):
        bad = next(char for char in name if char not in _CHARS)
        return f"invalid character {ord(bad)}(decimal): {name}"
    labels = name.split(".")
    if "" in labels:
        return f"misplaced delimiter: {name}"
    if any(len(label) > _MAX_LABEL for label in labels):
        return f"hostname label too long: {name}"
    if any(label[0] == "-" or label[-1] == "-" for label in labels):
        return f"misplaced hyphen: {name}"
    return f"numeric hostname: {name}" if _NUMERIC.issuperset(name) else ""
