"""reject_unverified_sender and reject_unverified_recipient (ADDRESS_VERIFICATION_README).

verify(8) knows, or finds out with a probe, whether an address is deliverable.
"""

from dataclasses import dataclass
from typing import Final

from libmail.ipc.messages import AddressStatus, VerifyReply
from libmail.lookup.check import Check
from libmail.lookup.context import LookupFailure, Question
from libmail.lookup.facts import DUNNO, RECIPIENT, SENDER, Outcome, Subject

__all__ = [
    "VerifyQuestion",
    "probe_sender",
    "probe_senders",
    "reject_unverified_recipient",
    "reject_unverified_sender",
]

# The digits of a probe sender's time: no vowels, so that they make no words.
_DIGITS: Final = "0123456789BCDFGHJKLMNPQRSTVWXYZ"
_REASON: Final = 250  # characters of a reason in a temporary refusal
_OK: Final = int(AddressStatus.OK)
_BOUNCE: Final = int(AddressStatus.BOUNCE)


class VerifyQuestion(Question[VerifyReply]):
    """Whether an address (key) is deliverable, from verify(8). wait: seconds for a probe."""

    __slots__ = ("wait",)

    def __init__(self, address: str, wait: float) -> None:
        super().__init__("", address)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class _Rule:
    """The parameters of one of the restrictions."""

    defer_code: int
    reject_code: int
    reason: str
    tempfail_action: str


async def reject_unverified_sender(check: Check, _: Subject, __: str) -> Outcome:
    """The sender's address is undeliverable, or that is not known yet."""
    sender, params = check.facts.mail.sender, check.params
    if not sender:
        return DUNNO
    rule = _Rule(
        params.unverified_sender_defer_code,
        params.unverified_sender_reject_code,
        params.unverified_sender_reject_reason,
        params.unverified_sender_tempfail_action,
    )
    return await _unverified(check, SENDER, sender, rule)


async def reject_unverified_recipient(check: Check, _: Subject, __: str) -> Outcome:
    """The recipient's address is undeliverable, or that is not known yet."""
    recipient, params = check.facts.mail.recipient, check.params
    if not recipient:
        return DUNNO
    rule = _Rule(
        params.unverified_recipient_defer_code,
        params.unverified_recipient_reject_code,
        params.unverified_recipient_reject_reason,
        params.unverified_recipient_tempfail_action,
    )
    return await _unverified(check, RECIPIENT, recipient, rule)


async def _unverified(check: Check, subject: Subject, address: str, rule: _Rule) -> Outcome:
    detail = "1.7" if subject is SENDER else "1.1"
    try:
        reply = await _status(check, address)
    except LookupFailure as err:
        check.warn(f"address verification of {address}: {err}")
        text = check.rejected(subject, "address verification problem")
        return _temporary(check, subject, rule, 450, f"4.{detail}", text)
    if reply.status == _OK:
        return DUNNO
    code = rule.reject_code if reply.status == _BOUNCE else rule.defer_code
    if code < 400:
        return DUNNO
    reason = rule.reason or reply.text
    if code >= 500:
        text = check.rejected(subject, f"undeliverable address: {reason}")
        return check.reject(subject, code, f"5.{detail}", text, "bounce")
    text = check.rejected(subject, f"unverified address: {reason[:_REASON]}")
    return _temporary(check, subject, rule, code, f"4.{detail}", text)


def _temporary(
    check: Check, subject: Subject, rule: _Rule, code: int, dsn: str, text: str
) -> Outcome:
    if rule.tempfail_action == "defer_if_permit":
        return check.want_defer_if_permit(subject, code, dsn, text)
    return check.reject(subject, code, dsn, text)


async def _status(check: Check, address: str) -> VerifyReply:
    """The status of an address, after a short wait for a probe. Raises LookupFailure.

    Postfix asks, and asks again after each delay; verify(8) answers as soon as it knows.
    """
    params = check.params
    wait = params.address_verify_poll_delay * (params.address_verify_poll_count - 1)
    return await check.lookups.ask(VerifyQuestion(address, wait))


def probe_sender(base: str, ttl: float, now: float) -> str:
    """The sender of probes at that time (of the epoch); "" is the null sender.

    base: address_verify_sender. ttl: address_verify_sender_ttl, after which the address changes, so
    that nobody has lasting use of one that a server once was given; 0 for never.
    """
    if base in ("", "<>"):
        return ""
    if ttl < 1:
        return base
    return _at_time(base, int(now) // int(ttl))


def probe_senders(base: str, ttl: float, now: float) -> tuple[str, ...]:
    """The addresses of probes that may be under way."""
    if base in ("", "<>") or ttl < 1:
        return (base,)
    period = int(now) // int(ttl)
    return tuple(_at_time(base, max(0, period + step)) for step in (-1, 0, 1))


def _at_time(base: str, number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
        if not number:
            break
    local, at, domain = base.rpartition("@")
    return f"{local}{digits}@{domain}" if at else f"{base}{digits}"
