"""Fields as the real cleanup(8) left them, recorded from it, with identity as rewriting."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libmail.message.addresses import AddressField, addresses_in, complete
from libmail.message.tokens import external, internal, tokenize
from libmail.smtp.address import quote_local, unquote


@pytest.mark.parametrize(
    ("value", "addresses", "rendered"),
    [
        (
            'plain (a comment) , "Quoted Name"   <bare>,   Joe Q. Public <joe>',
            ["plain", "bare", "joe"],
            'X: plain (a comment), "Quoted Name" <bare>, Joe Q.Public <joe>',
        ),
        (
            "  A Group : one , two@x.test ,, Three Words <@r1,@r2:three> ; , four",
            ["one", "two@x.test", "@r1, @r2:three", "four"],
            "X: A Group: one, two@x.test, , Three Words <@r1, @r2:three>;, four",
        ),
        ("a b@c d", ["a", "b@c", "d"], "X: a, b@c, d"),
        ('"x\\"y" <"q s"@x>', ['"q s"@x'], 'X: "x\\"y" <"q s"@x>'),
        ("(only comment), <>", [], "X: (only comment), <>"),
        ("me @ example . com", ["me@example.com"], "X: me@example.com"),
        ("a;b, c@d;", ["a", "b", "c@d"], "X: a;, b, c@d;"),
        ("<one> <two>", ["one", "two"], "X: <one> <two>"),
        ('"foo"bar@x.y', ['"foo"', "bar@x.y"], 'X: "foo", bar@x.y'),
        ("x<y>z", ["y", "z"], "X: x <y>, z"),
        ("a:b:c", ["a:b:c"], "X: a:b:c"),
        ("<a@b> trailing words", ["a@b", "trailing", "words"], "X: <a@b>, trailing, words"),
        ("user@[1.2.3.4]x", ["user@[1.2.3.4]", "x"], "X: user@[1.2.3.4], x"),
        ("undisclosed:;", [], "X: undisclosed: ;"),
        ("a <b@c> (d)", ["b@c"], "X: a <b@c>(d)"),
        ('"fold\r\n ed" <f@f>', ["f@f"], 'X: "fold  ed" <f@f>'),
        ('"open <a@b>\r\n', ['"open <a@b>"'], 'X: "open <a@b>"'),
        ("[a@b\r\n", ["[a@b]"], "X: [a@b]"),
    ],
)
def test_field(value: str, addresses: list[str], rendered: str) -> None:
    field = AddressField(value)
    assert [mailbox.address for mailbox in field.mailboxes if mailbox.address] == addresses
    assert field.render("X") == rendered


def test_octets_of_a_character_that_stood_apart_are_one() -> None:
    tokens = tokenize(b"\xef\\\xb9\xb9@b.test".decode("utf-8", "surrogateescape"))
    assert internal(tokens) == external(tokens) == "\ufe79@b.test"


def test_no_member_of_a_list_is_lost() -> None:
    """header_address_token_limit is for what is shown; lists of recipients have no limit."""
    members = [f"m{number}@out.test" for number in range(5000)]
    assert addresses_in(", ".join(members)) == members
    assert len(tokenize(",".join(members))) == 6 * 5000 - 1


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (3, "a@b"),
        (4, "a@b,"),
        (5, "a@b,"),
        (7, "a@b, c@d"),
        (11, "a@b, c@d,"),
        (13, "a@b, c@d, <e@f>"),
        (20, "a@b, c@d, <e@f>, g"),
    ],
)
def test_a_limit_never_cuts_an_address(limit: int, kept: str) -> None:
    field = AddressField("a@b, c@d, <e@f>, g", limit)
    assert field.render("X") == f"X: {kept}".rstrip()
    assert field.truncated == (limit < 14)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ('|"command args"', ["|command args"]),
        ('| "command args"', ["|command args"]),
        ('alice, |"a b", "|c d"', ["alice", "|a b", "|c d"]),
        ('|"a b", |"c d"', ["|a b", "|c d"]),
        (':include:"/path/a b"', [":include:/path/a b"]),
        (':include: "/path"', [":include:/path"]),
        ('":include:/path"', [":include:/path"]),
        ('/dir/"a file"', ["/dir/", "a file"]),
        ("alice|bob", ["alice|bob"]),
        ('al"ice" "bob"', ["al", "ice", "bob"]),
    ],
)
def test_words_with_an_operator_between_are_one_member(text: str, members: list[str]) -> None:
    assert [mailbox.plain for mailbox in AddressField(text).mailboxes] == members


def test_folding() -> None:
    """Lines break at commas, where they would get longer than 69 characters."""
    field = AddressField('"quoted local"@example.test, <user@short>, user@host.example.test,a@b')
    assert field.render("To") == (
        'To: "quoted local"@example.test, <user@short>,\r\n\tuser@host.example.test, a@b'
    )
    field = AddressField("user@short, host!user@example.test, user%host@example.test")
    assert "\r\n" not in field.render("Reply-To")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" a.b@c.d\r\n", True),
        (b' Joe Doe <a@b.c>, "D. Oe" <d@e.f>,\r\n\tg@h.i\r\n', True),
        ("Jörg <a@b.c>".encode(), True),
        (b"a@b", False),
        (b"a", False),
        (b"a@b.c (comment)", False),
        (b"a!b@c.d", False),
        (b"a%b@c.d", False),
        (b"<@r:a@b.c>", False),
        (b'"a"@b.c', False),
        (b"a@b.c.", False),
        (b"a..b@c.d", False),
        (b"group: a@b.c;", False),
        (b"a@b.c d@e.f", False),
        (b"", False),
    ],
)
def test_complete(value: bytes, expected: bool) -> None:
    assert complete(value) is expected


# As sendmail(1) shows them when its addresses were completed; what the original makes of them.
ODD = [
    ("(1) a (2) @ (3) x.org (4)", "a@x.org (1) (2) (3) (4)"),
    ("(1) a (2) b (3)", "a (1), b (2) (3)"),
    ("a (1), (2) b", "a (1), b (2)"),
    ("(1), a", "(1), a"),
    ("(1) <a>", "(1) <a>"),
    ("g: (1) a, b (2);", "g: a (1), b (2);"),
    ("<(1) a (2)>", "<a (1) (2)>"),
    ("X <<b@x.org>>, <<c>>", "X < <b@x.org>>, < <c>>"),
    ("a,", "a, "),
    ("a,,b,", "a, , b, "),
    ("a>", "a>"),
    ("a>b", "a>, b"),
    ("x <a@b> (c) <d@e>", "x <a@b>(c) <d@e>"),
    ("<a> b <c>", "<a>b <c>"),
    ("<x <y>", "<x <y>"),
]


@pytest.mark.parametrize(("value", "shown"), ODD)
def test_odd_fields(value: str, shown: str) -> None:
    assert AddressField(value).render("X") == f"X: {shown}"


@given(st.text(alphabet=' \t"\\()<>@,;:.[]!%ab\r\n\udc80'))
@settings(max_examples=300)
@example("\\%<")
@example(":()\\")
@example(":()[\\")
@example("a@[b\\] (c)")
@example("a (b\\")
def test_any_text_gives_tokens_and_addresses(text: str) -> None:
    tokens = tokenize(text)
    external(tokens)
    internal(tokens)
    once = AddressField(text)
    again = AddressField(once.render("X")[2:])
    if "[" not in text or "\\" not in text:  # backslashes of a literal are lost
        assert [m.address for m in again.mailboxes] == [m.address for m in once.mailboxes]
    addresses_in(text)


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("<us er@x>", "<user@x>"),
        ("<a (c) b@x>", "<ab@x (c)>"),
        ('<a"b"c@x>', '<a "b" c@x>'),
        ("<a,b;c>", "<a, b;c>"),
        ("<(c)>", "<(c)>"),
        ("< <", "< <"),
        ('"tab\tx"@y', '"tab x"@y'),
        ("a@[1\\]\t2]", "a@[1] 2]"),
        ("Joe: x <a@b>", "Joe:x <a@b>"),
        ("Joe: <a@b>", "Joe: <a@b>"),
        ("x::y <a@b>", "x::y <a@b>"),
        ("x;y: <a@b>", "x;, y: <a@b>"),
        ("Joe; x <a@b>", "Joe;x <a@b>"),
        ("g: x y <a@b>;", "g: x y <a@b>;"),
        ("g: x; (c)", "g: x;(c)"),
        ("g: a, h: b; c", "g: a, h: b;, c"),
        ("g: a; h i: b;", "g:a;h i: b;"),
        ("a <b@c> d: e;", "a <b@c>d: e;"),
        ("g: ;", "g: ;"),
        ("x|y <d@e>", "x|y <d@e>"),
        ('"a\r\n b" (c\r\n d) <x@y>', '"a  b" (c  d) <x@y>'),
        (f"a (c\r\n {'d' * 70}\r\n\te), f", f"a (c\r\n {'d' * 70}\r\n\te), f"),
        (f"a, {'ü' * 32}, b", f"a,\r\n\t{'ü' * 32}, b"),
    ],
)
def test_odd_lists(value: str, rendered: str) -> None:
    assert AddressField(value).render("X") == f"X: {rendered}"


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("Joe: <a@b>", ["Joe", "a@b"]),
        ("Joe: x <a@b>;", ["a@b"]),
        ("Joe: a, b", ["Joe:a", "b"]),
        ("g: a; h: b;", ["b"]),
        ("g: a, h: b; c", ["a", "b", "c"]),
        ("a <b@c> d: e;", ["e"]),
    ],
)
def test_which_words_are_addresses(value: str, addresses: list[str]) -> None:
    assert addresses_in(value) == addresses


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("[a", "[a]"),
        ("[a\\", "[a]"),
        ('"a', '"a"'),
        ('"a\\', '"a"'),
        ('"a\\"', '"a\\""'),
        ("(a", "(a"),
        ("((a)\\", "((a)\\"),
        ("(a\\)", "(a\\)"),
    ],
)
def test_what_has_no_end(text: str, closed: str) -> None:
    (token,) = tokenize(text)
    assert str(token) == closed
    assert tokenize(closed) == [token]


@given(st.binary())
def test_what_is_complete_stays_the_same(data: bytes) -> None:
    if complete(data):
        for address in addresses_in(data.decode("utf-8", "surrogateescape")):
            assert quote_local(unquote(address)) == address


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (' "folded\r\n name" <a@b>\r\n', ['"folded  name" <a@b>']),
        (' "unclosed\r\n', ['"unclosed"']),
        (' "unclosed\r\n more <a@b>\r\n', ['"unclosed  more <a@b>"']),
        (" (folded\r\n\tcomment) a@b\r\n", ["a@b (folded \tcomment)"]),
    ],
)
def test_line_ends_are_spaces(value: str, shown: list[str]) -> None:
    field = AddressField(value)
    for mailbox in field.mailboxes:
        mailbox.address = mailbox.address.strip()
    assert field.render("To").removeprefix("To: ").splitlines() == shown
