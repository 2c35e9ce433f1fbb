"""smtp_generic_maps: addresses that leave this system, in the envelope and in the header.

Called by: the start of a delivery. See generic(5).
"""

from typing import Final

from libmail.message.addresses import AddressField
from libmail.message.headers import fields
from libmail.smtp.address import quote_local, unquote
from libmail.tables.maps import Maps
from libmail.tables.match import StringList

__all__ = ["GenericMaps"]

_ADDRESS_FIELDS: Final = frozenset(
    (b"from", b"sender", b"reply-to", b"errors-to", b"return-receipt-to",
     b"disposition-notification-to", b"mail-reply-to",
     b"resent-from", b"resent-sender", b"resent-reply-to",
     b"to", b"cc", b"bcc", b"apparently-to", b"mail-followup-to",
     b"resent-to", b"resent-cc", b"resent-bcc")
)  # fmt: skip


class GenericMaps:
    """delimiters: recipient_delimiter. propagate: an extension goes over to the new address.

    origin, local: domains of this system, for keys without domain.
    """

    def __init__(
        self, maps: Maps, *, delimiters: str, propagate: bool, origin: str, local: StringList
    ) -> None:
        self._maps = maps
        self._delimiters = delimiters
        self._propagate = propagate
        self._origin = origin.lower()
        self._local = local

    def __bool__(self) -> bool:
        """Whether there is anything to map by."""
        return bool(self._maps.tables)

    async def map(self, address: str) -> str:
        """The address as others see it; internal form. Raises TableRetry."""
        if not address:
            return address
        local, _, domain = address.rpartition("@")
        ours = domain.lower() == self._origin or await self._local.match(domain)
        found = await self._maps.find_address(address, self._delimiters, local=ours)
        if found is None:
            return address
        value = unquote(found.value.strip())
        if value.startswith("@"):
            return local + value
        if "@" not in value:
            value = f"{value}@{domain}"
        if self._propagate and found.extension:
            name, _, rest = value.rpartition("@")
            value = f"{name}{found.extension}@{rest}"
        return value

    async def map_header(self, header: bytes) -> bytes | None:
        """The header with its addresses mapped; None when it stays as it is. Raises TableRetry."""
        out, at = [], 0
        for field in fields(header):
            if field.name not in _ADDRESS_FIELDS:
                continue
            value = header[field.value : field.end].decode("utf-8", "surrogateescape")
            parsed = AddressField(value)
            changed = False
            for mailbox in parsed.mailboxes:
                mapped = await self.map(mailbox.plain)
                if mapped != mailbox.plain:
                    mailbox.address = quote_local(mapped)
                    changed = True
            if changed:
                name = header[field.start : field.value].rstrip(b": \t").decode("ascii")
                text = parsed.render(name) + "\r\n"
                out += [header[at : field.start], text.encode("utf-8", "surrogateescape")]
                at = field.end
        return b"".join((*out, header[at:])) if out else None
