"""One request to an HTTPS server, whose certificate is verified by name.

Python's own TLS does: nothing is wanted but a verified connection to a server that is known by its
name. The authorities are read when the client is made, before the jail.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final

from libmail.net.http import (
    HttpError,
    Response,
    ResponseParser,
    Url,
    form_request,
    page_request,
)
from libmail.text.printable import printable

__all__ = ["HttpsClient", "Unverified"]

_LATE_MODULES: Final = ("concurrent.futures.thread", "encodings.idna")
_MOST_OCTETS: Final = 1 << 16
_PIECE: Final = 1 << 14


class Unverified(HttpError):
    """The certificate of the server is not one for its name that an authority vouches for."""


class HttpsClient:
    """Asks servers, each time over a connection of its own."""

    def __init__(self, agent: str, timeout: float, authorities: str = "") -> None:
        """agent: our name. timeout: seconds for everything. authorities: a file of certificates in
        place of those of the system. Raises OSError (of which ssl.SSLError is one)."""
        for module in _LATE_MODULES:
            import_module(module)
        self._agent = agent
        self._timeout = timeout
        self._context = ssl.create_default_context(cafile=authorities or None)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.hostname_checks_common_name = False  # RFC 9525 §2

    async def post(self, url: Url, fields: Mapping[str, str]) -> Response:
        """Send a form. Raises HttpError for whatever is not an answer of this server."""
        return await self._ask(url, form_request(url, fields, self._agent), (url.host,))

    async def page(self, url: Url, addresses: Sequence[str], accepted: str) -> Response:
        """Ask for a page of a server at one of its addresses. accepted: a media type.

        Raises HttpError as `post` does; Unverified for a server that is another one.
        """
        return await self._ask(url, page_request(url, self._agent, accepted), addresses)

    async def _ask(self, url: Url, request: bytes, places: Sequence[str]) -> Response:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(url, request, places)
        except TimeoutError:
            raise HttpError(f"{url.host}: timed out") from None
        except ssl.SSLCertVerificationError as error:
            raise Unverified(f"{url.host}: {printable(error.verify_message)}") from None
        except ssl.SSLError as error:
            raise HttpError(f"{url.host}: TLS: {printable(error.reason or 'failed')}") from None
        except OSError as error:
            why = error.strerror or (os.strerror(error.errno) if error.errno else "")
            raise HttpError(f"{url.host}: {printable(why or 'cannot connect')}") from None
        except HttpError as error:
            raise HttpError(f"{url.host}: {error}") from None

    async def _exchange(self, url: Url, request: bytes, places: Sequence[str]) -> Response:
        reader, writer = await self._connected(url, places)
        try:
            writer.write(request)
            parser = ResponseParser(_MOST_OCTETS)
            response = None
            while response is None:
                response = parser.receive(await reader.read(_PIECE))
            return response
        finally:
            writer.transport.abort()

    async def _connected(
        self, url: Url, places: Sequence[str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The first of these places that can be reached; each gets its part of the time."""
        *others, last = places
        part = self._timeout / len(places)
        for place in others:
            try:
                async with asyncio.timeout(part):
                    return await self._connect(url, place)
            except ssl.SSLError:
                raise
            except OSError:  # TimeoutError is one
                continue
        return await self._connect(url, last)

    async def _connect(
        self, url: Url, place: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            place, url.port, ssl=self._context, server_hostname=url.host, limit=_PIECE
        )
