"""HTTP: what is asked, and what may be answered."""

from __future__ import annotations

import pytest

from libmail.net.http import HttpError, ResponseParser, Url, form_request, parse_url


@pytest.mark.parametrize(
    ("text", "url", "authority"),
    [
        ("https://x.test", Url("x.test", 443, "/"), "x.test"),
        ("https://X.test:8443/a/b?c=d", Url("x.test", 8443, "/a/b?c=d"), "x.test:8443"),
        ("https://[::1]:44/t", Url("::1", 44, "/t"), "[::1]:44"),
    ],
)
def test_urls(text: str, url: Url, authority: str) -> None:
    assert parse_url(text) == url
    assert url.authority() == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://x.test/",
        "https://",
        "https:///a",
        "https://a b/",
        "https://me:pass@x.test/",
        "https://x.test/#a",
        "https://x.test:99999/",
        "https://x.test/a b",
        "https://x.test/ä",
        "https://[::1/",
        "ftp://x.test/",
    ],
)
def test_no_urls(text: str) -> None:
    with pytest.raises(ValueError, match=r"not |Port|IPv6|port"):
        parse_url(text)


def test_request() -> None:
    said = form_request(Url("x.test", 444, "/t"), {"a": "1&2", "b": "ä\r\n"}, "Postfix")
    assert said == (
        b"POST /t HTTP/1.1\r\nHost: x.test:444\r\nUser-Agent: Postfix\r\n"
        b"Accept: application/json\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 24\r\nConnection: close\r\n\r\na=1%262&b=%C3%A4%0D%0A"
    ).replace(b"24", b"22")


def receive(data: bytes, limit: int = 1000) -> tuple[int, bytes]:
    """The response, octet by octet and in one piece."""
    whole = ResponseParser(limit)
    found = whole.receive(data) or whole.receive(b"")
    parser, pieces = ResponseParser(limit), [bytes([octet]) for octet in data]
    for piece in (*pieces, b""):
        if (again := parser.receive(piece)) is not None:
            assert again == found
            return again.status, again.body
    raise AssertionError(data)


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", (200, b"abc")),
        (b"HTTP/1.0 400\n\nall of it", (400, b"all of it")),
        (b"HTTP/1.1 204 \r\n\r\n", (204, b"")),
        (b"HTTP/1.1 100 go on\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, b"")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"
            b"3\r\nabc\r\n0002;x=y\r\n\r\n\r\n0\r\nTrailer: x\r\n\r\n",
            (200, b"abc\r\n"),
        ),
    ],
)  # fmt: skip
def test_responses(data: bytes, want: tuple[int, bytes]) -> None:
    assert receive(data) == want


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"220 mx.test ESMTP\r\n\r\n", "not an HTTP server"),
        (b"\r\n\r\n", "not an HTTP server"),
        (HEAD + b"no field\r\n\r\n", "malformed field"),
        (HEAD + b" folded: x\r\n\r\n", "malformed field"),
        (HEAD + b"Content-Length: -1\r\n\r\n", "malformed length"),
        (HEAD + b"Content-Length: 5000000000\r\n\r\n", "malformed length"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "unknown transfer coding"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "malformed chunk"),
        (HEAD + b"a: b\r\n" * 200, "too many fields"),
        (HEAD + b"Content-Length: 5\r\n\r\nabc", "cut short"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "cut short"),
        (HEAD, "cut short"),
        (b"", "cut short"),
        (HEAD + b"\r\n" + b"x" * 2000, "too long"),
        (b"x" * 2000, "too long"),
    ],
)
def test_no_responses(data: bytes, text: str) -> None:
    with pytest.raises(HttpError, match=text):
        receive(data, 1500)
