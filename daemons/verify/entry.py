"""A result as it stands in the table: "status:probed:updated:text", as Postfix writes it."""

from typing import Final, NamedTuple

__all__ = ["Entry"]

_LARGEST: Final = 2**62  # of a time in an entry


class Entry(NamedTuple):
    """A result. status: AddressStatus. updated: when it was found (of the epoch)."""

    status: int
    updated: int
    text: str

    @classmethod
    def parse(cls, value: str | None) -> "Entry | None":
        """The entry that stands in a table; None for what is none, or has no result yet."""
        status, _, rest = (value or "").partition(":")
        _probed, _, rest = rest.partition(":")
        updated, colon, text = rest.partition(":")
        if not (colon and status in ("0", "1", "2") and updated.isascii() and updated.isdigit()):
            return None
        if len(updated) > 19 or not 0 < int(updated) < _LARGEST:
            return None
        return cls(int(status), int(updated), text)

    def value(self) -> str:
        """As it stands in a table; a result waits for no probe."""
        return f"{self.status}:0:{self.updated}:{self.text}"
