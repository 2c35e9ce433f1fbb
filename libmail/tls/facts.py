"""What two ends have agreed upon, and who the peer is: values for logs, headers and decisions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["Agreed", "Algorithm", "Refusal", "Trust", "client_comment"]

# Results of verification that have words of their own, X509_V_ERR_... of the library.
_SELF_SIGNED: Final = (18, 19)
UNTRUSTED_ISSUER: Final = (2, 20, 21)
_NOT_YET_VALID: Final = (9, 13)
EXPIRED: Final = (10, 14)
CHAIN_TOO_LONG: Final = 22
INVALID_PURPOSE: Final = 26
UNTRUSTED: Final = 27
WRONG_NAME: Final = 62
NO_DANE_MATCH: Final = 65


class Trust(Enum):
    """How much is known of the peer; the value is the word of the log line."""

    ANONYMOUS = "Anonymous"  # it has shown no certificate
    UNTRUSTED = "Untrusted"  # one that nobody vouches for
    TRUSTED = "Trusted"  # an authority vouches for the certificate
    VERIFIED = "Verified"  # and it is the one that was asked for


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A key exchange or signature. detail: "2048 bits" or a curve; digest: "" for none."""

    name: str
    detail: str = ""
    digest: str = ""

    def text(self, role: str) -> str:
        """Such as `server-signature RSA-PSS (2048 bits) server-digest SHA256`."""
        detail = f" ({self.detail})" if self.detail else ""
        if role == "key-exchange":
            return f"key-exchange {self.name}{detail}"
        digest = f" {role}-digest {self.digest}" if self.digest else ""
        return f"{role}-signature {self.name}{detail}{digest}"


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the handshake has settled. bits, of_bits: of the cipher, those that count and all.

    exchange and signatures are known with TLS 1.3 only: before, the name of the cipher tells them.
    """

    protocol: str
    cipher: str
    bits: int
    of_bits: int
    resumed: bool
    exchange: Algorithm | None = None
    server: Algorithm | None = None
    client: Algorithm | None = None

    def _parts(self) -> list[str]:
        found = []
        if self.exchange is not None:
            found.append(self.exchange.text("key-exchange"))
        if self.server is not None:
            found.append(self.server.text("server"))
        if self.client is not None:
            found.append(self.client.text("client"))
        return found

    def text(self) -> str:
        """`TLSv1.3 with cipher NAME (256/256 bits) key-exchange ...`, for the log."""
        head = f"{self.protocol} with cipher {self.cipher} ({self.bits}/{self.of_bits} bits)"
        return " ".join([head, *self._parts()])

    def established(self, trust: Trust, direction: str, peer: str, name: str = "") -> str:
        """The line of the log. direction: "from" or "to"; name: that was asked for (SNI)."""
        verb = "reused" if self.resumed else "established"
        sni = f" to {name}" if name else ""
        return f"{trust.value} TLS connection {verb} {direction} {peer}{sni}: {self.text()}"

    def received(self) -> str:
        """The comment of a Received header, without the line end: `(using TLSv1.3 ...)`."""
        head = f"(using {self.protocol} with cipher {self.cipher} ({self.bits}/{self.of_bits} bits)"
        exchange = self.exchange.text("key-exchange") if self.exchange else ""
        server = self.server.text("server") if self.server else ""
        lines = [head]
        if exchange or server:
            lines.append(" ".join(filter(None, [exchange, server])))
        if self.client is not None:
            lines.append(self.client.text("client"))
        return "\n\t ".join(lines) + ")"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a certificate is not trusted. code: X509_V_ERR_...; words: of the library.

    depth: 0 for that of the peer. issuer: of the certificate, in one line. limit: of the depth.
    """

    code: int
    depth: int
    words: str
    issuer: str = ""
    limit: int = 0

    @property
    def is_name_only(self) -> bool:
        """Whether an authority vouches for the certificate, which is for somebody else."""
        return self.code == WRONG_NAME

    def text(self, role: str, peer: str) -> str:
        """The line of the log. role: whose certificate, "server" or "client"."""
        general = f"certificate verification failed for {peer}: "
        if self.code == UNTRUSTED:
            return f"{general}not trusted by local or TLSA policy"
        if self.code in _SELF_SIGNED:
            return f"{general}self-signed certificate"
        if self.code in UNTRUSTED_ISSUER:
            return f"{general}untrusted issuer {self.issuer}"
        if self.code in _NOT_YET_VALID:
            return f"{role} {general}certificate not yet valid"
        if self.code in EXPIRED:
            return f"{role} {general}certificate has expired"
        if self.code == INVALID_PURPOSE:
            return f"{general}not designated for use as a {role} certificate"
        if self.code == CHAIN_TOO_LONG:
            return f"{general}certificate chain longer than limit({self.limit})"
        return f"{role} {general}num={self.code}:{self.words}"


def client_comment(trust: Trust, name: str, issuer: str, *, asked: bool) -> str:
    """The comment of a Received header about the certificate of a client.

    name, issuer: as in it, without what would end a quoted string. asked: for a certificate.
    """
    if trust is Trust.ANONYMOUS:
        what = (
            "Client did not present a certificate" if asked else "No client certificate requested"
        )
        return f"({what})"
    verdict = "not verified" if trust is Trust.UNTRUSTED else "verified OK"
    return f'(Client CN "{_quotable(name)}", Issuer "{_quotable(issuer)}" ({verdict}))'


def _quotable(text: str) -> str:
    """Text of a stranger inside a quoted string of a comment."""
    return "".join("?" if char in '"\\()' or not char.isprintable() else char for char in text)
