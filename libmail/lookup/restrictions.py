"""The restrictions by name, the lists of main.cf made of them, and the stages of a session."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from libmail.log import LOG, Fatal
from libmail.lookup.access import (
    check_client_access,
    check_etrn_access,
    check_helo_access,
    check_recipient_access,
    check_reverse_client_access,
    check_sender_access,
)
from libmail.lookup.addresses import (
    defer_unauth_destination,
    permit_auth_destination,
    permit_mx_backup,
    reject_multi_recipient_bounce,
    reject_non_fqdn_recipient,
    reject_non_fqdn_sender,
    reject_unauth_destination,
    reject_unknown_recipient_domain,
    reject_unknown_sender_domain,
)
from libmail.lookup.check import Check, Restriction, Rule
from libmail.lookup.clients import (
    permit_inet_interfaces,
    permit_mynetworks,
    reject_invalid_helo_hostname,
    reject_non_fqdn_helo_hostname,
    reject_plaintext_session,
    reject_unauth_pipelining,
    reject_unknown_client_hostname,
    reject_unknown_forward_client_hostname,
    reject_unknown_helo_hostname,
    reject_unknown_reverse_client_hostname,
)
from libmail.lookup.context import Lookups
from libmail.lookup.dnslists import (
    permit_dnswl_client,
    permit_rhswl_client,
    reject_maps_rbl,
    reject_rbl_client,
    rhsbl,
)
from libmail.lookup.facts import (
    CLIENT,
    DATA,
    DUNNO,
    END_OF_DATA,
    ETRN,
    HELO,
    PERMIT,
    RECIPIENT,
    REVERSE_CLIENT,
    SENDER,
    Facts,
    Outcome,
    Subject,
    Verdict,
)
from libmail.lookup.hosts import hosts_access
from libmail.lookup.params import RestrictionParams
from libmail.lookup.unlisted import check_listed, reject_unlisted_recipient, reject_unlisted_sender
from libmail.smtp.reply import Reply

__all__ = ["RESTRICTIONS", "WITH_ARGUMENT", "Restrictions", "Rules", "compile_lists"]


async def _permit(_: Check, __: Subject, ___: str) -> Outcome:
    return PERMIT


async def _dunno(_: Check, __: Subject, ___: str) -> Outcome:
    return DUNNO


async def _reject(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "Access denied")
    return check.reject(subject, check.params.reject_code, "5.7.1", text)


async def _defer(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "Try again later")
    return check.reject(subject, check.params.defer_code, "4.3.2", text)


async def _defer_if_permit(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "defer_if_permit requested")
    return check.want_defer_if_permit(subject, 450, "4.7.0", text)


async def _defer_if_reject(check: Check, subject: Subject, _: str) -> Outcome:
    text = check.rejected(subject, "defer_if_reject requested")
    return check.want_defer_if_reject(subject, 450, "4.7.0", text)


async def _sleep(check: Check, _: Subject, seconds: str) -> Outcome:
    await check.lookups.sleep(float(seconds))
    return DUNNO


async def _bad_configuration(check: Check, _: Subject, problem: str) -> Outcome:
    LOG.warning(problem)
    return check.reject_config()


RESTRICTIONS: Final[Mapping[str, Restriction]] = {
    "defer": _defer,
    "defer_if_permit": _defer_if_permit,
    "defer_if_reject": _defer_if_reject,
    "defer_unauth_destination": defer_unauth_destination,
    "permit": _permit,
    "permit_auth_destination": permit_auth_destination,
    "permit_inet_interfaces": permit_inet_interfaces,
    "permit_mx_backup": permit_mx_backup,
    "permit_mynetworks": permit_mynetworks,
    "permit_naked_ip_address": _dunno,
    "permit_sasl_authenticated": _dunno,
    "permit_tls_all_clientcerts": _dunno,
    "permit_tls_clientcerts": _dunno,
    "reject": _reject,
    "reject_authenticated_sender_login_mismatch": _dunno,
    "reject_invalid_helo_hostname": reject_invalid_helo_hostname,
    "reject_invalid_hostname": reject_invalid_helo_hostname,
    "reject_known_sender_login_mismatch": _dunno,
    "reject_maps_rbl": reject_maps_rbl,
    "reject_multi_recipient_bounce": reject_multi_recipient_bounce,
    "reject_non_fqdn_helo_hostname": reject_non_fqdn_helo_hostname,
    "reject_non_fqdn_hostname": reject_non_fqdn_helo_hostname,
    "reject_non_fqdn_recipient": reject_non_fqdn_recipient,
    "reject_non_fqdn_sender": reject_non_fqdn_sender,
    "reject_plaintext_session": reject_plaintext_session,
    "reject_sender_login_mismatch": _dunno,
    "reject_unauth_destination": reject_unauth_destination,
    "reject_unauth_pipelining": reject_unauth_pipelining,
    "reject_unauthenticated_sender_login_mismatch": _dunno,
    "reject_unknown_address": reject_unknown_sender_domain,
    "reject_unknown_client": reject_unknown_client_hostname,
    "reject_unknown_client_hostname": reject_unknown_client_hostname,
    "reject_unknown_forward_client_hostname": reject_unknown_forward_client_hostname,
    "reject_unknown_helo_hostname": reject_unknown_helo_hostname,
    "reject_unknown_hostname": reject_unknown_helo_hostname,
    "reject_unknown_recipient_domain": reject_unknown_recipient_domain,
    "reject_unknown_reverse_client_hostname": reject_unknown_reverse_client_hostname,
    "reject_unknown_sender_domain": reject_unknown_sender_domain,
    "reject_unlisted_recipient": reject_unlisted_recipient,
    "reject_unlisted_sender": reject_unlisted_sender,
    "check_recipient_maps": reject_unlisted_recipient,
    "check_relay_domains": reject_unauth_destination,
    "warn_if_reject": _dunno,  # the evaluation itself looks out for it
}

# Restrictions that need a table, and those that need something else.
WITH_TABLE: Final[Mapping[str, Restriction]] = {
    "check_ccert_access": _dunno,
    "check_client_access": check_client_access,
    "check_etrn_access": check_etrn_access,
    "check_helo_access": check_helo_access,
    "check_recipient_access": check_recipient_access,
    "check_reverse_client_hostname_access": check_reverse_client_access,
    "check_sasl_access": _dunno,
    "check_sender_access": check_sender_access,
    "check_client_mx_access": hosts_access(CLIENT, "MX"),
    "check_client_ns_access": hosts_access(CLIENT, "NS"),
    "check_client_a_access": hosts_access(CLIENT, "A"),
    "check_reverse_client_hostname_mx_access": hosts_access(REVERSE_CLIENT, "MX"),
    "check_reverse_client_hostname_ns_access": hosts_access(REVERSE_CLIENT, "NS"),
    "check_reverse_client_hostname_a_access": hosts_access(REVERSE_CLIENT, "A"),
    "check_helo_mx_access": hosts_access(HELO, "MX"),
    "check_helo_ns_access": hosts_access(HELO, "NS"),
    "check_helo_a_access": hosts_access(HELO, "A"),
    "check_sender_mx_access": hosts_access(SENDER, "MX"),
    "check_sender_ns_access": hosts_access(SENDER, "NS"),
    "check_sender_a_access": hosts_access(SENDER, "A"),
    "check_recipient_mx_access": hosts_access(RECIPIENT, "MX"),
    "check_recipient_ns_access": hosts_access(RECIPIENT, "NS"),
    "check_recipient_a_access": hosts_access(RECIPIENT, "A"),
}
WITH_ARGUMENT: Final[Mapping[str, Restriction]] = {
    "permit_dnswl_client": permit_dnswl_client,
    "permit_rhswl_client": permit_rhswl_client,
    "reject_rbl": reject_rbl_client,
    "reject_rbl_client": reject_rbl_client,
    "reject_rhsbl_client": rhsbl(CLIENT),
    "reject_rhsbl_helo": rhsbl(HELO),
    "reject_rhsbl_recipient": rhsbl(RECIPIENT),
    "reject_rhsbl_reverse_client": rhsbl(REVERSE_CLIENT),
    "reject_rhsbl_sender": rhsbl(SENDER),
}
_TABLE: Final = re.compile(r"[a-z][a-z0-9_-]*:.+", re.S)
_TIME: Final = re.compile(r"([0-9]+)([smhd]?)")
_UNITS: Final[Mapping[str, int]] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_STAGE_TABLE: Final[Mapping[str, str]] = {
    "smtpd_client_restrictions": "check_client_access",
    "smtpd_helo_restrictions": "check_helo_access",
    "smtpd_sender_restrictions": "check_sender_access",
    "smtpd_relay_restrictions": "check_recipient_access",
    "smtpd_recipient_restrictions": "check_recipient_access",
    "smtpd_data_restrictions": "check_recipient_access",
    "smtpd_end_of_data_restrictions": "check_recipient_access",
    "smtpd_etrn_restrictions": "check_etrn_access",
}
_RELAY_GUARDS: Final = frozenset(
    {
        "check_relay_domains",
        "defer",
        "defer_if_permit",
        "defer_unauth_destination",
        "reject",
        "reject_unauth_destination",
    }
)
_NEEDS_SENDER: Final = frozenset({"reject_unverified_sender", "reject_unverified_recipient"})

Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Makes rules of the words of a list. tables: filled with the tables that are named."""

    classes: Mapping[str, Sequence[str]]
    tables: set[str]

    def compile(self, words: Sequence[str], stage: str, depth: int = 0) -> Rules:
        rules: list[Rule] = []
        rest = list(words)
        while rest:
            rules.append(self._next(rest, stage, depth))
        return tuple(rules)

    def _next(self, rest: list[str], stage: str, depth: int) -> Rule:
        word = rest.pop(0)
        name = word.lower()
        if _TABLE.fullmatch(word):
            return self._table(_STAGE_TABLE.get(stage, "check_recipient_access"), word)
        if name in WITH_TABLE:
            if not rest or not _TABLE.fullmatch(rest[0]):
                what = "requires type:table argument"
                return _problem(word, f"restriction {name} {what}")
            return self._table(name, rest.pop(0))
        if name in WITH_ARGUMENT:
            if not rest:
                return _problem(word, f"restriction {name} requires domain name argument")
            zone = rest.pop(0)
            return Rule(f"{name} {zone}", WITH_ARGUMENT[name], zone)
        if name == "sleep":
            return _sleep_rule(rest)
        if name == "check_policy_service":
            server = rest.pop(0) if rest else ""
            return _problem(f"{name} {server}", f"{name} {server}: not supported")
        if name in RESTRICTIONS:
            return Rule(name, RESTRICTIONS[name])
        if name in _NEEDS_SENDER:
            return _problem(name, f"{name}: address verification is not available")
        return self._class(word, stage, depth)

    def _table(self, name: str, table: str) -> Rule:
        self.tables.add(table)
        return Rule(f"{name} {table}", WITH_TABLE[name], table)

    def _class(self, word: str, stage: str, depth: int) -> Rule:
        words = self.classes.get(word)
        if words is None or depth > 20:
            return _problem(word, f'unknown smtpd restriction: "{word}"')
        return Rule(word, partial(_run_class, self.compile(words, stage, depth + 1)))


