"""Logging in to other servers: the client's end of SASL mechanisms, without I/O.

`choose` takes the strongest mechanism that the server offers and the configuration allows; the
mechanism gives the initial response and answers challenges, `Dialogue` puts that into lines. What
the server says is hostile input: whatever does not fit is a `SaslClientError`, and no secret is
sent over it.
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from libmail.sasl.digest import DigestClient, DigestError
from libmail.sasl.mechanism import Mechanism, SecurityOptions
from libmail.sasl.scram import ScramClient, ScramError

__all__ = [
    "TOKEN_MECHANISMS",
    "ClientMechanism",
    "Credentials",
    "Dialogue",
    "SaslClientError",
    "choose",
    "make_client",
]

_MAX_CHALLENGE: Final = 8192
_MAX_CHALLENGES: Final = 10  # no mechanism has so many
_MAX_COMMAND: Final = 512  # octets, RFC 5321 §4.5.3.1.4; a response may be longer, RFC 4954 §4
_MASK: Final = "<masked>"
_SHORTEST_HIDDEN: Final = 4  # characters; what is shorter stands everywhere by chance
_SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1")
_PLUS: Final = "-PLUS"
_BOUND: Final = tuple(name + _PLUS for name in _SCRAM)
_PREFERRED: Final = ("tls-exporter", "tls-server-end-point")
_PASSWORD: Final = (*_SCRAM, "DIGEST-MD5", "CRAM-MD5", "PLAIN", "LOGIN")
_EXTERNAL: Final = "EXTERNAL"
TOKEN_MECHANISMS: Final = ("OAUTHBEARER", "XOAUTH2")
"""Those whose password is an OAuth access token."""


class SaslClientError(Exception):
    """The server's side of the exchange makes no sense. The text is printable."""


class Credentials(NamedTuple):
    """Who we are. password: for `TOKEN_MECHANISMS` an access token. host, port: of the server,
    which OAUTHBEARER names, and DIGEST-MD5 with the service. authzid: send_cyrus_sasl_authzid asks
    for it. bindings: data of channel bindings by name. plus: whether the server offers mechanisms
    with channel binding."""

    user: str
    password: str
    host: str = ""
    port: int = 0
    authzid: str = ""
    bindings: Mapping[str, bytes] = MappingProxyType({})
    plus: bool = False
    service: str = "smtp"


class ClientMechanism(Protocol):
    """One exchange."""

    def initial(self) -> bytes | None:
        """The initial response, None if the server speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge. Raises SaslClientError."""

    def finish(self) -> None:
        """The server says that we are logged in. Raises SaslClientError if it has yet to prove
        that it knows the password, too."""


def choose(
    offered: Iterable[str],
    options: SecurityOptions,
    *,
    token: bool,
    password: bool = True,
    bound: bool = False,
    external: bool = False,
) -> str:
    """The best mechanism, "" if there is none.

    token, password: whether what we know may be an access token, or a password. bound: there are
    channel bindings. external: our certificate says who we are.
    """
    names = {name.upper() for name in offered}
    known = (
        (_EXTERNAL,) * external + TOKEN_MECHANISMS * token + (_BOUND * bound + _PASSWORD) * password
    )
    for name in known:
        if name in names and options.accept(Mechanism.known(name)):
            return name
    return ""


def make_client(mechanism: str, credentials: Credentials) -> ClientMechanism:
    """Begin an exchange with one that `choose` gave. Raises SaslClientError."""
    if not credentials.user.strip():
        raise SaslClientError("All-whitespace username.")
    if mechanism.removesuffix(_PLUS) in _SCRAM:
        return _Scram(mechanism, credentials)
    return _MAKERS[mechanism](credentials)


class Dialogue:
    """One exchange in lines, RFC 4954 §4. Raises SaslClientError."""

    def __init__(self, mechanism: str, credentials: Credentials) -> None:
        """mechanism: one that `choose` gave."""
        self._mechanism = mechanism
        self._client = make_client(mechanism, credentials)
        self._left = _MAX_CHALLENGES
        self.slow = isinstance(self._client, _Scram)  # an answer costs time, as the server likes
        password = credentials.password
        self._secrets = [password, base64.b64encode(_octets(password)).decode("ascii")]

    def command(self) -> bytes:
        """AUTH, with the initial response where there is one and the line has room for it."""
        initial = self._client.initial()
        alone = f"AUTH {self._mechanism}\r\n".encode()
        if initial is None:
            return alone
        line = b"AUTH %b %b\r\n" % (self._mechanism.encode(), self._encoded(initial) or b"=")
        return line if len(line) <= _MAX_COMMAND else alone

    def answer(self, challenge: str) -> bytes:
        """The line that answers a challenge; challenge: what follows the code of the reply."""
        self._left -= 1
        if self._left < 0:
            raise SaslClientError("too many challenges")
        try:
            data = base64.b64decode(challenge.strip(), validate=True)
        except (binascii.Error, ValueError):
            raise SaslClientError("malformed challenge") from None
        return self._encoded(self._client.respond(data)) + b"\r\n"

    def finish(self) -> None:
        """See ClientMechanism."""
        self._client.finish()

    def _encoded(self, response: bytes) -> bytes:
        encoded = base64.b64encode(response)
        self._secrets.append(encoded.decode("ascii"))
        return encoded

    def masked(self, text: str) -> str:
        """Text of the session without what nobody may see, even where the server repeats it."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_HIDDEN:
                text = text.replace(secret, _MASK)
        return text


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _Plain:
    """RFC 4616."""

    def __init__(self, credentials: Credentials) -> None:
        user, password = _octets(credentials.user), _octets(credentials.password)
        if b"\0" in user + password:
            raise SaslClientError("NUL in credentials")
        self._message = b"%b\0%b\0%b" % (_octets(credentials.authzid), user, password)

    def initial(self) -> bytes | None:
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """A server that does not take initial responses asks with an empty challenge."""
        if challenge:
            raise SaslClientError("unexpected challenge")
        return self._message

    def finish(self) -> None:
        """PLAIN proves nothing of the server."""


class _Login:
    """Name and password, whatever the server calls them when it asks."""

    def __init__(self, credentials: Credentials) -> None:
        self._answers = [_octets(credentials.user), _octets(credentials.password)]

    def initial(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            raise SaslClientError("more challenges than LOGIN has")
        return self._answers.pop(0)

    def finish(self) -> None:
        """LOGIN proves nothing of the server."""


class _CramMd5:
    """RFC 2195."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def initial(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        if not challenge or len(challenge) > _MAX_CHALLENGE:
            raise SaslClientError("malformed challenge")
        digest = hmac.new(_octets(self._credentials.password), challenge, "md5").hexdigest()
        return b"%b %b" % (_octets(self._credentials.user), digest.encode())

    def finish(self) -> None:
        """CRAM-MD5 proves nothing of the server."""


