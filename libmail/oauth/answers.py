"""What token servers say: RFC 6749 §5 (tokens, errors) and RFC 8628 §3.2 (device codes).

Everything is hostile: too long, of another type, or not what was asked for is `Trouble`, never an
exception of another kind, and never a token. Texts of the server are made printable and short, and
what is secret (`masked`) does not get into them.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from libmail.net.http import Response
from libmail.text.printable import printable

__all__ = ["Device", "Tokens", "Trouble", "Why", "is_token", "parse_device", "parse_tokens"]

# access-token = 1*VSCHAR, refresh-token = 1*VSCHAR                     RFC 6749 appendix A.12, A.17
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
_ERROR: Final = re.compile(r"[a-z0-9_.-]{1,60}", re.IGNORECASE)
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_USUAL_LIFE: Final = 600.0  # seconds, where the server does not say: RFC 6749 §5.1
_LONGEST_LIFE: Final = 86_400.0 * 30
_LONGEST_PAUSE: Final = 3600.0  # that a server may ask for: mail should not wait longer for it
_LONGEST_TEXT: Final = 200  # characters of an explanation
_SHORTEST_SECRET: Final = 4  # characters; what is shorter stands everywhere by chance
_CODE: Final = re.compile(r"[ -~]{1,100}")


class Why(Enum):
    """What an answer without tokens means."""

    CONSENT = auto()  # the owner of the mailbox has to agree again
    REFUSED = auto()  # our request will not get better by repeating it
    THROTTLED = auto()  # too many requests
    PENDING = auto()  # RFC 8628: nobody has agreed yet
    SLOWER = auto()  # RFC 8628: nor is to be asked so often
    BROKEN = auto()  # no answer, or none that makes sense


class Trouble(Exception):
    """No tokens. pause: seconds to wait, as the server says; 0 where it does not."""

    def __init__(self, why: Why, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.why = why
        self.pause = pause


_CODES: Final = {
    "invalid_grant": Why.CONSENT,
    "access_denied": Why.CONSENT,
    "expired_token": Why.CONSENT,
    "interaction_required": Why.CONSENT,
    "authorization_pending": Why.PENDING,
    "slow_down": Why.SLOWER,
    "temporarily_unavailable": Why.BROKEN,
    "server_error": Why.BROKEN,
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a server gave. life: seconds for which `access` is good, from when it was asked for.
    refresh: "" for the one that we have. The repr has no secret."""

    access: str
    life: float
    refresh: str = ""

    def __repr__(self) -> str:
        return f"Tokens(life={self.life})"


@dataclass(frozen=True, slots=True)
class Device:
    """RFC 8628 §3.2. code: for the server, user_code: for a person. life, interval: seconds."""

    code: str
    user_code: str
    address: str
    life: float
    interval: float

    def __repr__(self) -> str:
        return f"Device({self.user_code!r})"


def parse_tokens(response: Response, secrets: Iterable[str]) -> Tokens:
    """The answer to a request for tokens. secrets: never to be shown. Raises Trouble."""
    found = _object(response, secrets)
    access, refresh = found.get("access_token"), found.get("refresh_token", "")
    kind = found.get("token_type", "bearer")
    if not is_token(access) or not (refresh == "" or is_token(refresh)):
        raise Trouble(Why.BROKEN, "malformed answer: no token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Trouble(Why.BROKEN, "malformed answer: not a bearer token")
    life = _seconds(found.get("expires_in"), _USUAL_LIFE)
    return Tokens(str(access), min(life, _LONGEST_LIFE), str(refresh))


def parse_device(response: Response, secrets: Iterable[str]) -> Device:
    """The answer to a request for device and user codes. Raises Trouble."""
    found = _object(response, secrets)
    code, user_code = found.get("device_code"), found.get("user_code")
    address = found.get("verification_uri", found.get("verification_url"))
    if not is_token(code) or not _text(user_code) or not _text(address):
        raise Trouble(Why.BROKEN, "malformed answer: no code")
    return Device(
        str(code),
        str(user_code),
        str(address),
        _seconds(found.get("expires_in"), _USUAL_LIFE),
        min(_seconds(found.get("interval"), 5.0), 60.0),
    )


def is_token(value: object) -> bool:
    """Whether this can be a token."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _text(value: object) -> bool:
    return isinstance(value, str) and _CODE.fullmatch(value) is not None


def _seconds(value: object, usual: float) -> float:
    """Some servers put numbers in quotes. Raises Trouble."""
    if value is None:
        return usual
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise Trouble(Why.BROKEN, "malformed answer: no time")
    return float(value)


def _object(response: Response, secrets: Iterable[str]) -> dict[str, object]:
    """The JSON object of a good answer. Raises Trouble for an error of any kind."""
    try:
        found: object = json.loads(response.body)
    except (ValueError, RecursionError):
        found = None
    said = found if isinstance(found, dict) else {}
    if response.status == 200 and "error" not in said:
        if not said:
            raise Trouble(Why.BROKEN, "malformed answer: no JSON object")
        return said
    raise _trouble(response, said, secrets)


def _trouble(response: Response, said: dict[str, object], secrets: Iterable[str]) -> Trouble:
    code, status = said.get("error"), response.status
    pause = _pause(response.fields.get("retry-after", ""))
    if not isinstance(code, str) or not _ERROR.fullmatch(code):
        code = ""
    reason = code or f"HTTP status {status}"
    text = said.get("error_description")
    if isinstance(text, str) and text:
        reason += f": {_shown(text, secrets)}"
    if status == 429 or (status == 503 and pause):
        return Trouble(Why.THROTTLED, f"too many requests: {reason}", pause)
    if status >= 500 or not 400 <= status < 500 or not code:
        return Trouble(Why.BROKEN, reason, pause)
    return Trouble(_CODES.get(code, Why.REFUSED), reason, pause)


def _shown(text: str, secrets: Iterable[str]) -> str:
    """The part of it that is for people, in one line."""
    text = text[:4096]
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "<masked>")
    return printable(text.partition("\n")[0].strip())[:_LONGEST_TEXT]


def _pause(text: str) -> float:
    """Retry-After, RFC 9110 §10.2.3: seconds, or a date, which is one of the server's clock."""
    if _DIGITS.fullmatch(text):
        return min(float(text), _LONGEST_PAUSE)
    try:
        when = email.utils.parsedate_to_datetime(text[:100]).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(when - time.time(), 0.0), _LONGEST_PAUSE)
