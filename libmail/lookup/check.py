"""One evaluation of restriction lists: the state that restrictions share, and how they refuse.

A restriction is `async def name(check, subject, argument) -> Outcome`; the table of all is
`libmail.lookup.names`. It returns DUNNO, PERMIT, or the result of `check.reject`, which also takes
care of warn_if_reject, defer_if_reject and soft_bounce. Whatever it looks up goes through
`check.lookups`. subject: what lists of the stage are about, for the words of a reply; a restriction
with a subject of its own ignores it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from libmail.ipc.messages import ResolveFlag, ResolveReply
from libmail.lookup.context import LookupFailure, Lookups, RouteQuestion
from libmail.lookup.facts import (
    CCERT,
    CLIENT,
    DATA,
    DUNNO,
    END_OF_DATA,
    END_OF_MESSAGE,
    HELO,
    PERMIT,
    RECIPIENT,
    REVERSE_CLIENT,
    SASL,
    SENDER,
    Effect,
    ErrorClass,
    Facts,
    Outcome,
    Subject,
    Verdict,
    named,
)
from libmail.lookup.params import RestrictionParams
from libmail.smtp.reply import Reply, softened

__all__ = ["Check", "Restriction", "Rule"]

_FAIL: Final = int(ResolveFlag.FAIL)  # a plain number: flags are looked at for each recipient
# RFC 3463 §3.2 address status, as it has to be for a sender or a recipient; others become 1.0.
_FOR_SENDER: Final[Mapping[str, str]] = {
    "1.1": "1.7",
    "1.2": "1.8",
    "1.3": "1.7",
    "1.4": "1.7",
    "1.6": "1.7",
    "1.7": "1.7",
    "1.8": "1.8",
}
_FOR_RECIPIENT: Final[Mapping[str, str]] = {
    **{f"1.{digit}": f"1.{digit}" for digit in range(7)},
    "1.7": "1.3",
    "1.8": "1.2",
}
_ABOUT_CLIENT: Final = frozenset(
    {
        "permit_mynetworks",
        "permit_inet_interfaces",
        "permit_tls_clientcerts",
        "permit_tls_all_clientcerts",
    }
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A restriction in a list, with its argument. text: as configured."""

    text: str
    restriction: "Restriction"
    argument: str = ""


Restriction = Callable[["Check", Subject, str], Awaitable[Outcome]]