async def _run_class(rules: Rules, check: Check, subject: Subject, _: str) -> Outcome:
    return await check.run(rules, subject)


def _problem(text: str, problem: str) -> Rule:
    return Rule(text, _bad_configuration, problem)


def _sleep_rule(rest: list[str]) -> Rule:
    match = _TIME.fullmatch(rest[0]) if rest else None
    if match is None:
        return _problem("sleep", "restriction sleep requires a time argument")
    rest.pop(0)
    return Rule(f"sleep {match[0]}", _sleep, str(int(match[1]) * _UNITS[match[2]]))


@dataclass(frozen=True, slots=True)
class Compiled:
    """All lists of a configuration. tables: those that they name, to be opened."""

    client: Rules
    helo: Rules
    sender: Rules
    relay: Rules
    recipient: Rules
    data: Rules
    end_of_data: Rules
    etrn: Rules
    classes: Mapping[str, Rules]
    tables: frozenset[str]


def compile_lists(
    params: RestrictionParams, classes: Mapping[str, Sequence[str]], *, guard: bool = True
) -> Compiled:
    """Make rules of all lists. classes: the words of each smtpd_restriction_classes parameter.

    guard: insist that something keeps strangers from relaying. Raises Fatal.
    """
    tables: set[str] = set()
    compiler = _Compiler(classes, tables)
    stage = "smtpd_recipient_restrictions"
    compiled = Compiled(
        compiler.compile(params.smtpd_client_restrictions, "smtpd_client_restrictions"),
        compiler.compile(params.smtpd_helo_restrictions, "smtpd_helo_restrictions"),
        compiler.compile(params.smtpd_sender_restrictions, "smtpd_sender_restrictions"),
        compiler.compile(params.smtpd_relay_restrictions, "smtpd_relay_restrictions"),
        compiler.compile(params.smtpd_recipient_restrictions, stage),
        compiler.compile(params.smtpd_data_restrictions, "smtpd_data_restrictions"),
        compiler.compile(params.smtpd_end_of_data_restrictions, "smtpd_end_of_data_restrictions"),
        compiler.compile(params.smtpd_etrn_restrictions, "smtpd_etrn_restrictions"),
        {name: compiler.compile(words, stage) for name, words in classes.items()},
        frozenset(tables),
    )
    if guard and not _guarded(params, classes):
        raise Fatal(
            "in parameter smtpd_relay_restrictions or smtpd_recipient_restrictions, specify at"
            " least one working instance of: reject_unauth_destination,"
            " defer_unauth_destination, reject, defer, defer_if_permit or check_relay_domains"
        )
    return compiled


