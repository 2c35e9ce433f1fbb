"""Variable envelope return paths: a sender address that tells which recipient a bounce is about."""

from __future__ import annotations

__all__ = ["usable_delimiters", "verp_sender"]


def usable_delimiters(delimiters: str, allowed: str) -> bool:
    """Whether these are two characters of `allowed` (verp_delimiter_filter)."""
    return len(delimiters) == 2 and delimiters[0] in allowed and delimiters[1] in allowed


def verp_sender(sender: str, delimiters: str, recipient: str) -> str:
    """The sender for mail to one recipient; addresses in internal form.

    With "+=", mail from owner@list to user@domain has the sender owner+user=domain@list. Without
    two delimiters the sender stays as it is.
    """
    if len(delimiters) != 2:
        return sender
    owner, at, origin = sender.rpartition("@")
    if not at:
        owner, origin = origin, ""
    user, mark, domain = recipient.rpartition("@")
    whom = f"{user}{delimiters[1]}{domain}" if mark else recipient
    return f"{owner}{delimiters[0]}{whom}{at}{origin}"
