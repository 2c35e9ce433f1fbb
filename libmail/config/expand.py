"""Expansion of `$name` and `${...}` in parameter values, postconf(5) "File format".

`$name`, `${name}`, `$(name)`; `${name?text}`, `${name:text}` with or without braces around the
text, `${name?{a}:{b}}`; `${{a} == {b} ? {c} : {d}}` with == != < <= >= >, numeric where both
sides are whole numbers, and the same operators with the suffix `level` for compatibility levels;
`${domain_to_ascii{text}}`; `$$` is a dollar. What a name stands for is expanded in turn.
"""

from __future__ import annotations

from libmail.config.errors import ExpansionError
from libmail.config.main_cf import SPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Lookup = Callable[[str], str | None]

__all__ = ["compatibility_level", "expand", "references"]

NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
CLOSING = {"{": "}", "(": ")"}
OPERATORS = ("==", "!=", "<=", ">=", "<", ">")
MAX_DEPTH = 100


def expand(text: str, lookup: Lookup) -> str:
    """The text with every reference replaced by what lookup (unexpanded; None: undefined) says.

    Raises ExpansionError for malformed references and for names that contain themselves.
    """
    return _expand(text, lookup, 0) if "$" in text else text


def references(text: str) -> list[str]:
    """The names that a value may refer to, in any of its branches, as often as it does."""
    found: list[str] = []
    position = text.find("$")
    while position >= 0:
        start = position + 1
        if text[start : start + 1] == "$":
            position = text.find("$", start + 1)
            continue
        if text[start : start + 1] in CLOSING:
            start += 1
            while text[start : start + 1] and text[start] in SPACES:
                start += 1
        end = _name_end(text, start)
        if end > start and text[start : end + 1] != "domain_to_ascii{":
            found.append(text[start:end])
        position = text.find("$", start)
    return found


def compatibility_level(text: str) -> tuple[int, int, int]:
    """(major, minor, patch) of "3", "3.6" or "3.6.1". Raises ExpansionError."""
    numbers = text.strip(SPACES).split(".")
    if len(numbers) > 3 or not all(_is_number(n) and len(n) < 10 for n in numbers):
        raise ExpansionError(f'malformed compatibility level syntax: "{text}"')
    major, minor, patch = ([int(n) for n in numbers] + [0, 0])[:3]
    return major, minor, patch


def _expand(text: str, lookup: Lookup, depth: int) -> str:
    parts: list[str] = []
    done = 0
    dollar = text.find("$")
    while dollar >= 0:
        parts.append(text[done:dollar])
        start = dollar + 1
        opening = text[start : start + 1]
        if opening == "$":
            parts.append("$")
            done = start + 1
        elif opening in CLOSING:
            end = _closing(text, start)
            if end < 0:
                raise ExpansionError(f'truncated macro reference: "{text}"')
            parts.append(_reference(text[start + 1 : end], text, lookup, depth))
            done = end + 1
        else:
            done = _name_end(text, start)
            if done == start:
                raise ExpansionError(f'empty macro name: "{text}"')
            parts.append(_value(text[start:done], lookup, depth))
        dollar = text.find("$", done)
    parts.append(text[done:])
    return "".join(parts)


def _reference(body: str, text: str, lookup: Lookup, depth: int) -> str:
    """What `${body}` stands for."""
    start = _skip(body, 0)
    if body[start : start + 1] == "{":
        true, after = _comparison(body, start, lookup, depth)
        if after == len(body):
            return "true" if true else ""
        if body[after] not in "?:":
            raise _expected('"?" or ":" expected', body, after)
        return _choose(true, body, after, lookup, depth)
    end = _name_end(body, start)
    name = body[start:end]
    after = _skip(body, end)
    if end == start and after == len(body):
        raise ExpansionError(f'empty macro name: "{text}"')
    if name and after == len(body):
        return _value(name, lookup, depth)
    if name and body[after] in "?:":
        return _choose(bool(_value(name, lookup, depth)), body, after, lookup, depth)
    if name and body[end] == "{":
        return _function(name, body, end, lookup, depth)
    raise _expected("attribute name syntax error", body, end)


def _value(name: str, lookup: Lookup, depth: int) -> str:
    value = lookup(name)
    if value is None or "$" not in value:
        return value or ""
    if depth >= MAX_DEPTH:
        raise ExpansionError(f'unreasonable macro call nesting: "{name}"')
    return _expand(value, lookup, depth + 1)


