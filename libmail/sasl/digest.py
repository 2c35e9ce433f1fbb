"""DIGEST-MD5 (RFC 2831), the client's end, without I/O; obsolete (RFC 6331), but still asked for.

    challenge   realm="...",nonce="...",qop="auth",charset=utf-8,algorithm=md5-sess
    response    username="...",realm="...",nonce="...",cnonce="...",nc=00000001,qop=auth,...
    last        rspauth=...

The server has to prove that it knows the password, too. There are no security layers.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final

__all__ = ["DigestClient", "DigestError"]

_MAX_CHALLENGE: Final = 2048  # octets, RFC 2831 §2.1.1
_COUNT: Final = "00000001"
# directive = name "=" ( quoted-string / token )                                  RFC 2831 §2.1
_DIRECTIVE: Final = re.compile(r'([A-Za-z0-9-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]*))')
_GAP: Final = re.compile(r"[ \t\r\n,]*")


class DigestError(Exception):
    """The server broke the protocol, or did not prove who it is. The text is printable."""


class DigestClient:
    """One exchange: `respond`, `verify`."""

    def __init__(
        self, user: str, password: str, uri: str, *, authzid: str = "", cnonce: str = ""
    ) -> None:
        """uri: service and name of the server, "smtp/mx.example.com". cnonce: for tests."""
        self._user = user
        self._password = password
        self._uri = uri
        self._authzid = authzid
        self._cnonce = cnonce or secrets.token_urlsafe(18)
        self._proof = ""

    def respond(self, challenge: bytes) -> bytes:
        """The response to the server's challenge. Raises DigestError."""
        found = _directives(challenge)
        nonce = found.get("nonce", "")
        qualities = found.get("qop", "auth").replace(",", " ").lower().split()
        if not nonce or found.get("algorithm") != "md5-sess" or "auth" not in qualities:
            raise DigestError("unusable challenge")
        charset = "utf-8" if found.get("charset") == "utf-8" else "iso-8859-1"
        realm = found.get("realm")
        key = self._key(realm or "", nonce, charset)
        self._proof = self._answer(key, nonce, "")
        parts = [
            f"charset={charset}" if charset == "utf-8" else "",
            f"username={_quoted(self._user)}",
            f"realm={_quoted(realm)}" if realm is not None else "",
            f"nonce={_quoted(nonce)}",
            f"nc={_COUNT}",
            f"cnonce={_quoted(self._cnonce)}",
            f"digest-uri={_quoted(self._uri)}",
            f"response={self._answer(key, nonce, 'AUTHENTICATE')}",
            "qop=auth",
            f"authzid={_quoted(self._authzid)}" if self._authzid else "",
        ]
        return _encoded(",".join(part for part in parts if part), charset)

    def verify(self, last: bytes) -> None:
        """The server's proof. Raises DigestError."""
        proof = _directives(last).get("rspauth", "").encode("utf-8", "surrogateescape")
        if not self._proof or not hmac.compare_digest(proof, self._proof.encode()):
            raise DigestError("the server did not prove that it knows the password")

    def _key(self, realm: str, nonce: str, charset: str) -> str:
        """HEX(H(A1)), RFC 2831 §2.1.2.1: hashed in ISO 8859-1 what can be written in it."""
        secret = b":".join(_narrow(text, charset) for text in (self._user, realm, self._password))
        parts = [nonce, self._cnonce, *filter(None, [self._authzid])]
        whole = b":".join([_md5(secret).digest(), *(_encoded(part, charset) for part in parts)])
        return _md5(whole).hexdigest()

    def _answer(self, key: str, nonce: str, method: str) -> str:
        """The response of the client (method AUTHENTICATE), or of the server ("")."""
        second = _md5(_encoded(f"{method}:{self._uri}", "utf-8")).hexdigest()
        text = f"{key}:{nonce}:{_COUNT}:{self._cnonce}:auth:{second}"
        return _md5(_encoded(text, "utf-8")).hexdigest()


def _md5(data: bytes) -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)


def _encoded(text: str, charset: str) -> bytes:
    """Raises DigestError for what the server's character set does not have."""
    try:
        return text.encode(charset, "surrogateescape" if charset == "utf-8" else "strict")
    except UnicodeEncodeError:
        raise DigestError("a name or password that the server cannot understand") from None


def _narrow(text: str, charset: str) -> bytes:
    try:
        return text.encode("iso-8859-1")
    except UnicodeEncodeError:
        return _encoded(text, charset)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _directives(data: bytes) -> dict[str, str]:
    """The first of each. Raises DigestError."""
    if len(data) > _MAX_CHALLENGE:
        raise DigestError("challenge too long")
    text, found = data.decode("utf-8", "surrogateescape"), dict[str, str]()
    at = _behind_gap(text, 0)
    while at < len(text):
        match = _DIRECTIVE.match(text, at)
        if match is None:
            raise DigestError("malformed challenge")
        value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        found.setdefault(match[1].lower(), value)
        at = _behind_gap(text, match.end())
        if at < len(text) and "," not in text[match.end() : at]:
            raise DigestError("malformed challenge")
    return found


def _behind_gap(text: str, at: int) -> int:
    match = _GAP.match(text, at)
    return at if match is None else match.end()
