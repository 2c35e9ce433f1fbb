"""Dates of header fields (RFC 5322 §3.3) and Message-IDs (§3.6.4)."""

import time
from typing import Final

__all__ = ["make_message_id", "rfc5322_date"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def rfc5322_date(when: float) -> str:
    """A time of the epoch in the local zone: "Sun, 22 Nov 2026 17:18:39 +0000 (UTC)"."""
    local = time.localtime(when)
    offset, sign = local.tm_gmtoff // 60, "+"
    if offset < 0:
        offset, sign = -offset, "-"
    return (
        f"{_DAYS[local.tm_wday]}, {local.tm_mday:2d} {_MONTHS[local.tm_mon - 1]} "
        f"{local.tm_year:04d} "
        f"{local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d} "
        f"{sign}{offset // 60:02d}{offset % 60:02d} ({local.tm_zone})"
    )


def make_message_id(when: float, queue_id: str, host: str) -> str:
    """A Message-ID for a message that has none: its arrival (UTC), queue id and our host name.

    A long queue id is used once, and says all of that itself.
    """
    if "z" in queue_id:
        return f"<{queue_id}@{host}>"
    utc = time.gmtime(when)
    return (
        f"<{utc.tm_year:04d}{utc.tm_mon:02d}{utc.tm_mday:02d}"
        f"{utc.tm_hour:02d}{utc.tm_min:02d}{utc.tm_sec:02d}.{queue_id}@{host}>"
    )
