"""One request to an HTTPS server, whose certificate is verified by name.

Python's own TLS does: nothing is wanted but a verified connection to a server that is known by its
name. The authorities are read when the client is made, before the jail.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from importlib import import_module
from typing import Final

from libmail.net.http import HttpError, Response, ResponseParser, Url, form_request
from libmail.text.printable import printable

__all__ = ["HttpsClient"]

_LATE_MODULES: Final = ("concurrent.futures.thread", "encodings.idna")
_MOST_OCTETS: Final = 1 << 16
_PIECE: Final = 1 << 14


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

    async def post(self, url: Url, fields: Mapping[str, str]) -> Response:
        """Send a form. Raises HttpError for whatever is not an answer of this server."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(url, form_request(url, fields, self._agent))
        except TimeoutError:
            raise HttpError(f"{url.host}: timed out") from None
        except ssl.SSLCertVerificationError as error:
            raise HttpError(f"{url.host}: {printable(error.verify_message)}") from None
        except ssl.SSLError as error:
            raise HttpError(f"{url.host}: TLS: {printable(error.reason or 'failed')}") from None
        except OSError as error:
            why = error.strerror or (os.strerror(error.errno) if error.errno else "")
            raise HttpError(f"{url.host}: {printable(why or 'cannot connect')}") from None
        except HttpError as error:
            raise HttpError(f"{url.host}: {error}") from None

    async def _exchange(self, url: Url, request: bytes) -> Response:
        reader, writer = await asyncio.open_connection(
            url.host, url.port, ssl=self._context, limit=_PIECE
        )
        try:
            writer.write(request)
            parser = ResponseParser(_MOST_OCTETS)
            response = None
            while response is None:
                response = parser.receive(await reader.read(_PIECE))
            return response
        finally:
            writer.transport.abort()
