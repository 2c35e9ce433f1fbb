"""Chains of a server by the name that a client asks for: tls_server_sni_maps.

A table's value is the content of files in base64 (postmap -F): keys, each before its certificates.
Chains are parsed once for each value, as long as they are in use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from libmail.tables.file_values import decoded
from libmail.tls.errors import TlsConfigError
from libmail.tls.pem import Chain, chains_of, pem_objects
from libmail.tls.policy_entry import Find

__all__ = ["ChainsByName"]

_MOST: Final = 200  # values that are kept parsed


class ChainsByName:
    """find: looks a key up in the tables; what it raises passes through."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._parsed: OrderedDict[str, tuple[Chain, ...]] = OrderedDict()

    async def chains(self, name: str) -> tuple[Chain, ...] | None:
        """The chains for a name, or for a parent domain with a dot in front; None for none.

        Raises TlsConfigError for a value that cannot be used: the handshake must not go on, as
        the client would get the certificate of somebody else.
        """
        for key in _keys(name):
            value = await self._find(key)
            if value is not None:
                return self._chains(value, name)
        return None

    def _chains(self, value: str, name: str) -> tuple[Chain, ...]:
        found = self._parsed.get(value)
        if found is None:
            source = f"SNI data for {name}"
            try:
                found = chains_of(pem_objects(decoded(value), source), source)
            except TlsConfigError as error:
                reason = f"error loading private keys and certificates from: {source}"
                raise TlsConfigError(f"{reason}: {error.reason}", error.problems) from None
            self._parsed[value] = found
            if len(self._parsed) > _MOST:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(value)
        return found


def _keys(name: str) -> Iterator[str]:
    yield name
    at = name.find(".", 1)
    while at > 0:
        yield name[at:]
        at = name.find(".", at + 1)
