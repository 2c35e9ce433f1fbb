"""cidr:/path - networks in address/prefix form, tried in order.

10.0.0.0/8 result    !10.0.0.0/8 result    if 10.0.0.0/8 ... endif
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from libmail.tables.entries import EntryError
from libmail.tables.lines import read_rules
from libmail.tables.networks import Network, NetworkError, parse_address, parse_network
from libmail.tables.table import Log, TableOptions, key_filter

__all__ = ["CidrTable", "open_named", "parse_rules"]

_BLANKS: Final = " \t\r\n\v\f"


@dataclass(frozen=True, slots=True)
class CidrRule:
    """One rule.  `skip`: index of the rule to go on with when an `if` does not hold."""

    network: Network
    negated: bool
    result: str
    skip: int = 0  # 0: no `if`


class CidrTable:
    """A table of networks, tried in order.  A key that is no address has no result."""

    pattern = True

    def __init__(self, spec: str, rules: Sequence[CidrRule], options: TableOptions) -> None:
        self.spec = spec
        self._rules = rules
        self._ready = key_filter(spec, options, pattern=True)

    async def lookup(self, key: str) -> str | None:
        """Return the result of the first rule that applies to the address, or None."""
        if self._ready(key) is None:
            return None
        address = parse_address(key)
        if address is None:
            return None
        rules = self._rules
        at = 0
        while at < len(rules):
            rule = rules[at]
            at += 1
            network = rule.network
            # "!" is about the addresses of the same family; those of the other never apply.
            if network.version != address[0] or network.holds(address) is rule.negated:
                at = rule.skip or at
            elif not rule.skip:
                return rule.result
        return None

    def close(self) -> None:
        """Do nothing: nothing is open."""


ValueOf: TypeAlias = Callable[[str], str]


class _SkipRule(Exception):
    """The rule cannot be used; `str()` says why."""


def parse_rules(
    name: str, lines: Iterable[tuple[int, str]], log: Log, value: ValueOf = str
) -> list[CidrRule]:
    """Parse the rules of a table.

    lines: number and text of its logical lines. value: what the table holds for a result.
    """
    rules: list[CidrRule] = []
    open_ifs: list[tuple[int, int]] = []  # index of the rule, line number
    for number, line in lines:
        try:
            _parse_rule(line.strip(_BLANKS), number, rules, open_ifs, value)
        except _SkipRule as reason:
            log.warning(f"cidr map {name}, line {number}: {reason}: skipping this rule")
    while open_ifs:
        at, number = open_ifs.pop()
        log.warning(f"cidr map {name}, line {number}: IF has no matching ENDIF")
        _end_if(rules, at)
    return rules


def _end_if(rules: list[CidrRule], at: int) -> None:
    rule = rules[at]
    rules[at] = CidrRule(rule.network, rule.negated, rule.result, skip=len(rules))


_IF: Final = re.compile(r"if(?=[\s!]|$)", re.IGNORECASE | re.ASCII)
_ENDIF: Final = re.compile(r"endif(?![0-9a-z])", re.IGNORECASE | re.ASCII)


def _parse_rule(
    text: str,
    number: int,
    rules: list[CidrRule],
    open_ifs: list[tuple[int, int]],
    value: ValueOf,
) -> None:
    if _IF.match(text):
        network, negated = _pattern(text[2:].lstrip(_BLANKS))
        open_ifs.append((len(rules), number))
        rules.append(CidrRule(network, negated, "", skip=-1))
        return
    if _ENDIF.match(text):
        if text[5:].strip(_BLANKS):
            raise _SkipRule("garbage after ENDIF")
        if not open_ifs:
            raise _SkipRule("ENDIF without IF")
        _end_if(rules, open_ifs.pop()[0])
        return
    negation = text[: len(text) - len(text.lstrip("!" + _BLANKS))]
    parts = text[len(negation) :].split(None, 1)
    network, negated = _pattern(negation + (parts[0] if parts else ""))
    if len(parts) < 2:
        raise _SkipRule("no lookup result")
    try:
        rules.append(CidrRule(network, negated, value(parts[1])))
    except EntryError as error:
        raise _SkipRule(str(error)) from None


def _pattern(text: str) -> tuple[Network, bool]:
    negated = False
    while text.startswith("!"):
        negated = not negated
        text = text[1:].lstrip(_BLANKS)
    if not text:
        raise _SkipRule("no address pattern")
    try:
        return parse_network(text), negated
    except NetworkError as error:
        raise _SkipRule(str(error)) from None


def open_named(kind: str, name: str, options: TableOptions) -> CidrTable:
    """Open `cidr:name` or `cidr:{ {rule} ... }`; raises `TableConfigError`."""
    value = options.files or str
    rules = parse_rules(name, read_rules(kind, name), options.log, value)
    return CidrTable(f"{kind}:{name}", rules, options)
