"""The rules of regexp and pcre tables: parsing, and searching them in order.

    /pattern/flags result        !/pattern/flags result
    if /pattern/flags ... endif  if !/pattern/flags ... endif

The two types differ in how a pattern is compiled, which an `Engine` does; everything else is
here.  A rule that cannot be used is left out with a warning, so one mistake does not take the
other rules away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, Protocol

from libmail.tables.entries import EntryError
from libmail.tables.lines import read_rules
from libmail.tables.patterns.literals import required_text
from libmail.tables.table import KeyFilter, Log, TableOptions, key_filter
from libmail.text.search import first_of

__all__ = ["Engine", "Groups", "Matcher", "PatternError", "RuleTable", "open_rules",
           "parse_rules"]  # fmt: skip

_BLANKS: Final = " \t\r\n\v\f"
_LETTERS: Final = re.compile(r"\S*", re.ASCII)
_LETTERS_TO_SECOND: Final = re.compile(r"[^\s!]*", re.ASCII)

# The parts of the subject that the groups matched; group 0 is the whole match.
Groups = Sequence[bytes]


class PatternError(Exception):
    """A pattern does not compile.  `str()` is the library's message."""


class Matcher(Protocol):
    """One compiled pattern."""

    groups: int  # number of groups in parentheses

    def matches(self, subject: bytes) -> bool:
        """Tell whether the pattern matches somewhere in the subject.

        Raises `PatternError` where the library gave up.
        """

    def find(self, subject: bytes) -> Groups | None:
        """Return what the groups matched; a group that took no part is empty."""


class _WithSecond:
    """One pattern, and another that must not match: /one/!/other/.

    negated: it is the first one that must not match; of the second that is told by its own "!".
    """

    def __init__(self, first: Matcher, negated: bool, second: Matcher, twice: bool) -> None:
        self.groups = first.groups
        self._first = first
        self._negated = negated
        self._second = second
        self._wanted = not twice

    def matches(self, subject: bytes) -> bool:
        """Tell whether the rule applies to the subject."""
        return (
            self._first.matches(subject) is not self._negated
            and self._second.matches(subject) is not self._wanted
        )

    def find(self, subject: bytes) -> Groups | None:
        """Return what the groups of the first one matched."""
        found = self._first.find(subject)
        if found is None or self._second.matches(subject) is self._wanted:
            return None
        return found