class _DigestMd5:
    """RFC 2831. The server has to prove that it knows the password."""

    def __init__(self, credentials: Credentials) -> None:
        self._client = DigestClient(
            credentials.user,
            credentials.password,
            f"{credentials.service}/{credentials.host}",
            authzid=credentials.authzid,
        )
        self._step = 0

    def initial(self) -> bytes | None:
        return None

    def respond(self, challenge: bytes) -> bytes:
        self._step += 1
        try:
            if self._step == 1:
                return self._client.respond(challenge)
            if self._step == 2:
                self._client.verify(challenge)
                return b""
        except DigestError as error:
            raise SaslClientError(str(error)) from None
        raise SaslClientError("more challenges than DIGEST-MD5 has")

    def finish(self) -> None:
        if self._step != 2:
            raise SaslClientError("the server did not prove that it knows the password")


class _External:
    """RFC 4422 appendix A: the server knows us by our certificate."""

    def __init__(self, credentials: Credentials) -> None:
        self._authzid = _octets(credentials.authzid)

    def initial(self) -> bytes | None:
        return self._authzid

    def respond(self, challenge: bytes) -> bytes:
        if challenge:
            raise SaslClientError("unexpected challenge")
        return self._authzid

    def finish(self) -> None:
        """EXTERNAL proves nothing of the server."""


class _Scram:
    """RFC 5802. The server has to prove that it knows the password, before or with its 235."""

    def __init__(self, mechanism: str, credentials: Credentials) -> None:
        binding = None
        if mechanism.endswith(_PLUS):
            name = next(name for name in _PREFERRED if name in credentials.bindings)
            binding = name, credentials.bindings[name]
        try:
            self._client = ScramClient(
                mechanism.removesuffix(_PLUS),
                credentials.user,
                credentials.password,
                authzid=credentials.authzid,
                binding=binding,
                hidden=bool(credentials.bindings) and not credentials.plus,
            )
        except ValueError as error:
            raise SaslClientError(str(error)) from None
        self._step = 0

    def initial(self) -> bytes | None:
        self._step = 1
        return self._client.first()

    def respond(self, challenge: bytes) -> bytes:
        try:
            if self._step == 1 and not challenge:
                return self._client.first()
            self._step += 1
            if self._step == 2:
                return self._client.final(challenge)
            if self._step == 3:
                self._client.verify(challenge)
                return b""
        except (ScramError, ValueError) as error:
            raise SaslClientError(str(error)) from None
        raise SaslClientError("more challenges than SCRAM has")

    def finish(self) -> None:
        if self._step != 3:
            raise SaslClientError("the server did not prove that it knows the password")


class _Xoauth2:
    """As Google and Microsoft describe it. After an error the client answers with nothing."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def initial(self) -> bytes | None:
        user, token = _octets(self._credentials.user), _octets(self._credentials.password)
        return b"user=%b\1auth=Bearer %b\1\1" % (user, token)

    def respond(self, challenge: bytes) -> bytes:
        return b"" if challenge else self.initial() or b""

    def finish(self) -> None:
        """A token proves nothing of the server."""


class _OAuthBearer(_Xoauth2):
    """RFC 7628 §3."""

    def initial(self) -> bytes | None:
        known = self._credentials
        user = known.user.replace("=", "=3D").replace(",", "=2C")
        text = (
            f"n,a={user},\1host={known.host}\1port={known.port}\1auth=Bearer {known.password}\1\1"
        )
        return _octets(text)

    def respond(self, challenge: bytes) -> bytes:
        return b"\1" if challenge else self.initial() or b""


_MAKERS: Final[dict[str, Callable[[Credentials], ClientMechanism]]] = {
    "CRAM-MD5": _CramMd5,
    "DIGEST-MD5": _DigestMd5,
    _EXTERNAL: _External,
    "LOGIN": _Login,
    "OAUTHBEARER": _OAuthBearer,
    "PLAIN": _Plain,
    "XOAUTH2": _Xoauth2,
}
