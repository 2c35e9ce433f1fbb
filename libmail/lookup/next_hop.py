"""The syntax of a next hop: which destinations it names.

Source: smtp(8) and lmtp(8), SMTP and LMTP DESTINATION SYNTAX.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from libmail.dns import ascii_domain, valid_hostaddr, valid_hostname

__all__ = [
    "BadDestination",
    "Destination",
    "parse_destination",
    "service_port",
    "split_destinations",
]

_SEPARATORS: Final = re.compile(r"[,\s]+")


class BadDestination(ValueError):
    """The next hop is no destination; the text says why. It is an error in the configuration."""


@dataclass(frozen=True, slots=True)
class Destination:
    """domain, or with `bracketed` a host or address that has neither MX nor SRV lookup.

    service: the port as it was written, "" if it was not. path: of a UNIX socket, then nothing else
    counts.
    """

    host: str = ""
    port: int = 0
    bracketed: bool = False
    path: str = ""
    service: str = ""


@lru_cache(1024)
def split_destinations(nexthop: str) -> tuple[str, ...]:
    """The destinations of a next hop, to be tried in this order."""
    return tuple(part for part in _SEPARATORS.split(nexthop) if part)


def service_port(text: str, destination: str = "", known: Sequence[str] = ()) -> int:
    """A port by number or by name. Raises BadDestination.

    known: known_tcp_ports, "name=number" or with more names; other names are in services(5).
    """
    for word in known:
        *names, number = word.split("=")
        if text in names:
            text = number
            break
    if text.isascii() and text.isdigit():
        port = int(text)
        if not 0 < port < 65536:
            raise BadDestination(f"bad network port: {text} for destination: {destination}")
        return port
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise BadDestination(f"unknown service: {text}/tcp") from None


@lru_cache(1024)
def parse_destination(
    text: str, default_port: int, *, lmtp: bool, known: tuple[str, ...] = ()
) -> Destination:
    """One destination, as in smtp(8), SMTP and LMTP DESTINATION SYNTAX. Raises BadDestination.

    known: known_tcp_ports.
    """
    if lmtp:
        if text.startswith("unix:"):
            if text == "unix:":
                raise BadDestination(_problem("missing path of a socket", text))
            return Destination(path=text[5:])
        text = text.removeprefix("inet:")
    host, port = _host_and_port(text)
    number = service_port(port, text, known) if port else default_port
    if host[:5].lower() == "ipv6:":
        host = host[5:]
    if not (valid_hostaddr(host) or valid_hostname(ascii_domain(host))):
        raise BadDestination(_problem("valid hostname or network address required", text))
    return Destination(host, number, bracketed=text.startswith("["), service=port)


def _host_and_port(text: str) -> tuple[str, str]:
    """Of "host", "host:port", "[host]", "[host]:port"; port "" if there is none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise BadDestination(_problem('missing "]"', text))
        if rest and not rest.startswith(":"):
            raise BadDestination(_problem('garbage after "]"', text))
        port = rest[1:]
        if port[:1].isdigit() and not port.isdigit():
            raise BadDestination(_problem("garbage after numerical service", text))
        return host, port
    if valid_hostaddr(text):
        return text, ""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, ""
    if not host:
        raise BadDestination(_problem("missing host information", text))
    return host, port


def _problem(what: str, text: str) -> str:
    return f"{what} in server description: {text}"