class Check:
    """The evaluation of the restriction lists of one command.

    by_name: finds the first restriction that the right-hand side of an access table names.
    A permit becomes `defer_if_permit` from the moment on that a restriction wanted that, in this
    stage of the session or in an earlier one; a refusal becomes `defer_if_reject` within a stage.
    An instance holds what is other than here.
    """

    permitted_by = ""  # the word of an access table that permitted
    depth = 0
    defer_if_permit: Reply | None = None
    defer_if_reject: Reply | None = None
    unlisted = False  # the recipient was looked for in the tables of its class
    _level = 0  # of lists within lists, through classes and access tables
    _warned_at = 0  # the level of a warn_if_reject that holds, with all that is below it

    def __init__(
        self,
        facts: Facts,
        lookups: Lookups,
        params: RestrictionParams,
        by_name: Callable[[list[str]], Rule | None],
    ) -> None:
        self.facts = facts
        self.lookups = lookups
        self.params = params
        self._by_name = by_name
        self.verdict = Verdict()

    def by_name(self, rest: list[str]) -> Rule | None:
        """The restriction or class that these words begin with; its words are taken off."""
        return self._by_name(rest)

    # what is checked

    @property
    def warning(self) -> bool:
        """Whether the restriction at hand follows warn_if_reject, or its class does."""
        return bool(self._warned_at)

    @property
    def discarding(self) -> bool:
        """Whether an access table has requested DISCARD."""
        return any(effect.action == "discard" for effect in self.verdict.effects)

    def name(self, subject: Subject) -> str:
        """The name or address that a reply shows for a subject, without angle brackets."""
        facts = self.facts
        if subject is CLIENT:
            return facts.client.shown
        if subject is REVERSE_CLIENT:
            return facts.client.reverse_name
        if subject is HELO:
            return facts.helo_name
        if subject is SENDER:
            return facts.mail.sender or ""
        if subject is SASL or subject is CCERT:
            return named(facts, subject)
        if subject is DATA:
            return "DATA"
        if subject is END_OF_DATA:
            return END_OF_MESSAGE
        return facts.mail.recipient or ""

    def rejected(self, subject: Subject, reason: str) -> str:
        """The usual text of a refusal."""
        return f"<{self.name(subject)}>: {subject.words} rejected: {reason}"

    # lists

    def begin_stage(self) -> None:
        """Forget the defer_if_reject of an earlier stage."""
        self.defer_if_reject = None

    async def stage(self, rules: tuple[Rule, ...], subject: Subject) -> Outcome:
        """Begin a stage, and evaluate its list."""
        self.begin_stage()
        return await self.run(rules, subject)

    async def run(self, rules: tuple[Rule, ...], subject: Subject) -> Outcome:
        """Evaluate a list; the first restriction that does not return DUNNO decides."""
        self._level += 1
        try:
            for rule in rules:
                outcome = await self._one(rule, subject)
                if outcome is not DUNNO:
                    return outcome
        finally:
            self._level -= 1
        return DUNNO

    async def _one(self, rule: Rule, subject: Subject) -> Outcome:
        if rule.text == "warn_if_reject":
            self._warned_at = self._warned_at or self._level
            return DUNNO
        outcome = await rule.restriction(self, subject, rule.argument)
        if self._warned_at >= self._level:
            self._warned_at = 0
        if isinstance(outcome, Reply):
            self.verdict.decided_by = self.verdict.decided_by or rule.text
        elif outcome is PERMIT:
            self.verdict.decided_by = rule.text
            self._log_permit(rule, subject)
        return outcome

    def _log_permit(self, rule: Rule, subject: Subject) -> None:
        wanted = self.params.smtpd_log_access_permit_actions
        if not wanted:
            return
        action = self.permitted_by or rule.text.partition(" ")[0]
        if action.lower() in wanted or "static:all" in wanted:
            about = subject if rule.text not in _ABOUT_CLIENT else CLIENT
            source = f"from {rule.argument}" if self.permitted_by else ""
            text = f"action={action} for {about.words}={self.name(about)} {source}"
            self.verdict.effects.append(Effect("permit", text))
        self.permitted_by = ""

    # refusing

    def reject(
        self,
        subject: Subject,
        code: int,
        dsn: str,
        text: str,
        error_class: ErrorClass = "policy",
        *,
        exact: bool = False,
    ) -> Outcome:
        """Refuse, unless this is only to be warned about. exact: the status fits."""
        status = dsn if exact else self._fitting(dsn, code, subject)
        return self._refuse(Reply(code, status, text), error_class)

    def reject_config(self) -> Outcome:
        """Refuse because of a mistake in the configuration, also after warn_if_reject."""
        return self._refuse(Reply(451, "4.3.5", "Server configuration error"), "software")

    def reject_lookup(self, name: str) -> Outcome:
        """Refuse because something could not be looked up, also after warn_if_reject."""
        return self._refuse(Reply(451, "4.3.0", f"<{name}>: Temporary lookup failure"), "data")

    def _fitting(self, dsn: str, code: int, subject: Subject) -> str:
        """A status with the class of the reply code, and the detail that fits what is refused."""
        detail = dsn[2:]
        if detail[:2] == "1.":
            if subject is SENDER:
                mapped = _FOR_SENDER.get(detail, "1.0")
            elif subject is RECIPIENT:
                mapped = _FOR_RECIPIENT.get(detail, "1.0")
            else:
                mapped = "0.0"
            if mapped != detail:
                text = f"{dsn} into {subject.words} status {dsn[:2]}{mapped}"
                self.verdict.effects.append(Effect("mapping", text))
                detail = mapped
        return f"{code // 100}.{detail}"

    def _refuse(self, reply: Reply, error_class: ErrorClass = "policy") -> Outcome:
        self.verdict.errors += (error_class,)
        if self.params.soft_bounce and reply.code >= 500:
            reply = softened(reply)
        if self._warned_at and error_class not in ("software", "data"):
            self.verdict.effects.append(Effect("reject_warning", reply.line))
            return DUNNO
        if self.defer_if_reject is not None and reply.code >= 500:
            reply = self.defer_if_reject
        self.verdict.effects.append(Effect("reject", reply.line))
        return reply

    def warn(self, text: str) -> None:
        """Add a warning for the log."""
        self.verdict.effects.append(Effect("warning", text))

    def forbid_permit(self, restriction: str, target: str) -> Outcome:
        """Refuse a PERMIT that is based on a name which the client, or its owner, can choose."""
        self.warn(f"restriction {restriction} returns OK for {target}")
        self.warn("this is not allowed for security reasons")
        self.warn("use DUNNO instead of OK if you want to make an exception")
        return self.reject_config()

    def want_defer_if_permit(self, subject: Subject, code: int, dsn: str, text: str) -> Outcome:
        """A permit from now on becomes this refusal."""
        reply = Reply(code, self._fitting(dsn, code, subject), text)
        if self._warned_at:
            self.verdict.effects.append(Effect("reject_warning", reply.line))
        elif self.defer_if_permit is None:
            self.defer_if_permit = reply
        return DUNNO

    def want_defer_if_reject(self, subject: Subject, code: int, dsn: str, text: str) -> Outcome:
        """A permanent refusal from now on becomes this one."""
        if self.defer_if_reject is None and not self._warned_at:
            self.defer_if_reject = Reply(code, self._fitting(dsn, code, subject), text)
        return DUNNO

    def finish(self, outcome: Outcome) -> Outcome:
        """The outcome after all lists: a pending defer_if_permit takes effect."""
        if isinstance(outcome, Reply) or self.defer_if_permit is None:
            return outcome
        self._warned_at = 0
        return self._refuse(self.defer_if_permit)

    # addresses

    async def resolve(self, address: str) -> ResolveReply:
        """Where mail for an address goes, in lower case. Raises LookupFailure."""
        reply = await self.lookups.ask(RouteQuestion(self.facts.mail.sender or "", address))
        if reply.flags & _FAIL:
            raise LookupFailure(address)
        recipient = reply.recipient
        folded = recipient.lower() if recipient.isascii() else recipient.casefold()
        return reply if folded == recipient else reply._replace(recipient=folded)
