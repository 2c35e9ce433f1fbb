"""smtp_generic_maps: maps addresses of outgoing mail, in envelope and header. See generic(5)."""

import asyncio
from typing import Final

from libmail.log import LOG
from libmail.lookup.rewriting import LOCAL, Rewriter
from libmail.message.addresses import RECIPIENT_FIELDS, SENDER_FIELDS, AddressField
from libmail.message.headers import each_field
from libmail.smtp.address import split_address
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.text.quoting import quote_local

__all__ = ["GenericMaps"]

_TURN: Final = 500  # fields, after which other sessions have their turn
_ADDRESS_FIELDS: Final = SENDER_FIELDS | RECIPIENT_FIELDS


class GenericMaps:
    """delimiters: recipient_delimiter. propagate: an extension goes over to the new address.

    origin, local: domains of this system, for keys without domain. rewriter: completes the results.
    """

    def __init__(
        self,
        maps: Maps,
        rewriter: Rewriter,
        *,
        delimiters: str,
        propagate: bool,
        origin: str,
        local: StringList,
    ) -> None:
        self._maps = maps
        self._delimiters = delimiters
        self._propagate = propagate
        self._origin = origin.lower()
        self._local = local
        self._rewriter = rewriter

    def __bool__(self) -> bool:
        """Whether smtp_generic_maps is set."""
        return bool(self._maps.tables)

    async def map(self, address: str) -> str:
        """The mapped address, or the address itself; internal form. Raises TableRetry."""
        if not address:
            return address
        local, domain = split_address(address)
        ours = domain.lower() == self._origin or await self._local.match(domain)
        found = await self._maps.find_address(address, self._delimiters, local=ours)
        if found is None:
            return address
        value = found.value.strip()
        if value.startswith("@"):
            return local + value
        value = self._address(address, value)
        if self._propagate and found.extension:
            name, rest = split_address(value)
            value = f"{name}{found.extension}@{rest}"
        return value

    def _address(self, address: str, value: str) -> str:
        """The complete address that a table has for another one, in internal form."""
        mailboxes = AddressField(value).mailboxes
        if len(mailboxes) > 1:
            LOG.warning(f"multi-valued {self._maps.title} result for {address}")
        return self._rewriter.rewrite(LOCAL, mailboxes[0].address) if mailboxes else address

    async def map_header(self, header: bytes) -> bytes | None:
        """The header with its addresses mapped; None when it stays as it is. Raises TableRetry."""
        out, at = [], 0
        for number, field in enumerate(each_field(header), 1):
            if number % _TURN == 0:
                await asyncio.sleep(0)
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