class Engine(Protocol):
    """How one table type compiles its patterns."""

    kind: str  # "regexp", "pcre"
    flags: str  # the letters that may follow a pattern
    obsolete: str  # those of them that have no meaning any more
    skipping: str  # what the log says when a rule has no closing delimiter
    no_group: str  # and when a result names group 0
    second: bool  # a rule may have a second pattern: /one/!/other/

    def compile(self, pattern: bytes, flags: frozenset[str], *, groups: bool) -> Matcher:
        """Compile; `flags` are the toggled ones; groups=False: only `matches` is needed.

        Raises `PatternError`.
        """


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    required: text in lower case without which the pattern cannot match; b"" for none.  skip: index
    of the rule to go on with when an `if` does not hold.
    """

    line: int
    matcher: Matcher
    required: bytes
    negated: bool
    result: str
    parts: tuple[bytes | int, ...]  # text and group numbers; empty: the result has no groups
    skip: int = 0  # 0: no `if`


@dataclass(frozen=True, slots=True)
class _Pattern:
    text: bytes
    flags: frozenset[str]
    negated: bool


class _SkipRule(Exception):
    """The rule cannot be used; `str()` says why."""


class RuleTable:
    """A table of patterns, tried in order.

    screen: finds the texts of which each key that has a result holds at least one; None if there
    may be other keys. So whole content can be searched at once for lines that are worth a lookup.
    """

    pattern = True

    def __init__(
        self, kind: str, name: str, rules: Sequence[Rule], ready: KeyFilter, log: Log
    ) -> None:
        self.spec = f"{kind}:{name}"
        self._title = f"{kind} map {name}"
        self._rules = rules
        # A rule that may do something without a match is always looked at.  To look for bytes in
        # bytes takes twenty times as long as for text in text.
        self._rules_with: dict[str, list[int]] = {}
        for at, rule in enumerate(rules):
            text = "" if rule.negated or rule.skip else rule.required.decode("latin-1")
            self._rules_with.setdefault(text, []).append(at)
        self._always = self._rules_with.pop("", [])
        self._first = first_of(text.encode("latin-1") for text in self._rules_with)
        always = all(rules[at].skip for at in self._always)
        self.screen: Final = self._first if always else None
        self._ready = ready
        self._log = log

    async def lookup(self, key: str) -> str | None:
        """Return the result of the first rule that applies to the key, or None."""
        if self._ready(key) is None:
            return None
        subject = key.encode("utf-8", "surrogateescape")
        behind = 0
        for at in self._worthwhile(subject):
            if at < behind:
                continue
            rule = self._rules[at]
            try:
                if not rule.parts:
                    if rule.matcher.matches(subject) is rule.negated:
                        behind = rule.skip
                    elif not rule.skip:
                        return rule.result
                elif (groups := rule.matcher.find(subject)) is not None:
                    text = b"".join(p if isinstance(p, bytes) else groups[p] for p in rule.parts)
                    return text.decode("utf-8", "surrogateescape")
            except PatternError as error:
                self._log.warning(f"{self._title}, line {rule.line}: {error}")
                behind = rule.skip
        return None

    def _worthwhile(self, subject: bytes) -> list[int]:
        """The rules that may apply to a key, in order."""
        if self._first(subject, 0) < 0:
            return self._always
        texts = filter(subject.lower().decode("latin-1").__contains__, self._rules_with)
        found = map(self._rules_with.__getitem__, texts)
        return sorted(chain(self._always, *found))

    def close(self) -> None:
        """Do nothing: compiled patterns go with the table."""


def open_rules(engine: Engine, kind: str, name: str, options: TableOptions) -> RuleTable:
    """Open `kind:name` or `kind:{ {rule} ... }`. Raises TableConfigError."""
    lines, literal = read_rules(kind, name), options.sensitive or options.literal
    rules = parse_rules(engine, name, lines, options.log, literal=literal, files=options.files)
    ready = key_filter(f"{kind}:{name}", options, pattern=True)
    return RuleTable(kind, name, rules, ready, options.log)


def parse_rules(
    engine: Engine,
    name: str,
    lines: Iterable[tuple[int, str]],
    log: Log,
    *,
    literal: bool = False,
    files: Callable[[str], str] | None = None,
) -> list[Rule]:
    """Compile the rules of a table; `lines`: number and text of its logical lines.

    literal: results may not have text of the key, which could name a file, a command or a host.
    files: gives the value for names of files, where results are that; raises EntryError.
    """
    rules: list[Rule] = []
    open_ifs: list[tuple[int, int]] = []  # index of the rule, line number
    for number, line in lines:
        where = f"{engine.kind} map {name}, line {number}"

        def warn(text: str, where: str = where) -> None:
            log.warning(f"{where}: {text}")

        text = line.strip(_BLANKS)
        try:
            if not text[0].isalnum():
                rule = _result_rule(engine, number, text, warn, log, files=files)
                if rule.parts and literal:
                    raise _SkipRule(
                        "regular expression substitution is not allowed: skipping this rule"
                    )
                rules.append(rule)
            elif _is_word(text, "if"):
                rule = _if_rule(engine, number, text[2:].lstrip(_BLANKS), warn)
                open_ifs.append((len(rules), number))
                rules.append(rule)
            elif _is_word(text, "endif"):
                _close_if(rules, open_ifs, text, warn)
            else:
                warn("ignoring unrecognized request")
        except _SkipRule as reason:
            warn(str(reason))
    while open_ifs:
        at, number = open_ifs.pop()
        log.warning(f"{engine.kind} map {name}, line {number}: IF has no matching ENDIF")
        _end_if(rules, at)
    return rules


def _is_word(text: str, word: str) -> bool:
    rest = text[len(word) :]
    return text[: len(word)].lower() == word and (not rest or not rest[0].isalnum())


def _close_if(
    rules: list[Rule], open_ifs: list[tuple[int, int]], text: str, warn: Callable[[str], None]
) -> None:
    if not open_ifs:
        warn("ignoring ENDIF without matching IF")
        return
    if text[5:].strip(_BLANKS):
        warn("ignoring extra text after ENDIF")
    _end_if(rules, open_ifs.pop()[0])


def _end_if(rules: list[Rule], at: int) -> None:
    rule = rules[at]
    rules[at] = replace(rule, skip=len(rules))


def _if_rule(engine: Engine, line: int, text: str, warn: Callable[[str], None]) -> Rule:
    pattern, rest = _take_pattern(engine, text, warn)
    if rest := rest.strip(_BLANKS):
        warn(f'ignoring extra text after IF statement: "{rest}"')
        warn("do not prepend whitespace to statements between IF and ENDIF")
    # `skip` gets its value at the ENDIF; -1 marks the rule as an `if` until then.
    matcher = _compile(engine, pattern, groups=False)
    return Rule(line, matcher, _required(pattern), pattern.negated, "", (), skip=-1)


def _result_rule(
    engine: Engine,
    line: int,
    text: str,
    warn: Callable[[str], None],
    log: Log,
    *,
    files: Callable[[str], str] | None,
) -> Rule:
    pattern, result = _take_pattern(engine, text, warn)
    second: _Pattern | None = None
    if engine.second and result.startswith("!"):
        second, result = _take_pattern(engine, result, warn)
    result = result.strip(_BLANKS)
    if not result:
        warn("no replacement text: using empty string")
    result = result if files is None else _content(result, files)
    parts = _parse_result(engine, result, warn, log)
    numbers = [part for part in parts if isinstance(part, int)]
    required = _required(pattern)
    if numbers and pattern.negated:
        raise _SkipRule("$number found in negative match replacement text: skipping this rule")
    matcher = _compile(engine, pattern, groups=bool(numbers))
    if second is not None:
        other = _compile(engine, second, groups=False)
        matcher = _WithSecond(matcher, pattern.negated, other, not second.negated)
        required = b"" if pattern.negated else required
        pattern = replace(pattern, negated=False)
    if numbers and max(numbers) > matcher.groups:
        raise _SkipRule(f'out of range replacement index "{max(numbers)}": skipping this rule')
    if numbers:
        return Rule(line, matcher, required, pattern.negated, result, tuple(parts))
    plain = b"".join(part for part in parts if isinstance(part, bytes))
    text = plain.decode("utf-8", "surrogateescape")
    return Rule(line, matcher, required, pattern.negated, text, ())


def _content(names: str, read: Callable[[str], str]) -> str:
    try:
        return read(names)
    except EntryError as error:
        raise _SkipRule(f"{error}: skipping this rule") from None


def _required(pattern: _Pattern) -> bytes:
    # With "x" a pattern is a basic one (regexp), or has white space and comments (pcre).
    text = b"" if "x" in pattern.flags else required_text(pattern.text)
    return b"" if b"\n" in text else text  # content has another line end than keys


def _take_pattern(engine: Engine, text: str, warn: Callable[[str], None]) -> tuple[_Pattern, str]:
    """Take "/pattern/flags" from the start of the text; return it and what follows."""
    negated = False
    while text.startswith("!"):
        negated = not negated
        text = text[1:].lstrip(_BLANKS)
    if not text:
        raise _SkipRule("no regexp: skipping this rule")
    end = _closing_delimiter(text)
    if end < 0:
        raise _SkipRule(f'no closing regexp delimiter "{text[0]}": {engine.skipping} this rule')
    match = (_LETTERS_TO_SECOND if engine.second else _LETTERS).match(text, end + 1)
    letters = match[0] if match else ""
    toggled: set[str] = set()
    for letter in letters:
        if letter not in engine.flags:
            raise _SkipRule(f'unknown regexp option "{letter}": skipping this rule')
        if letter in engine.obsolete:
            warn(f'ignoring obsolete regexp option "{letter}"')
        toggled ^= {letter}
    pattern = text[1:end].encode("utf-8", "surrogateescape")
    return _Pattern(pattern, frozenset(toggled), negated), text[end + 1 + len(letters) :]


def _closing_delimiter(text: str) -> int:
    """Return the index of the delimiter that ends the pattern, or -1."""
    delimiter, at = text[0], 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == delimiter:
            return at
        at += 1
    return -1


def _compile(engine: Engine, pattern: _Pattern, *, groups: bool) -> Matcher:
    try:
        return engine.compile(pattern.text, pattern.flags, groups=groups)
    except PatternError as error:
        raise _SkipRule(str(error)) from None


_MACRO: Final = re.compile(
    r"\$(?:(\$)|\{(?P<brace>[^{}]*)\}|\((?P<paren>[^()]*)\)|(?P<plain>[A-Za-z0-9_]+))"
)


def _parse_result(
    engine: Engine, result: str, warn: Callable[[str], None], log: Log
) -> list[bytes | int]:
    """Split a result into text and group numbers: "x $1 ${2}" gives [b"x ", 1, b" ", 2]."""
    parts: list[bytes | int] = []
    at = 0
    while (dollar := result.find("$", at)) >= 0:
        parts.append(result[at:dollar].encode("utf-8", "surrogateescape"))
        match = _MACRO.match(result, dollar)
        if match is None:
            truncated = result.startswith(("{", "("), dollar + 1)
            problem = "truncated macro reference" if truncated else "empty macro name"
            log.warning(f'{problem}: "{result}"')
            raise _SkipRule("bad replacement syntax: skipping this rule")
        if match.group(1):
            parts.append(b"$")
        else:
            number = match["brace"] or match["paren"] or match["plain"] or ""
            if not (number.isascii() and number.isdigit()):
                warn(f'non-numeric replacement index "{number}"')
                raise _SkipRule("bad replacement syntax: skipping this rule")
            if int(number) < 1:
                warn(f'{engine.no_group} replacement index "{number}"')
                raise _SkipRule("bad replacement syntax: skipping this rule")
            parts.append(int(number))
        at = match.end()
    parts.append(result[at:].encode("utf-8", "surrogateescape"))
    return parts
