"""The lists of restrictions in main.cf, made into rules."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from libmail.log import Fatal
from libmail.lookup.certificates import ccert_rule, parse_ccert_table
from libmail.lookup.check import Check, Rule
from libmail.lookup.facts import (
    DUNNO,
    Outcome,
    Subject,
)
from libmail.lookup.names import RESTRICTIONS, WITH_ARGUMENT, WITH_TABLE
from libmail.lookup.params import RestrictionParams
from libmail.lookup.policies import PolicySettings, parse_policy, policy_rule

__all__ = ["CompiledLists", "Rules", "compile_lists"]

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

Rules = tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Makes rules of the words of a list.

    tables, policies: filled with the tables and the policy servers that are named.
    """

    params: RestrictionParams
    classes: Mapping[str, Sequence[str]]
    tables: set[str]
    policies: set[PolicySettings]

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
        if name == "check_ccert_access" and rest and rest[0].startswith("{"):
            return self._certificates(rest.pop(0))
        if name in WITH_TABLE:
            if not rest or not _TABLE.fullmatch(rest[0]):
                what = f'bad argument "{rest[0] if rest else name}": need maptype:mapname'
                return _problem(word, f"restriction {name}: {what}")
            return self._table(name, rest.pop(0))
        if name in WITH_ARGUMENT:
            return _with_argument(name, rest)
        if name == "sleep":
            return _sleep_rule(rest)
        if name == "check_policy_service":
            if not rest or ":" not in rest[0]:
                return _problem(word, f"restriction {name} must be followed by transport:server")
            return self._policy(rest.pop(0))
        if name in RESTRICTIONS:
            return Rule(name, RESTRICTIONS[name])
        return self._class(word, stage, depth)

    def _table(self, name: str, table: str) -> Rule:
        self.tables.add(table)
        return Rule(f"{name} {table}", WITH_TABLE[name], table)

    def _certificates(self, text: str) -> Rule:
        try:
            table = parse_ccert_table(text)
        except ValueError as error:
            return _problem(f"check_ccert_access {text}", str(error))
        self.tables.add(table.table)
        return ccert_rule(table)

    def _policy(self, server: str) -> Rule:
        settings = parse_policy(server, self.params)
        self.policies.add(settings)
        return policy_rule(settings)

    def _class(self, word: str, stage: str, depth: int) -> Rule:
        words = self.classes.get(word)
        if words is None or depth > 20:
            return _problem(word, f'unknown smtpd restriction: "{word}"')
        return Rule(word, partial(_run_class, self.compile(words, stage, depth + 1)))


async def _run_class(rules: Rules, check: Check, subject: Subject, _: str) -> Outcome:
    return await check.run(rules, subject)


def _problem(text: str, problem: str) -> Rule:
    return Rule(text, _bad_configuration, problem)


def _with_argument(name: str, rest: list[str]) -> Rule:
    if not rest:
        return Rule(name, _warned, f"restriction {name} requires domain name argument")
    zone = rest.pop(0)
    return Rule(f"{name} {zone}", WITH_ARGUMENT[name], zone)


def _sleep_rule(rest: list[str]) -> Rule:
    match = _TIME.fullmatch(rest[0]) if rest else None
    if match is None:
        return _problem("sleep", "restriction sleep must be followed by number")
    rest.pop(0)
    return Rule(f"sleep {match[0]}", _sleep, str(int(match[1]) * _UNITS[match[2]]))


@dataclass(frozen=True, slots=True)
class CompiledLists:
    """All lists of a configuration. tables, policies: what they name, to be opened."""

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
    policies: frozenset[PolicySettings]

    def named(self, rest: list[str]) -> Rule | None:
        """The first restriction of words on the right-hand side of an access table.

        It is taken off, with its argument.
        """
        word = rest.pop(0)
        name, rules = word.lower(), self.classes.get(word)
        if rules is not None:
            return Rule(word, partial(_run_class, rules))
        if name == "sleep":
            return _sleep_rule(rest)
        if name in WITH_ARGUMENT:
            return _with_argument(name, rest)
        restriction = RESTRICTIONS.get(name)
        return None if restriction is None else Rule(name, restriction)


def compile_lists(
    params: RestrictionParams, classes: Mapping[str, Sequence[str]], *, guard: bool = True
) -> CompiledLists:
    """Make rules of all lists. classes: the words of each smtpd_restriction_classes parameter.

    guard: insist that something keeps strangers from relaying. Raises Fatal.
    """
    tables: set[str] = set()
    policies: set[PolicySettings] = set()
    compiler = _Compiler(params, classes, tables, policies)
    stage = "smtpd_recipient_restrictions"
    compiled = CompiledLists(
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
        frozenset(policies),
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


async def _sleep(check: Check, _: Subject, seconds: str) -> Outcome:
    await check.lookups.sleep(float(seconds))
    return DUNNO


async def _warned(check: Check, _: Subject, problem: str) -> Outcome:
    """A restriction that cannot say anything."""
    check.warn(problem)
    return DUNNO


async def _bad_configuration(check: Check, _: Subject, problem: str) -> Outcome:
    check.warn(problem)
    return check.reject_config()