def _choose(true: bool, body: str, operator: int, lookup: Lookup, depth: int) -> str:
    """The branch of `?text`, `?{a}`, `?{a}:{b}`, `:text` or `:{text}` that applies, expanded."""
    yes, no = "", ""
    start = _skip(body, operator + 1)
    if body[start : start + 1] != "{":
        branch, after = body[operator + 1 :], len(body)
    else:
        branch, after = _braces(body, start)
    if body[operator] == ":":
        if after != len(body):
            raise _expected("unexpected input", body, after)
        no = branch
    else:
        yes = branch
        if after != len(body):
            no = _alternative(body, after)
    chosen = yes if true else no
    return _expand(chosen, lookup, depth + 1) if "$" in chosen else chosen


def _alternative(body: str, after: int) -> str:
    if body[after] != ":":
        raise _expected('":" expected', body, after)
    start = _skip(body, after + 1)
    if body[start : start + 1] != "{":
        return body[after + 1 :]
    branch, end = _braces(body, start)
    if end != len(body):
        raise _expected("unexpected input", body, end)
    return branch


def _comparison(body: str, start: int, lookup: Lookup, depth: int) -> tuple[bool, int]:
    """(result, position behind it and the white space) of `{left} operator {right}`."""
    left, after = _braces(body, start)
    operator = next((op for op in OPERATORS if body.startswith(op, after)), "")
    if not operator:
        raise _expected('"==" or "!=" or "<" or "<=" or ">=" or ">" expected', body, after)
    after += len(operator)
    by_level = body.startswith("level", after)
    if by_level:
        after += len("level")
    right_start = _skip(body, after)
    if body[right_start : right_start + 1] != "{":
        raise _expected('"{expression}" expected', body, after)
    right, after = _braces(body, right_start)
    values = _expand(left, lookup, depth + 1), _expand(right, lookup, depth + 1)
    return _compare(operator, by_level, *values), after


def _compare(operator: str, by_level: bool, left: str, right: str) -> bool:
    sign = _order(left, right, by_level)
    return {
        "==": sign == 0,
        "!=": sign != 0,
        "<": sign < 0,
        "<=": sign <= 0,
        ">=": sign >= 0,
        ">": sign > 0,
    }[operator]


def _order(left: str, right: str, by_level: bool) -> int:
    """Below, equal to or above 0 as left is below, equal to or above right."""
    if by_level:
        a, b = compatibility_level(left), compatibility_level(right)
        return (a > b) - (a < b)
    if _is_number(left) and _is_number(right):
        left, right = left.lstrip("0"), right.lstrip("0")
        if len(left) != len(right):
            return len(left) - len(right)
    return (left > right) - (left < right)


def _function(name: str, body: str, start: int, lookup: Lookup, depth: int) -> str:
    if name != "domain_to_ascii":
        raise _expected("attribute name syntax error", body, start)
    argument, after = _braces(body, start)
    if after != len(body):
        raise _expected("unexpected input", body, after)
    domain = _expand(argument, lookup, depth + 1)
    try:
        return domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain


def _braces(body: str, start: int) -> tuple[str, int]:
    """(content, position behind the group and the white space after it) of `{content}`."""
    end = _closing(body, start)
    if end < 0:
        raise ExpansionError(f'unbalanced {{}} in attribute expression: "{body[start:]}"')
    return body[start + 1 : end], _skip(body, end + 1)


def _closing(text: str, start: int) -> int:
    """Where the bracket at start is closed; -1 if nowhere. Only its own kind is counted."""
    opening, closing = text[start], CLOSING[text[start]]
    depth = 1
    position = start + 1
    while depth:
        end = text.find(closing, position)
        if end < 0:
            return -1
        depth += text.count(opening, position, end) - 1
        position = end + 1
    return position - 1


def _name_end(text: str, start: int) -> int:
    end = start
    while end < len(text) and text[end] in NAME_CHARS:
        end += 1
    return end


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start] in SPACES:
        start += 1
    return start


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _expected(problem: str, body: str, position: int) -> ExpansionError:
    before, after = body[max(0, position - 20) : position], body[position : position + 20]
    return ExpansionError(f'{problem} at: "...{before}>>>{after}"')
