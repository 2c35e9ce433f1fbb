"""Which transport and destination a recipient gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemons.qmgr.feedback import Feedback, Scale
from daemons.qmgr.message import Message
from daemons.qmgr.params import QmgrParams, TransportLimits, transport_limits
from daemons.qmgr.routing import Discard, Route, RoutingRules, mailbox_of, needs_resolver, route
from libmail.config import open_config
from libmail.ipc.messages import (
    Envelope,
    Nexthop,
    QueueId,
    Recipient,
    ResolveFlag,
    ResolveReply,
    TraceFlag,
    Transport,
)
from tests.unit.daemons.qmgr.fakes import limits


def limits_of(transport: str) -> TransportLimits:
    return limits(recipients=1 if transport == "local" else 50)


RULES = RoutingRules("error", "retry", "", frozenset({"uucp"}), "double-bounce", "+-", limits_of)


def message(
    *,
    content_filter: str = "",
    redirect: str = "",
    flush: bool = False,
    forced: bool = False,
    tflags: int = 0,
) -> Message:
    one = Message(
        queue_id=QueueId("1"),
        envelope=Envelope(sender="", content_filter=content_filter, redirect=redirect),
        size=1,
        arrival=1.0,
        queued=1.0,
        tflags=tflags,
    )
    one.flush, one.forced_expiry = flush, forced
    return one


def reply(
    flags: int = 0, transport: str = "smtp", nexthop: str = "b.test", recipient: str = "u@b.test"
) -> ResolveReply:
    return ResolveReply(flags, Transport(transport), Nexthop(nexthop), recipient)


LOCAL = ResolveFlag.LOCAL.value
CASES = {
    "plain": (message(), reply(), ("smtp", "b.test", "b.test", "u@b.test")),
    "rewritten": (
        message(),
        reply(recipient="v@b.test"),
        ("smtp", "b.test", "b.test", "v@b.test"),
    ),
    "limit 1": (
        message(),
        reply(LOCAL, "local", recipient="Joe+x@b.test"),
        ("local", "b.test", "joe@b.test", "Joe+x@b.test"),
    ),
    "unknown": (
        message(),
        reply(ResolveFlag.FAIL.value),
        ("retry", "4.3.0 address resolver failure", None, "u@b.test"),
    ),
    "bad": (
        message(),
        reply(ResolveFlag.ERROR.value),
        ("error", "5.1.3 bad address syntax", None, "u@b.test"),
    ),
    "null": (
        message(),
        reply(recipient=""),
        ("error", "5.1.3 null recipient address", None, "u@b.test"),
    ),
    "deferred": (
        message(),
        reply(transport="uucp"),
        ("retry", "4.3.2 deferred transport", None, "u@b.test"),
    ),
    "flushed": (
        message(flush=True),
        reply(transport="uucp"),
        ("uucp", "b.test", "b.test", "u@b.test"),
    ),
    "filter": (
        message(content_filter="scan:"),
        None,
        ("scan", "b.test", "b.test", "u@b.test"),
    ),
    "redirected past the filter": (
        message(content_filter="scan:", redirect="u@b.test"),
        reply(),
        ("smtp", "b.test", "b.test", "u@b.test"),
    ),
    "only asked for": (
        message(content_filter="scan:", tflags=TraceFlag.USER_VERIFY),
        reply(),
        ("smtp", "b.test", "b.test", "u@b.test"),
    ),
    "expired": (
        message(forced=True),
        None,
        ("retry", "4.7.0 message is administratively expired", None, "u@b.test"),
    ),
    "upper case": (
        message(),
        reply(nexthop="B.Test"),
        ("smtp", "B.Test", "b.test", "u@b.test"),
    ),
    "error transport": (
        message(),
        reply(transport="error", nexthop="User unknown"),
        ("error", "User unknown", "User unknown", "u@b.test"),
    ),
}


@pytest.mark.parametrize(("mail", "answer", "want"), CASES.values(), ids=CASES.keys())
def test_route(
    mail: Message, answer: ResolveReply | None, want: tuple[str, str, str | None, str]
) -> None:
    assert needs_resolver(mail) is (answer is not None)
    found = route(RULES, mail, Recipient("u@b.test"), answer)
    assert isinstance(found, Route)
    assert (found.transport, found.nexthop, found.recipient.address) == (want[0], want[1], want[3])
    assert found.destination == (want[1] if want[2] is None else want[2])


@pytest.mark.parametrize(
    ("address", "flags", "discarded"),
    [
        ("double-bounce@b.test", LOCAL, True),
        ("Double-Bounce@b.test", LOCAL, True),
        ("double-bounce@b.test", 0, False),
        ("xdouble-bounce@b.test", LOCAL, False),
    ],
)
def test_notices_for_the_double_bounce_address(address: str, flags: int, discarded: bool) -> None:
    found = route(RULES, message(), Recipient(address), reply(flags, recipient=address))
    assert isinstance(found, Discard) is discarded


@pytest.mark.parametrize(
    ("address", "want"),
    [
        ("Joe@B.Test", "joe@b.test"),
        ("joe+a+b@b", "joe@b"),
        ("joe-a@b", "joe@b"),
        ("+joe@b", "+joe@b"),
        ("joe", "joe"),
    ],
)
def test_mailbox(address: str, want: str) -> None:
    assert mailbox_of(address, "+-") == want


def test_parameters(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(
        "foo_destination_concurrency_limit = 7\n"
        "foo_destination_concurrency_positive_feedback = 1/concurrency\n"
        "foo_destination_concurrency_negative_feedback = 7\n"
        "slow_destination_rate_delay = 2s\n"
        "default_destination_recipient_limit = 9\n"
    )
    config = open_config(str(tmp_path))
    assert config.load(QmgrParams).qmgr_message_active_limit == 20000
    foo = transport_limits(config, "foo")
    assert (foo.window.limit, foo.window.initial, foo.recipient_limit) == (7, 5, 9)
    assert foo.window.positive == Feedback(1.0, Scale.CONCURRENCY)
    assert foo.window.negative == Feedback(1.0)
    slow = transport_limits(config, "slow")
    assert (slow.rate_delay, slow.window.limit) == (2.0, 1)
    local = transport_limits(config, "local")
    assert (local.recipient_limit, local.window.limit) == (1, 2)
