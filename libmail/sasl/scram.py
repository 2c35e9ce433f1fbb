"""SCRAM (RFC 5802, RFC 7677): a login without sending the password, both ends, without I/O.

    client-first   n,,n=user,r=cnonce
    server-first   r=cnonce+snonce,s=salt,i=iterations
    client-final   c=channel-binding,r=nonce,p=proof
    server-final   v=signature

What the server keeps of a password (`ScramSecret`) is of no use for logging in. A client that does
not exist gets a salt made of its name, so that nobody can ask who exists.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from libmail.sasl.prepare import prepare

__all__ = [
    "ScramClient",
    "ScramError",
    "ScramSecret",
    "ScramServer",
    "derive",
    "parse_secret",
]

_MAX_MESSAGE: Final = 4096
_ITERATIONS: Final = range(4096, 10_000_001)
_NONCE: Final = 18  # octets, 24 in base64
# gs2-header = gs2-cbind-flag "," [authzid] ","                                    RFC 5802 §7
_CLIENT_FIRST: Final = re.compile(r"(n|y|p=[A-Za-z0-9.-]+),(?:a=([^,]*))?,(n=([^,]*),r=([^,]+))")
_SERVER_FIRST: Final = re.compile(r"r=([^,]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,8})(?:,.*)?")
_CLIENT_FINAL: Final = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([^,]+)),p=([A-Za-z0-9+/=]+)")
_SECRET: Final = re.compile(r"\{(SCRAM-SHA-(?:1|256))\}([0-9]{1,8}),([^,]+),([^,]+),([^,]+)")
_DIGESTS: Final = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}


class ScramError(Exception):
    """The other end broke the protocol, or did not prove who it is. The text is printable."""


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """What is kept of a password for one mechanism, RFC 5802 §3."""

    mechanism: str
    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def text(self) -> str:
        """As it stands in a table: {SCRAM-SHA-256}iterations,salt,stored key,server key."""
        parts = (self.salt, self.stored_key, self.server_key)
        encoded = ",".join(_encode(part) for part in parts)
        return f"{{{self.mechanism}}}{self.iterations},{encoded}"

    def matches(self, password: str) -> bool:
        """Whether this is the password, in constant time. Slow, as it is meant to be."""
        other = derive(password, self.mechanism, salt=self.salt, iterations=self.iterations)
        return hmac.compare_digest(other.stored_key, self.stored_key)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise ScramError("malformed base64") from None


def parse_secret(text: str) -> ScramSecret | None:
    """The inverse of `ScramSecret.text`; None for what is none."""
    match = _SECRET.fullmatch(text)
    if match is None or int(match[2]) not in _ITERATIONS:
        return None
    try:
        salt, stored, server = (_decode(match[number]) for number in (3, 4, 5))
    except ScramError:
        return None
    return ScramSecret(match[1], int(match[2]), salt, stored, server)


def _keys(digest: str, salted: bytes) -> tuple[bytes, bytes, bytes]:
    """Client key, stored key, server key."""
    client = hmac.digest(salted, b"Client Key", digest)
    return client, hashlib.new(digest, client).digest(), hmac.digest(salted, b"Server Key", digest)


def derive(
    password: str,
    mechanism: str = "SCRAM-SHA-256",
    *,
    salt: bytes = b"",
    iterations: int = 10_000,
) -> ScramSecret:
    """What to keep of a password. salt: a new one if empty. Raises ValueError for text that
    cannot be a password."""
    digest = _DIGESTS[mechanism]
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac(digest, prepare(password).encode(), salt, iterations)
    _, stored, server = _keys(digest, salted)
    return ScramSecret(mechanism, iterations, salt, stored, server)


class ClientFirst(NamedTuple):
    """What a client says first. binding: name of a channel binding, "" for none."""

    authzid: str
    user: str
    nonce: str
    bare: str
    header: str
    binding: str


def _name(text: str) -> str:
    """saslname: "=2C" is a comma, "=3D" an equals sign."""
    if re.search("=(?!2C|3D)", text):
        raise ScramError("malformed name")
    return text.replace("=2C", ",").replace("=3D", "=")


class ScramServer:
    """The server's end of one exchange: `first`, then `final`."""

    def __init__(
        self,
        mechanism: str,
        nonce: str = "",
        *,
        bindings: Mapping[str, bytes] | None = None,
        plus: bool = False,
    ) -> None:
        """mechanism: without -PLUS. nonce: for tests. bindings: data of the TLS channel by name of
        the binding, for -PLUS; None where the mechanism without -PLUS was chosen. plus: the one
        with -PLUS was announced."""
        self._digest = _DIGESTS[mechanism]
        self._mechanism = mechanism
        self._nonce = nonce or secrets.token_urlsafe(_NONCE)
        self._bindings = bindings
        self._plus = plus
        self._client: ClientFirst | None = None
        self._secret: ScramSecret | None = None
        self._first = ""
        self._real = False

    def client_first(self, message: bytes) -> tuple[str, str]:
        """User and authorization id ("" for the same) in the first message. Raises ScramError."""
        text = _text(message)
        match = _CLIENT_FIRST.fullmatch(text)
        if match is None:
            raise ScramError("malformed first message")
        flag = match[1]
        binding = flag[2:] if flag.startswith("p=") else ""
        if bool(binding) != (self._bindings is not None) or (
            self._bindings is not None and binding not in self._bindings
        ):
            raise ScramError("unsupported channel binding")
        if flag == "y" and self._plus:  # somebody has hidden it from the client: RFC 5802 §6
            raise ScramError("channel binding was announced")
        header = text[: match.start(3)]
        self._client = ClientFirst(
            _name(match[2] or ""), _name(match[4]), match[5], match[3], header, binding
        )
        return self._client.user, self._client.authzid

    def challenge(self, secret: ScramSecret | None) -> bytes:
        """The server's first message. secret: of the user; None for one that does not exist."""
        client = self._require_client()
        self._real = secret is not None
        self._secret = secret or _nobody(self._mechanism, client.user)
        self._first = (
            f"r={client.nonce}{self._nonce},s={_encode(self._secret.salt)},"
            f"i={self._secret.iterations}"
        )
        return self._first.encode()

    def _require_client(self) -> ClientFirst:
        if self._client is None:
            raise AssertionError("no first message yet")
        return self._client

    def final(self, message: bytes) -> bytes | None:
        """The server's last message; None if the client does not know the password.

        Raises ScramError.
        """
        client, secret = self._require_client(), self._secret
        if secret is None:
            raise AssertionError("no challenge yet")
        match = _CLIENT_FINAL.fullmatch(_text(message))
        if match is None:
            raise ScramError("malformed final message")
        bound = self._bindings[client.binding] if self._bindings and client.binding else b""
        if _decode(match[2]) != client.header.encode() + bound:
            raise ScramError("channel binding does not match")
        if match[3] != client.nonce + self._nonce:
            raise ScramError("nonce does not match")
        signed = f"{client.bare},{self._first},{match[1]}".encode()
        signature = hmac.digest(secret.stored_key, signed, self._digest)
        key = _xor(_decode(match[4]), signature)
        known = hmac.compare_digest(hashlib.new(self._digest, key).digest(), secret.stored_key)
        if not (known and self._real):
            return None
        return b"v=" + base64.b64encode(hmac.digest(secret.server_key, signed, self._digest))