def _guarded(params: RestrictionParams, classes: Mapping[str, Sequence[str]]) -> bool:
    """Whether a restriction that keeps strangers from relaying is reached."""
    waiting = [*params.smtpd_relay_restrictions, *params.smtpd_recipient_restrictions]
    seen: set[str] = set()
    warned = False
    for word in waiting:
        if word.lower() in _RELAY_GUARDS and not warned:
            return True
        warned = word.lower() == "warn_if_reject"
        if word in classes and word not in seen:
            seen.add(word)
            waiting.extend(classes[word])
    return False


class Restrictions:
    """Decides each step of a session. Knows no session: all that it needs are the facts."""

    def __init__(self, params: RestrictionParams, compiled: Compiled) -> None:
        self._params = params
        self._compiled = compiled

    def _by_name(self, name: str) -> Rule | None:
        """What the right-hand side of an access table may name."""
        rules = self._compiled.classes.get(name)
        if rules is not None:
            return Rule(name, partial(_run_class, rules))
        restriction = RESTRICTIONS.get(name.lower())
        return None if restriction is None else Rule(name.lower(), restriction)

    def _check(self, facts: Facts, lookups: Lookups) -> Check:
        return Check(facts, lookups, self._params, self._by_name)

    async def _simple(
        self, facts: Facts, lookups: Lookups, rules: Rules, subject: Subject
    ) -> Verdict:
        check = self._check(facts, lookups)
        return _verdict(check, check.finish(await check.run(rules, subject)))

    async def connect(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At the connection; with smtpd_delay_reject nothing is decided before RCPT."""
        if self._params.smtpd_delay_reject or not self._compiled.client:
            return Verdict()
        return await self._stage(facts, lookups, self._compiled.client, CLIENT)

    async def helo(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At HELO and EHLO."""
        if self._params.smtpd_delay_reject or not self._compiled.helo:
            return Verdict()
        return await self._stage(facts, lookups, self._compiled.helo, HELO)

    async def mail(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At MAIL."""
        if self._params.smtpd_delay_reject:
            return Verdict()
        check = self._check(facts, lookups)
        return _verdict(check, await self._sender(check))

    async def _stage(
        self, facts: Facts, lookups: Lookups, rules: Rules, subject: Subject
    ) -> Verdict:
        check = self._check(facts, lookups)
        return _verdict(check, await check.run(rules, subject))

    async def _sender(self, check: Check) -> Outcome:
        outcome = await check.run(self._compiled.sender, SENDER)
        sender = check.facts.sender
        if (
            isinstance(outcome, Reply)
            or not self._params.smtpd_reject_unlisted_sender
            or not sender
        ):
            return outcome
        listed = await check_listed(check, SENDER, sender)
        return listed if isinstance(listed, Reply) else outcome

    async def recipient(self, facts: Facts, lookups: Lookups, *, unlisted: bool = True) -> Verdict:
        """At RCPT (and VRFY). unlisted: recipients that do not exist may be refused."""
        check, compiled = self._check(facts, lookups), self._compiled
        check.unlisted = not unlisted
        outcome: Outcome = DUNNO
        if self._params.smtpd_delay_reject:
            for rules, subject in ((compiled.client, CLIENT), (compiled.helo, HELO)):
                if rules and isinstance(outcome := await check.run(rules, subject), Reply):
                    return _verdict(check, outcome)
            if isinstance(outcome := await self._sender(check), Reply):
                return _verdict(check, outcome)
        lists = [compiled.relay, compiled.recipient]
        if not self._params.smtpd_relay_before_recipient_restrictions:
            lists.reverse()
        for rules in lists:
            if rules and isinstance(outcome := await check.run(rules, RECIPIENT), Reply):
                return _verdict(check, outcome)
        outcome = check.finish(outcome)
        if not isinstance(outcome, Reply) and self._params.smtpd_reject_unlisted_recipient:
            outcome = await reject_unlisted_recipient(check, RECIPIENT, "")
        return _verdict(check, outcome)

    async def verify(self, facts: Facts, lookups: Lookups, *, unlisted: bool = True) -> Verdict:
        """At VRFY: as for a recipient."""
        return await self.recipient(facts, lookups, unlisted=unlisted)

    async def data(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At DATA, and at the first BDAT."""
        if not self._compiled.data:
            return Verdict()
        return await self._simple(facts, lookups, self._compiled.data, DATA)

    async def end_of_data(self, facts: Facts, lookups: Lookups) -> Verdict:
        """When the content is complete."""
        if not self._compiled.end_of_data:
            return Verdict()
        return await self._simple(facts, lookups, self._compiled.end_of_data, END_OF_DATA)

    async def etrn(self, facts: Facts, lookups: Lookups) -> Verdict:
        """At ETRN; recipient: its argument."""
        check = self._check(facts, lookups)
        for rules, subject in ((self._compiled.client, CLIENT), (self._compiled.helo, HELO)):
            if self._params.smtpd_delay_reject:
                outcome = await check.run(rules, subject)
                if isinstance(outcome, Reply):
                    return _verdict(check, outcome)
        outcome = await check.run(self._compiled.etrn, ETRN)
        return _verdict(check, check.finish(outcome))


def _verdict(check: Check, outcome: Outcome) -> Verdict:
    check.verdict.reply = outcome if isinstance(outcome, Reply) else None
    return check.verdict
