"""The stages of a session, and what the restrictions decide at each."""

from typing import Final

from libmail.lookup.check import Check
from libmail.lookup.context import Lookups
from libmail.lookup.facts import (
    CLIENT,
    DATA,
    DUNNO,
    END_OF_DATA,
    ETRN,
    HELO,
    RECIPIENT,
    SENDER,
    Facts,
    Outcome,
    Subject,
    Verdict,
)
from libmail.lookup.lists import CompiledLists, Rules
from libmail.lookup.params import RestrictionParams
from libmail.lookup.unlisted import check_listed, reject_unlisted_recipient
from libmail.smtp.reply import Reply

__all__ = ["Restrictions"]

_EARLY: Final = (CLIENT, HELO, SENDER)
"""The stages that smtpd_delay_reject delays, in the order of a session."""
_GO_ON: Final = Verdict()
"""Where there is nothing to decide. It stays as it is: a check fills a verdict of its own."""


class Restrictions:
    """Decides each step of a session. Knows no session: all that it needs are the facts.

    at_connect, at_helo, at_mail, at_data, at_end_of_data: whether anything is decided then; a step
    that decides nothing need not be asked.
    """

    def __init__(self, params: RestrictionParams, compiled: CompiledLists) -> None:
        self._params = params
        self._compiled = compiled
        delay = params.smtpd_delay_reject
        hosts = (compiled.client, CLIENT), (compiled.helo, HELO)
        senders = bool(compiled.sender) or params.smtpd_reject_unlisted_sender
        lists = [compiled.relay, compiled.recipient]
        if not params.smtpd_relay_before_recipient_restrictions:
            lists.reverse()
        self.at_connect = bool(compiled.client) and not delay
        self.at_helo = bool(compiled.helo) and not delay
        self.at_mail = senders and not delay
        self.at_data = bool(compiled.data)
        self.at_end_of_data = bool(compiled.end_of_data)
        self._delayed = [(rules, about) for rules, about in hosts if rules and delay]
        self._delays_sender = senders and delay
        self._recipient = [rules for rules in lists if rules]

    def _check(self, facts: Facts, lookups: Lookups) -> Check:
        return Check(facts, lookups, self._params, self._compiled.named)

    async def connect(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At the connection; with smtpd_delay_reject nothing is decided before RCPT."""
        if not self.at_connect:
            return _GO_ON
        check = self._check(facts, lookups)
        outcome = await check.stage(self._compiled.client, CLIENT)
        return _early_verdict(check, CLIENT, outcome)

    async def helo(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At HELO and EHLO."""
        if not self.at_helo:
            return _GO_ON
        check = self._check(facts, lookups)
        check.defer_if_permit = _deferral(facts, HELO)
        outcome = await check.stage(self._compiled.helo, HELO)
        return _early_verdict(check, HELO, outcome)

    async def mail(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At MAIL."""
        if not self.at_mail:
            return _GO_ON
        check = self._check(facts, lookups)
        check.defer_if_permit = _deferral(facts, SENDER)
        return _early_verdict(check, SENDER, await self._sender(check))

    async def _sender(self, check: Check) -> Outcome:
        outcome = await check.stage(self._compiled.sender, SENDER)
        sender = check.facts.mail.sender
        if (
            isinstance(outcome, Reply)
            or not self._params.smtpd_reject_unlisted_sender
            or not sender
        ):
            return outcome
        listed = await check_listed(check, SENDER, sender)
        return listed if isinstance(listed, Reply) else outcome

    async def recipient(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At RCPT (and VRFY)."""
        check = self._check(facts, lookups)
        check.defer_if_permit = _deferral(facts)
        outcome = await self._hosts(check) if self._delayed else DUNNO
        if self._delays_sender and not isinstance(outcome, Reply):
            outcome = await self._sender(check)
        if not isinstance(outcome, Reply):
            check.begin_stage()
            for rules in self._recipient:
                outcome = await check.run(rules, RECIPIENT)
                if isinstance(outcome, Reply):
                    break
            outcome = check.finish(outcome)
        if not isinstance(outcome, Reply) and self._params.smtpd_reject_unlisted_recipient:
            outcome = await reject_unlisted_recipient(check, RECIPIENT, "")
        return _verdict(check, outcome)

    async def _hosts(self, check: Check) -> Outcome:
        """The lists for the client and its HELO, where smtpd_delay_reject delays them."""
        for rules, subject in self._delayed:
            if isinstance(outcome := await check.stage(rules, subject), Reply):
                return outcome
        return DUNNO

    async def data(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At DATA, and at the first BDAT."""
        if not self.at_data:
            return _GO_ON
        return await self._simple(facts, lookups, self._compiled.data, DATA)

    async def end_of_data(self, facts: Facts, lookups: Lookups) -> Verdict:
        """When the content is complete."""
        if not self.at_end_of_data:
            return _GO_ON
        return await self._simple(facts, lookups, self._compiled.end_of_data, END_OF_DATA)

    async def _simple(
        self, facts: Facts, lookups: Lookups, rules: Rules, subject: Subject
    ) -> Verdict:
        check = self._check(facts, lookups)
        return _verdict(check, check.finish(await check.run(rules, subject)))

    async def etrn(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At ETRN; recipient: its argument."""
        check = self._check(facts, lookups)
        check.defer_if_permit = _deferral(facts)
        outcome = await self._hosts(check)
        if not isinstance(outcome, Reply):
            outcome = check.finish(await check.stage(self._compiled.etrn, ETRN))
        return _verdict(check, outcome)


def _deferral(facts: Facts, stage: Subject | None = None) -> Reply | None:
    """What a permit becomes because of the stages before this one; the earliest counts."""
    if facts.deferrals:
        for earlier in _EARLY:
            if earlier is stage:
                break
            if earlier in facts.deferrals:
                return facts.deferrals[earlier]
    return None


def _early_verdict(check: Check, stage: Subject, outcome: Outcome) -> Verdict:
    """The verdict of a stage before RCPT; the facts keep what it leaves to later ones."""
    if check.defer_if_permit is None:
        check.facts.deferrals.pop(stage, None)
    else:
        check.facts.deferrals[stage] = check.defer_if_permit
    return _verdict(check, outcome)


def _verdict(check: Check, outcome: Outcome) -> Verdict:
    check.verdict.reply = outcome if isinstance(outcome, Reply) else None
    return check.verdict
