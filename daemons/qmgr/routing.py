"""Where each recipient of a message goes: a decision over what trivial-rewrite(8) says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from daemons.qmgr.message import Message
from daemons.qmgr.params import TransportLimits
from libmail.ipc.messages import (
    Nexthop,
    Recipient,
    ResolveFlag,
    ResolveReply,
    TraceFlag,
    Transport,
)

# Plain numbers: the operators of IntFlag are slow, and this runs for every recipient.
_FAIL: Final = ResolveFlag.FAIL.value
_ERROR: Final = ResolveFlag.ERROR.value
_LOCAL: Final = ResolveFlag.LOCAL.value
_VERIFY: Final = (TraceFlag.USER_VERIFY | TraceFlag.MTA_VERIFY).value
_NOWHERE: Final = _FAIL | _ERROR

DEFERRED_TRANSPORT: Final = "4.3.2 deferred transport"
RESOLVER_FAILURE: Final = "4.3.0 address resolver failure"
FORCED_EXPIRY: Final = "4.7.0 message is administratively expired"
BAD_ADDRESS: Final = "5.1.3 bad address syntax"
NULL_RECIPIENT: Final = "5.1.3 null recipient address"


class Route(NamedTuple):
    """destination: name of the queue of SCHEDULER_README, whose deliveries are counted together."""

    transport: str
    nexthop: Nexthop
    destination: str
    recipient: Recipient

    def instead(self, transport: str, reason: str) -> "Route":
        """To a transport that reports, with a reason, "4.x.x text" or "5.x.x text"."""
        return Route(transport, Nexthop(reason), reason, self.recipient)


class Discard(NamedTuple):
    """A notice that postmaster could not be told of, sent to the address for those."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """The parameters that count here, and the limits of a transport."""

    error_transport: str
    retry_transport: str
    default_filter_nexthop: str
    defer_transports: frozenset[str]
    double_bounce_sender: str
    recipient_delimiter: str
    limits: Callable[[str], TransportLimits]

    def retry(self, reason: str, recipient: Recipient) -> Route:
        """Through the agent that defers; reason: "4.x.x text"."""
        return Route(self.retry_transport, Nexthop(reason), reason, recipient)

    def bounce(self, reason: str, recipient: Recipient) -> Route:
        """Through the agent that bounces; reason: "5.x.x text"."""
        return Route(self.error_transport, Nexthop(reason), reason, recipient)


def needs_resolver(message: Message) -> bool:
    """Whether the route depends on trivial-rewrite(8)."""
    if message.forced_expiry:
        return False
    # REDIRECT overrides the filter, header_checks(5), and who only asks where mail goes wants to
    # know what is behind the filter.
    passes_by = message.envelope.redirect or message.tflags & _VERIFY
    return bool(passes_by) or not message.envelope.content_filter


def route(
    rules: RoutingRules, message: Message, recipient: Recipient, reply: ResolveReply | None
) -> Route | Discard:
    """reply: None when nothing was asked (see `needs_resolver`)."""
    if message.forced_expiry:
        return rules.retry(FORCED_EXPIRY, recipient)
    if reply is None:
        transport, _, nexthop = message.envelope.content_filter.partition(":")
        nexthop = nexthop or rules.default_filter_nexthop or recipient.address.rpartition("@")[2]
        return _to(rules, message, transport, Nexthop(nexthop), recipient)
    if reply.flags & _NOWHERE or not reply.recipient:
        return _nowhere(rules, recipient, reply)
    if reply.recipient != recipient.address:
        recipient = recipient._replace(address=reply.recipient)
    if reply.flags & _LOCAL:
        local = recipient.address.rpartition("@")[0] or recipient.address
        if local.lower() == rules.double_bounce_sender.lower():
            return Discard(recipient)
    return _to(rules, message, reply.transport, reply.nexthop, recipient)


def _nowhere(rules: RoutingRules, recipient: Recipient, reply: ResolveReply) -> Route:
    if reply.flags & _FAIL:
        return rules.retry(RESOLVER_FAILURE, recipient)
    return rules.bounce(BAD_ADDRESS if reply.flags & _ERROR else NULL_RECIPIENT, recipient)


def _to(
    rules: RoutingRules,
    message: Message,
    transport: Transport | str,
    nexthop: Nexthop,
    recipient: Recipient,
) -> Route:
    if transport in rules.defer_transports and not message.flush:
        return rules.retry(DEFERRED_TRANSPORT, recipient)
    if transport in (rules.error_transport, rules.retry_transport):
        return Route(transport, nexthop, nexthop, recipient)  # the text of a report
    if rules.limits(transport).recipient_limit == 1:
        destination = mailbox_of(recipient.address, rules.recipient_delimiter)
    else:
        destination = nexthop.lower()
    return Route(transport, nexthop, destination, recipient)


def mailbox_of(address: str, delimiters: str) -> str:
    """The address without extension, in lower case: what "one recipient" is for a limit of 1."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = address, ""
    for char in delimiters:
        cut = local.find(char, 1)
        if cut > 0:
            local = local[:cut]
            break
    return f"{local}{at}{domain}".lower()
