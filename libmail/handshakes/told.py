"""What is known of a TLS session, as one program tells it to another: tlsproxy(8) to smtpd(8)."""

from __future__ import annotations

from libmail.ipc.codec import WireError
from libmail.ipc.messages import TlsSession
from libmail.lookup.facts import Tls
from libmail.tls.facts import Agreed, Algorithm, Trust

__all__ = ["heard", "told"]

_NOTHING = Algorithm("")


def told(tls: Tls, terms: str) -> TlsSession:
    """terms: see `Handshakes.terms`."""
    agreed = tls.agreed
    exchange, server, client = [
        one or _NOTHING for one in (agreed.exchange, agreed.server, agreed.client)
    ]
    return TlsSession(
        agreed.protocol,
        agreed.cipher,
        agreed.bits,
        agreed.of_bits,
        agreed.resumed,
        exchange.name,
        exchange.detail,
        server.name,
        server.detail,
        server.digest,
        client.name,
        client.detail,
        client.digest,
        tls.trust.value,
        tls.subject,
        tls.issuer,
        tls.fingerprint,
        tls.key,
        tls.sni,
        terms,
    )


def heard(session: TlsSession) -> Tls:
    """The same as facts. Raises WireError."""
    try:
        trust = Trust(session.trust)
    except ValueError:
        raise WireError(f"no degree of trust: {session.trust[:40]!r}") from None
    agreed = Agreed(
        session.protocol,
        session.cipher,
        session.bits,
        session.of_bits,
        session.resumed,
        _algorithm(session.exchange, session.exchange_detail),
        _algorithm(session.server, session.server_detail, session.server_digest),
        _algorithm(session.client, session.client_detail, session.client_digest),
    )
    return Tls(
        agreed,
        trust,
        session.subject,
        session.issuer,
        session.fingerprint,
        session.key,
        session.sni,
    )


def _algorithm(name: str, detail: str, digest: str = "") -> Algorithm | None:
    return Algorithm(name, detail, digest) if name else None
