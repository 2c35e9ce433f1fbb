"""Addresses of the SMTP envelope: paths, quoting, parameters, bounds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.smtp.address import (
    AddressSyntax,
    Unterminated,
    XtextError,
    address_fault,
    parse_parameters,
    parse_path,
    quote_local,
    split_address,
    unquote,
    xtext_decode,
    xtext_encode,
)

PATHS = {
    "plain": ("<a@b.c>", ("a@b.c", "")),
    "parameters": ("<a@b.c> SIZE=9 BODY=7BIT", ("a@b.c", "SIZE=9 BODY=7BIT")),
    "null": ("<>", ("", "")),
    "null with parameters": ("<> SIZE=9", ("", "SIZE=9")),
    "leading space": ("  <a@b.c>", ("a@b.c", "")),
    "no brackets": ("a@b.c SIZE=9", ("a@b.c", "SIZE=9")),
    "space inside": ("< a@b.c >", ("a@b.c", "")),
    "route": ("<@x,@[IPv6:::1]:a@b>", ("a@b", "")),
    "quoted": ('<"a>b"@c>', ("a>b@c", "")),
    "quoted space": ('<"john doe"@c> SIZE=1', ("john doe@c", "SIZE=1")),
    "quoted at": ('<"a@b"@c>', ("a@b@c", "")),
    "quoted pair": (r'<"a\"b\\c"@c>', (r'a"b\c@c', "")),
    "partly quoted": ('<a."b c".d@e>', ("a.b c.d@e", "")),
    "literal": ("<a@[1.2.3.4]>", ("a@[1.2.3.4]", "")),
    "IPv6 literal": ("<a@[IPv6:2001:db8::1]>", ("a@[IPv6:2001:db8::1]", "")),
    "postmaster": ("<Postmaster>", ("Postmaster", "")),
    "empty quoted": ('<""@c>', ("@c", "")),
    "comment": ("<a(b)@c>", ("a@c", "")),
    "comment behind": ("<a@b>(c)", ("a@b", "")),
    "comment that is not closed": ("<a@b(c>", ("a@b", "")),
    "name": ("<Some One <a@b>>", ("a@b", "")),
    "two brackets": ("<<a@b>>", ("a@b", "")),
    "a bracket too many": ("<a@b>> SIZE=1", ("a@b", "SIZE=1")),
    "only the second bracket": ("a@b> SIZE=1", ("a@b", "SIZE=1")),
    "two routes": ("<@x:@y,@z:a@b>", ("a@b", "")),
    "route before a quoted colon": ('<@x:"b:c"@d>', ("b:c@d", "")),
    "colon": ("<a:b@c>", ("a:b@c", "")),
    "controls": ("<a\x1bb@c>", ("a\x1bb@c", "")),
    "quoted return": ('<"a\rb"@c>', ("a\rb@c", "")),
    "returns where blanks may be": ("\r<a\r@\rb\r>\rSIZE=1", ("a@b", "SIZE=1")),
    "utf8": ("<dömi@exämple.org>", ("dömi@exämple.org", "")),
}


@pytest.mark.parametrize(("text", "want"), PATHS.values(), ids=PATHS)
def test_parse_path(text: str, want: tuple[str, str]) -> None:
    assert parse_path(text, utf8=True) == want


@pytest.mark.parametrize(
    "text",
    ["", "<", "<a@b", '<"a@b>', "<a@[1.2.3.4>", "<a,b@c>", "<a]@b>", "<a@b>SIZE=9", "<a@b>x>",
     "<a@b>>>", "a@b>>", "<<a@b>", '<a"b"@c>', '<"a"b@c>', '<"a""b"@c>', "<a\rb@c>", "<a b@c>",
     '<"" a>', '<"" a@b>', '<a "">', '<"" "">'],
)  # fmt: skip
def test_parse_path_refuses(text: str) -> None:
    with pytest.raises(AddressSyntax):
        parse_path(text, utf8=True)


@pytest.mark.parametrize("text", ["<", "<a@b", '<"a@b>', "<a@b SIZE=9"])
def test_what_is_never_closed_is_told_apart(text: str) -> None:
    with pytest.raises(Unterminated):
        parse_path(text, utf8=True)


@pytest.mark.parametrize("text", ["a@b", "<a(x)@b>", "", "<@b>", '<""@b>', "<list: a@b;>"])
def test_not_strict_paths(text: str) -> None:
    with pytest.raises(AddressSyntax):
        parse_path(text, utf8=True, strict=True)


@pytest.mark.parametrize("text", ["<a@b>", "< a@b >", "<<a@b>>", "<@r1,@r2:a@b>", " <a@b>"])
def test_strict_paths(text: str) -> None:
    assert parse_path(text, utf8=True, strict=True) == ("a@b", "")


@pytest.mark.parametrize(
    ("text", "address"),
    [("<list: a@b;>", "a@b"), ("<list:a@b ;>", "a@b"), ("<a b:;>", "")],
)
def test_group_of_one(text: str, address: str) -> None:
    assert parse_path(text, utf8=True) == (address, "")


@pytest.mark.parametrize("text", ["<list: a@b, c@d;>", "<a@b;>", "<x: y: a@b;>", "<@r:a@b;>"])
def test_no_group_of_one(text: str) -> None:
    with pytest.raises(AddressSyntax):
        parse_path(text, utf8=True)


def test_utf8_only_when_asked_for() -> None:
    with pytest.raises(AddressSyntax):
        parse_path("<ö@b>", utf8=False)


QUOTING = {
    "plain": ("a@b", "a@b"),
    "space": ("a b@c", '"a b"@c'),
    "two dots": ("a..b@c", '"a..b"@c'),
    "dot at end": ("a.@c", '"a."@c'),
    "at": ("a@b@c", '"a@b"@c'),
    "quote": ('a"b\\c@d', '"a\\"b\\\\c"@d'),
    "empty local": ("@c", '""@c'),
    "null": ("", ""),
    "no domain": ("a b", '"a b"'),
    "utf8": ("ö@b", "ö@b"),
}


@pytest.mark.parametrize(("internal", "external"), QUOTING.values(), ids=QUOTING)
def test_quoting(internal: str, external: str) -> None:
    assert quote_local(internal) == external
    assert unquote(external) == internal


SPLIT_CHARACTERS = {
    "pair": b"<\xef\\\xb9\xb9@b.test>",
    "comment": b"<\xef(x)\xb9\xb9@b.test>",
    "quoted": b'<"\xef\\\xb9\xb9"@b.test>',
}


@pytest.mark.parametrize("path", SPLIT_CHARACTERS.values(), ids=SPLIT_CHARACTERS)
def test_octets_of_a_character_that_stood_apart_are_one(path: bytes) -> None:
    """Others decode the same octets to the same text."""
    text = path.decode("utf-8", "surrogateescape")
    assert parse_path(text, utf8=True)[0] == "\ufe79@b.test"
    if b"(" not in path:
        assert unquote(text[1:-1]) == "\ufe79@b.test"


@pytest.mark.parametrize(
    ("address", "want"), [("a@b", ("a", "b")), ("a@b@c", ("a@b", "c")), ("a", ("a", ""))]
)
def test_split_address(address: str, want: tuple[str, str]) -> None:
    assert split_address(address) == want


def test_parameters() -> None:
    text = "SIZE=9  body=8BITMIME smtputf8 =x ENVID=a+2Bb RET="
    want: list[tuple[str, str | None]] = [
        ("SIZE", "9"),
        ("BODY", "8BITMIME"),
        ("SMTPUTF8", None),
        ("=x", None),
    ]
    want += [("ENVID", "a+2Bb"), ("RET", "")]
    assert parse_parameters(text) == want


@pytest.mark.parametrize("text", ["a b", "a+", "a+2", "a+zz", "a=b", "ö"])
def test_bad_xtext(text: str) -> None:
    with pytest.raises(XtextError):
        xtext_decode(text)


@given(st.text())
@settings(max_examples=60)
def test_xtext_round_trip(text: str) -> None:
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    assert xtext_decode(xtext_encode(text)) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1))
@settings(max_examples=100)
def test_a_quoted_address_parses_to_itself(local: str) -> None:
    address = f"{local}@example.org"
    assert parse_path(f"<{quote_local(address)}> A=1", utf8=True) == (address, "A=1")


@given(st.text(alphabet='<>@"\\[]() \ta.:,;ö', max_size=30))
@settings(max_examples=200)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_path(text, utf8=True)
    except AddressSyntax:
        pass


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("", ""),
        ("a@b.test", ""),
        ("a\r\x1bb@c", ""),  # as in the original: shown as "?"
        ("x" * 2048, ""),
        ("x" * 2049, "address too long"),
        ("\u00e4" * 1025, "address too long"),
        ("\udcff" * 2049, "address too long"),
        ("a\nb@c", "control character in an address"),
        ("a\0b@c", "control character in an address"),
    ],
)
def test_what_no_program_takes(address: str, fault: str) -> None:
    assert address_fault(address) == fault
