"""Command lines with macros."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.pipe.attributes import Flags
from daemons.pipe.macros import BadMacro, CommandLine, Style
from libmail.ipc.messages import DeliverRequest, Envelope, Nexthop, QueueId, Recipient, Transport

REQUEST = DeliverRequest(
    flags=0,
    queue_id=QueueId("ID"),
    transport=Transport("show"),
    nexthop=Nexthop("Next.Hop"),
    sender="Odd Sender@Far.test",
    envelope_flags=0,
    dsn_envid="env",
    size=321,
    queued=0.0,
    recipients=(
        Recipient("User+Ext@Here.Test", "Orig@There.Test"),
        Recipient("two words@b.test", ""),
    ),
)
ENVELOPE = Envelope(
    "",
    client_name="client.test",
    client_address="192.0.2.1",
    client_port="4711",
    helo_name="helo",
    protocol_name="ESMTP",
    sasl_method="plain",
    sasl_username="auth",
    sasl_sender="from",
)


NO_FLAGS = Flags()


def expand(text: str, flags: Flags = NO_FLAGS, **changes: object) -> list[str]:
    style = Style(flags, "MAILER-DAEMON", "+")
    request = REQUEST._replace(**changes)  # type: ignore[arg-type]
    return CommandLine(text.split(), style, "file F: service S").expand(request, ENVELOPE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plain", ["plain"]),
        ("$$x $${user}", ["$x", "${user}"]),
        ("${sender} $(sender) $sender", ["Odd Sender@Far.test"] * 3),
        ("a${size}b$queue_id,", ["a321bID,"]),
        ("$recipient", ["User+Ext@Here.Test", "two words@b.test"]),
        ("-$user:$mailbox-", ["-User:User+Ext-", "-two words:two words-"]),
        ("x$extension", ["xExt", "x"]),
        ("$domain", ["Here.Test", "b.test"]),
        ("$original_recipient", ["Orig@There.Test", "two words@b.test"]),
        (
            "$client_address $client_hostname $client_helo $client_port $client_protocol",
            ["192.0.2.1", "client.test", "helo", "4711", "ESMTP"],
        ),
        ("$sasl_method $sasl_username $sasl_sender $envid", ["plain", "auth", "from", "env"]),
        ("$nexthop", ["Next.Hop"]),
    ],
)
def test_expansion(text: str, words: list[str]) -> None:
    assert expand(text) == words


@pytest.mark.parametrize(
    ("flags", "text", "words"),
    [
        (Flags(fold_domain=True), "$recipient", ["User+Ext@here.test", "two words@b.test"]),
        (Flags(fold_domain=True), "$domain $nexthop", ["here.test", "b.test", "next.hop"]),
        (Flags(fold_domain=True), "$sender", ["Odd Sender@Far.test"]),
        (Flags(fold_user=True), "$recipient", ["user+ext@Here.Test", "two words@b.test"]),
        (Flags(fold_user=True), "$user|$extension", ["user|ext", "two words|"]),
        (Flags(fold_user=True), "$mailbox", ["user+ext", "two words"]),
        (Flags(fold_user=True), "$original_recipient", ["orig@There.Test", "two words@b.test"]),
        (Flags(quote=True), "$recipient", ["User+Ext@Here.Test", '"two words"@b.test']),
        (Flags(quote=True), "$sender $mailbox", ['"Odd Sender"@Far.test', "User+Ext", "two words"]),
    ],
)  # fmt: skip
def test_flags(flags: Flags, text: str, words: list[str]) -> None:
    assert expand(text, flags) == words


def test_null_sender() -> None:
    assert expand("-f $sender", sender="") == ["-f", "MAILER-DAEMON"]


def test_what_comes_from_outside_is_not_expanded() -> None:
    hostile = Recipient("$sender${user}@x.test", "$$")
    assert expand("$user", recipients=(hostile,)) == ["$sender${user}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${user", 'truncated macro reference: "${user"'),
        ("$(user", 'truncated macro reference: "$(user"'),
        ("a$", 'empty macro name: "a$"'),
        ("${}", 'empty macro name: "${}"'),
        ("$nosuch", 'file F: service S: unknown macro name: "nosuch"'),
        ("${user?yes}", 'file F: service S: unknown macro name: "user?yes"'),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    with pytest.raises(BadMacro) as caught:
        expand(text)
    assert str(caught.value) == problem


@given(st.lists(st.text(alphabet="$(){}user x", max_size=12), max_size=4))
def test_any_words(words: list[str]) -> None:
    try:
        line = CommandLine(words, Style(Flags(), "", ""), "")
    except BadMacro:
        return
    one = REQUEST._replace(recipients=REQUEST.recipients[:1])
    assert len(line.expand(one, ENVELOPE)) == len(words)
