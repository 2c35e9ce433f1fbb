"""What token servers answer, and what of it is believed, and shown."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import pytest

from libmail.net.http import Response
from libmail.oauth.answers import Device, Tokens, Trouble, Why, parse_device, parse_tokens

SECRET = "1//refresh"


def response(body: object, status: int = 200, **fields: str) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): text for name, text in fields.items()}, data)


def trouble(answer: Response) -> Trouble:
    with pytest.raises(Trouble) as caught:
        parse_tokens(answer, (SECRET,))
    return caught.value


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"access_token": "a", "token_type": "Bearer", "expires_in": 3599}, Tokens("a", 3599.0)),
        ({"access_token": "a", "expires_in": "3599"}, Tokens("a", 3599.0)),
        ({"access_token": "a", "expires_in": 12.5}, Tokens("a", 12.5)),
        ({"access_token": "a"}, Tokens("a", 600.0)),
        ({"access_token": "a", "expires_in": 10**8}, Tokens("a", 2_592_000.0)),
        ({"access_token": "a", "refresh_token": "r"}, Tokens("a", 600.0, "r")),
    ],
)
def test_tokens(body: object, tokens: Tokens) -> None:
    assert parse_tokens(response(body), ()) == tokens


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 60_000,
        b"9" * 60_000,
        [],
        "access_token",
        {},
        {"access_token": ""},
        {"access_token": None},
        {"access_token": 5},
        {"access_token": "a b"},
        {"access_token": "a\r\nMAIL FROM:<>"},
        {"access_token": "a\1"},
        {"access_token": "ä"},
        {"access_token": "a" * 20_000},
        {"access_token": "a", "token_type": "mac"},
        {"access_token": "a", "token_type": 1},
        {"access_token": "a", "refresh_token": "x\ny"},
        {"access_token": "a", "refresh_token": None},
        {"access_token": "a", "expires_in": 0},
        {"access_token": "a", "expires_in": -5},
        {"access_token": "a", "expires_in": True},
        {"access_token": "a", "expires_in": "soon"},
        {"access_token": "a", "expires_in": 1e300},
        b'{"access_token": "a", "expires_in": NaN}',
        b'{"access_token": "a", "expires_in": Infinity}',
    ],
)
def test_lies(body: object) -> None:
    assert trouble(response(body)).why is Why.BROKEN


@pytest.mark.parametrize(
    ("status", "body", "why", "text"),
    [
        (400, {"error": "invalid_grant"}, Why.CONSENT, "invalid_grant"),
        (200, {"error": "invalid_grant", "access_token": "a"}, Why.BROKEN, "invalid_grant"),
        (401, {"error": "invalid_client"}, Why.REFUSED, "invalid_client"),
        (400, {"error": "authorization_pending"}, Why.PENDING, "authorization_pending"),
        (400, {"error": "slow_down"}, Why.SLOWER, "slow_down"),
        (400, {"error": "server_error"}, Why.BROKEN, "server_error"),
        (400, b"no", Why.BROKEN, "HTTP status 400"),
        (400, {"error": 7}, Why.BROKEN, "HTTP status 400"),
        (400, {"error": "x\ny"}, Why.BROKEN, "HTTP status 400"),
        (302, b"", Why.BROKEN, "HTTP status 302"),
        (500, {"error": "invalid_grant"}, Why.BROKEN, "invalid_grant"),
        (429, b"", Why.THROTTLED, "too many requests: HTTP status 429"),
        (503, b"", Why.BROKEN, "HTTP status 503"),
        (
            400,
            {
                "error": "invalid_grant",
                "error_description": f"{SECRET} has\x1b expired\r\nTrace: 1",
            },
            Why.CONSENT,
            "invalid_grant: <masked> has? expired",
        ),
        (
            400,
            {"error": "invalid_grant", "error_description": "x" * 9000},
            Why.CONSENT,
            f"invalid_grant: {'x' * 200}",
        ),
    ],
)
def test_errors(status: int, body: object, why: Why, text: str) -> None:
    found = trouble(response(body, status))
    assert (found.why, str(found), found.pause) == (why, text, 0.0)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("120", 120.0, 120.0),
        ("999999999", 3600.0, 3600.0),
        ("-5", 0.0, 0.0),
        ("soon", 0.0, 0.0),
        ("", 0.0, 0.0),
        (formatdate(0, usegmt=True), 0.0, 0.0),
        (formatdate(time.time() + 10**6, usegmt=True), 3600.0, 3600.0),
        ("Wed, 99 Foo 9999999 00:00:00 GMT", 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(text: str, low: float, high: float, status: int) -> None:
    found = trouble(response(b"", status, retry_after=text))
    assert low <= found.pause <= high
    assert (found.why is Why.THROTTLED) == (status == 429 or low > 0)


def test_device() -> None:
    body = {
        "device_code": "d",
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://x.test/device",
        "expires_in": 1800,
        "interval": 7,
    }
    want = Device("d", "WDJB-MJHT", "https://x.test/device", 1800.0, 7.0)
    assert parse_device(response(body), ()) == want
    other = {**body, "verification_url": body["verification_uri"]}
    del other["verification_uri"]
    assert parse_device(response(other), ()) == want
    usual = {name: body[name] for name in ("device_code", "user_code", "verification_uri")}
    assert parse_device(response(usual), ()).interval == 5.0


@pytest.mark.parametrize("key", ["device_code", "user_code", "verification_uri"])
@pytest.mark.parametrize("value", [None, 5, "", "a\nb", "x" * 20_000])
def test_lies_about_devices(key: str, value: object) -> None:
    body = {"device_code": "d", "user_code": "u", "verification_uri": "https://x.test", key: value}
    with pytest.raises(Trouble, match="malformed answer"):
        parse_device(response(body), ())


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Tokens("secret", 1.0, "secret"))
    assert "secret" not in repr(Device("secret", "A", "https://x.test", 1.0, 1.0))
