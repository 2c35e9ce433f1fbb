"""What the system supports: lock methods (-l), table types (-m), SASL (-a, -A), TLS (-T)."""

from __future__ import annotations

__all__ = ["feature_lines"]

SASL_SERVERS = ("cyrus", "dovecot", "table")
SASL_CLIENTS = ("cyrus",)
LOCK_METHODS = ("flock", "fcntl", "dotlock")
PUBLIC_KEY_ALGORITHMS = ("dsa", "ecdsa", "rsa")
TLS_MODES = ("compile-version", "run-version", "public-key-algorithms")


def feature_lines(option: str, mode: str) -> list[str]:
    """The lines for one of the options l, m, a, A, T. mode: the argument of -T.

    Raises ValueError for an unknown mode.
    """
    match option:
        case "l":
            return list(LOCK_METHODS)
        case "m":
            return _table_types()
        case "a":
            return list(SASL_SERVERS)
        case "A":
            return list(SASL_CLIENTS)
        case _:
            return _tls(mode)


def _table_types() -> list[str]:
    from libmail.tables.registry import TABLE_TYPES

    return sorted(TABLE_TYPES)


def _tls(mode: str) -> list[str]:
    """Python does not tell of the headers it was compiled with, so both versions are one."""
    if mode not in TLS_MODES:
        raise ValueError(f"unknown 'postconf -T' mode: {mode}")
    if mode == "public-key-algorithms":
        return list(PUBLIC_KEY_ALGORITHMS)
    import ssl

    return [ssl.OPENSSL_VERSION]