def _nobody(mechanism: str, user: str) -> ScramSecret:
    salt = hmac.digest(_OUR_KEY.key, user.encode("utf-8", "surrogateescape"), "sha256")[:16]
    return ScramSecret(mechanism, 10_000, salt, b"", b"")


class _Key(NamedTuple):
    """Of this process, for what must look random but stay the same."""

    key: bytes


_OUR_KEY: Final = _Key(secrets.token_bytes(32))


def _xor(one: bytes, other: bytes) -> bytes:
    if len(one) != len(other):
        return b""
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _text(message: bytes) -> str:
    if len(message) > _MAX_MESSAGE:
        raise ScramError("message too long")
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ScramError("message is not UTF-8") from None
    if "\0" in text:
        raise ScramError("NUL in a message")
    return text


class ScramClient:
    """The client's end of one exchange: `first`, `final`, `verify`."""

    def __init__(
        self,
        mechanism: str,
        user: str,
        password: str,
        *,
        authzid: str = "",
        nonce: str = "",
        binding: tuple[str, bytes] | None = None,
        hidden: bool = False,
    ) -> None:
        """mechanism: without -PLUS. nonce: for tests. binding: name and data, for -PLUS. hidden: we
        could bind, but the server does not announce that it can."""
        self._digest = _DIGESTS[mechanism]
        self._password = password
        self._nonce = nonce or secrets.token_urlsafe(_NONCE)
        flag = f"p={binding[0]}" if binding else "y" if hidden else "n"
        self._header = f"{flag},{'a=' + _saslname(authzid) if authzid else ''},"
        self._bound = binding[1] if binding else b""
        self._bare = f"n={_saslname(prepare(user))},r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        """The first message."""
        return (self._header + self._bare).encode()

    def final(
        self,
        challenge: bytes,
        stretch: Callable[[str, bytes, bytes, int], bytes] = hashlib.pbkdf2_hmac,
    ) -> bytes:
        """The last message, for the server's first. Raises ScramError."""
        first = _text(challenge)
        match = _SERVER_FIRST.fullmatch(first)
        if match is None:
            raise ScramError("malformed challenge")
        if not match[1].startswith(self._nonce) or match[1] == self._nonce:
            raise ScramError("nonce does not match")
        iterations = int(match[3])
        if iterations not in _ITERATIONS:
            raise ScramError("unreasonable number of iterations")
        password = prepare(self._password).encode()
        salted = stretch(self._digest, password, _decode(match[2]), iterations)
        client, stored, server = _keys(self._digest, salted)
        final = f"c={_encode(self._header.encode() + self._bound)},r={match[1]}"
        signed = f"{self._bare},{first},{final}".encode()
        self._signature = hmac.digest(server, signed, self._digest)
        proof = _xor(client, hmac.digest(stored, signed, self._digest))
        return f"{final},p={_encode(proof)}".encode()

    def verify(self, message: bytes) -> None:
        """The server's last message. Raises ScramError if it does not know the password either."""
        text = _text(message)
        if not text.startswith("v="):
            raise ScramError("no server signature")
        if not hmac.compare_digest(_decode(text[2:].partition(",")[0]), self._signature):
            raise ScramError("server signature does not match")


def _saslname(text: str) -> str:
    return text.replace("=", "=3D").replace(",", "=2C")
