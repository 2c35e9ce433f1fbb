"""What the real trivial-rewrite(8) answers, recorded from it."""

import pytest

from libmail.lookup.rewriting import LOCAL, REMOTE, Rewriter
from libmail.lookup.routing_params import RewriteParams

PARAMS = RewriteParams(
    myorigin="example.test",
    mydomain="example.test",
    remote_header_rewrite_domain="domain.invalid",
    append_at_myorigin=True,
    append_dot_mydomain=True,
    swap_bangpath=True,
    allow_percent_hack=True,
)


@pytest.mark.parametrize(
    ("address", "rewritten"),
    [
        ("", ""),
        ("plain", "plain@example.test"),
        ("user@short", "user@short.example.test"),
        ("user@full.test", "user@full.test"),
        ("host!user", "user@host.example.test"),
        ("a!b!c@d", "a!b!c@d.example.test"),
        ("user%inner.test@outer", "user%inner.test@outer.example.test"),
        ("@route:u@x.test", "u@x.test"),
        ("@r1,@r2:three", "three@example.test"),
        ('"quoted local"@example.test', "quoted local@example.test"),
        ("user@short.", "user@short"),
        ("user@example.test.", "user@example.test"),
        ("user%host", "user@host.example.test"),
        ("%foo", "@foo.example.test"),
        ("foo%bar%baz", "foo%bar@baz.example.test"),
        ("a!b@c%d", "a!b@c%d.example.test"),
        ('"a@b"@c.d', "a@b@c.d"),
        ('"a@b"', "a@b@example.test"),
        ('"a!b"', "a!b@example.test"),
        ("x@y@z", "x@y@z.example.test"),
        ("user@.example.test", "user@.example.test"),
        ("@example.test", "@example.test"),
        ("user@", "user@"),
        ("a.@b.c", "a.@b.c"),
        ("user@[192.0.2.1]", "user@[192.0.2.1]"),
        ("user@[IPv6:::1]", "user@[IPv6:::1]"),
        ("[1.2.3.4]", "[1.2.3.4]@example.test"),
        ("me @ example . com", "me@example.com"),
    ],
)
def test_local_context(address: str, rewritten: str) -> None:
    assert Rewriter(PARAMS).rewrite(LOCAL, address) == rewritten


@pytest.mark.parametrize(
    ("address", "rewritten"),
    [
        ("plain", "plain@domain.invalid"),
        ("user@short", "user@short.domain.invalid"),
        ("host!user", "user@host.domain.invalid"),
        ("user%host", "user@host.domain.invalid"),
    ],
)
def test_remote_context(address: str, rewritten: str) -> None:
    assert Rewriter(PARAMS).rewrite(REMOTE, address) == rewritten


@pytest.mark.parametrize(
    ("address", "rewritten"),
    [
        ("user@short", "user@short"),
        ("host!user", "host!user@example.test"),
        ("user%host", "user%host@example.test"),
    ],
)
def test_forms_switched_off(address: str, rewritten: str) -> None:
    params = RewriteParams(
        "example.test", "example.test", "", True, False, swap_bangpath=False,
        allow_percent_hack=False,
    )  # fmt: skip
    assert Rewriter(params).rewrite(LOCAL, address) == rewritten
