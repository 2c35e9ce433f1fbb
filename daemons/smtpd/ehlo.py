"""The keywords that EHLO announces, and smtpd_discard_ehlo_keywords."""

from collections.abc import Iterable

from libmail.smtp.reply import Reply

__all__ = ["ehlo_reply", "keyword_set"]


def keyword_set(words: Iterable[str]) -> frozenset[str]:
    """Keywords in upper case; words that are none count as well, and do nothing."""
    return frozenset(word.upper() for word in words)


def ehlo_reply(
    hostname: str,
    size_limit: int,
    discard: frozenset[str],
    *,
    vrfy: bool,
    smtputf8: bool,
    verp: bool,
) -> Reply:
    """The answer to EHLO, RFC 5321 §4.1.1.1. size_limit: 0 for none; discard: not announced."""
    offered = [
        ("PIPELINING", "PIPELINING"),
        ("SIZE", f"SIZE {size_limit}" if size_limit else "SIZE"),
        ("VRFY", "VRFY" if vrfy else ""),
        ("ETRN", "ETRN"),
        ("VERP", "XVERP" if verp else ""),
        ("ENHANCEDSTATUSCODES", "ENHANCEDSTATUSCODES"),
        ("8BITMIME", "8BITMIME"),
        ("DSN", "DSN"),
        ("SMTPUTF8", "SMTPUTF8" if smtputf8 else ""),
        ("CHUNKING", "CHUNKING"),
    ]
    lines = [line for keyword, line in offered if line and keyword not in discard]
    return Reply(250, "", "\n".join([hostname, *lines]))
