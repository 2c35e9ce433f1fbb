"""What smtpd(8) needs of an authentication server.

A server offers mechanisms and begins exchanges. Each step of an exchange takes the client's
response and gives a `Challenge`, or the end: `Success` or `Failure`. A server that cannot be asked
is a temporary failure, never a wrong password.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from libmail.config import Config
from libmail.sasl.mechanism import Mechanism

__all__ = [
    "AuthContext",
    "Challenge",
    "Exchange",
    "Failure",
    "SaslServer",
    "Step",
    "Success",
    "uses_cyrus",
]


class AuthContext(NamedTuple):
    """The session in which a client logs in.

    service: as the server knows it, "smtp". encrypted: by TLS. certified: the client has shown a
    certificate that is trusted. Addresses without brackets. bindings: data of channel bindings by
    name. plus: whether mechanisms with channel binding are announced.
    """

    service: str
    client_address: str
    client_port: str
    server_address: str
    server_port: str
    encrypted: bool = False
    certified: bool = False
    bindings: Mapping[str, bytes] = MappingProxyType({})
    plus: bool = False


class Challenge(NamedTuple):
    """The client has to go on."""

    data: bytes


class Success(NamedTuple):
    """The client is who it says. username: as the server knows it."""

    username: str


class Failure(NamedTuple):
    """It is not, or (temporary) nobody can say now.

    reason: for the log, "" for none. username: under which the client tried, None where that is not
    known.
    """

    reason: str
    temporary: bool = False
    username: str | None = None


Step: TypeAlias = Challenge | Success | Failure


class Exchange(Protocol):
    """One attempt to log in. Ended by Success, Failure or `cancel`."""

    async def step(self, response: bytes) -> Step:
        """The client's response to the last challenge."""

    def cancel(self) -> None:
        """The client has given up, or is gone."""


class SaslServer(Protocol):
    """An authentication server: Dovecot, the Cyrus library, or a table."""

    async def mechanisms(self) -> Sequence[Mechanism]:
        """What it offers now; nothing while it cannot be asked."""

    async def begin(
        self, mechanism: str, initial: bytes | None, context: AuthContext
    ) -> tuple[Exchange, Step]:
        """Begin an exchange; initial: the client's initial response, None for none."""


def uses_cyrus(config: Config) -> bool:
    """Whether smtpd(8) with this configuration loads the Cyrus SASL library."""
    return config.bool("smtpd_sasl_auth_enable") and config.text("smtpd_sasl_type") == "cyrus"
