"""Whether a regular expression can take more than linear time: a check of its ambiguity.

A backtracking matcher tries all ways to match a text before it fails. There are many of them where
two paths through the automaton of the expression read the same text: exponentially many if a state
has two paths to itself, quadratically many if a state with a loop leads to another one with a loop
over the same word. A search has one such loop in front of the expression: the places to begin at.
Reference: Weideman et al., "Analyzing Matching Time Behavior of Backtracking Regular Expression
Matchers" (2016).

What is only approximated makes the check stricter, not laxer: anchors and assertions match
anywhere, repetitions with a limit have none. States in which the expression has matched end all
trying, so they are not part of a path that fails.
"""

import re
from collections.abc import Iterable, Iterator
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

__all__ = ["ambiguous"]

_SYMBOLS: Final = (*map(chr, range(256)), "\u0130", "\u0660", "\u2028", "\ud800", "\U0001f600")
_ALL: Final = (1 << len(_SYMBOLS)) - 1
# Of a transition, besides the symbols that may come next: nothing has to be true of what follows;
# it need not be the beginning of the text; it need not be the beginning of a line.
_FREE: Final = 1 << len(_SYMBOLS)
_LATER: Final = _FREE << 1
_WITHIN: Final = _FREE << 2
_NEWLINE: Final = 1 << ord("\n")
_ANY: Final = _ALL | _FREE | _LATER | _WITHIN
_ASSERTED: Final = 64  # characters that a look around may see
_COUNTED: Final = 8  # repetitions that are taken one by one; more of them are endless


def _mask(pattern: "re.Pattern[str]") -> int:
    """The symbols that a pattern for one character matches."""
    return sum(1 << at for at, symbol in enumerate(_SYMBOLS) if pattern.fullmatch(symbol))


class _Automaton:
    """With empty transitions that may forbid what comes next (behind a possessive repetition)."""

    def __init__(self, tree: Any, flags: int) -> None:
        self.flags = flags & ~re.DEBUG
        self.steps: dict[int, list[tuple[int, int]]] = {}
        self.empty: dict[int, list[tuple[int, int]]] = {}
        self._states = 0
        self.start = self._state()
        self.end = self._sequence(tree, self.start)

    def _state(self) -> int:
        self._states += 1
        self.steps[self._states] = []
        self.empty[self._states] = []
        return self._states

    def _join(self, source: int, target: int, allowed: int = _ANY) -> None:
        self.empty[source].append((target, allowed))

    def _sequence(self, items: Any, at: int) -> int:
        for code, value in items:
            at = self._item(code, value, at)
        return at

    def _item(self, code: Any, value: Any, at: int) -> int:
        if code in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN):
            after = self._state()
            self.steps[at].append((self._class(code, value), after))
            return after
        if code is op.BRANCH:
            after = self._state()
            for items in value[1]:
                self._join(self._sequence(items, at), after)
            return after
        if code is op.SUBPATTERN:
            return self._sequence(value[3], at)
        if code is op.ATOMIC_GROUP:
            return self._sequence(value, at)
        if code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            least, most, items = value
            return self._repeat(code, least, most, items, at)
        if code in (op.ASSERT, op.ASSERT_NOT):
            assert value[1].getwidth()[1] <= _ASSERTED, "a look around without limit"
            return self._guard(at, _ANY & ~_FREE)
        if code is op.GROUPREF_EXISTS:
            _, yes, no = value
            return self._item(op.BRANCH, (None, [yes, no or []]), at)
        assert code is op.AT, f"not understood: {code}"
        many = self.flags & re.MULTILINE
        if value is op.AT_BEGINNING_STRING or (value is op.AT_BEGINNING and not many):
            return self._guard(at, _ANY & ~_LATER)
        if value is op.AT_BEGINNING:
            return self._guard(at, _ANY & ~_WITHIN)
        if value is op.AT_END_STRING:
            return self._guard(at, _ANY & ~_ALL & ~_FREE)
        if value is op.AT_END:
            return self._guard(at, _ANY & ~_FREE & ~(_ALL & ~_NEWLINE))
        return self._guard(at, _ANY & ~_FREE)

    def _guard(self, at: int, allowed: int) -> int:
        after = self._state()
        self._join(at, after, allowed)
        return after

    def _repeat(self, code: Any, least: int, most: int, items: Any, at: int) -> int:
        for _ in range(min(least, _COUNTED)):
            at = self._sequence(items, at)
        if most <= _COUNTED:
            ends = [at]
            for _ in range(most - least):
                ends.append(self._sequence(items, ends[-1]))
            after = self._state()
            for end in ends:
                self._join(end, after)
            return after
        loop, after = self._state(), self._state()
        self._join(at, loop)
        body = self._sequence(items, loop)
        self._join(body, loop)
        allowed = _ANY
        if code is op.POSSESSIVE_REPEAT and len(items) == 1 and items[0][0] is not op.SUBPATTERN:
            allowed &= ~self._class(*items[0])  # it has taken all of these
        self._join(loop, after, allowed)
        return after

    def _class(self, code: Any, value: Any) -> int:
        if code is op.ANY:
            return _ALL if self.flags & re.DOTALL else _ALL & ~_NEWLINE
        if code is op.IN:
            mask = 0
            for kind, what in value:
                if kind is not op.NEGATE:
                    mask |= self._class(kind, what)
            return _ALL & ~mask if value[0][0] is op.NEGATE else mask
        flags = self.flags & (re.IGNORECASE | re.ASCII)
        if code is op.RANGE:
            text = f"[{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}]"
        elif code is op.CATEGORY:
            text = _CATEGORIES[value]
        else:
            text = re.escape(chr(value))
        mask = _mask(re.compile(text, flags))
        return _ALL & ~mask if code is op.NOT_LITERAL else mask

    def reach(self, state: int) -> list[tuple[int, int]]:
        """The states without a step from here, each with what may come next.

        A state comes twice if there is more than one way to it, which is an ambiguity as well.
        """
        found: list[tuple[int, int]] = []
        ways: dict[int, int] = {}

        def walk(at: int, allowed: int) -> None:
            if ways.get(at, 0) >= 2:
                return
            ways[at] = ways.get(at, 0) + 1
            found.append((at, allowed))
            for target, guard in self.empty[at]:
                if allowed & guard:
                    walk(target, allowed & guard)

        walk(state, _ANY)
        return found


_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip

Edges = dict[int, list[tuple[int, int]]]
_ANYWHERE: Final = 0  # states of a search that has not begun
_LINE_BEGINS: Final = -1


def _edges(automaton: _Automaton, *, whole: bool, search: bool) -> tuple[int, Edges]:
    """Start and transitions without empty ones. whole: all of the text has to match."""
    start, end = automaton.start, automaton.end
    edges: Edges = {}
    todo = [start]
    while todo:
        state = todo.pop()
        if state in edges:
            continue
        edges[state] = []
        near = automaton.reach(state)
        matched = any(middle == end and allowed & _FREE for middle, allowed in near)
        if matched and not whole and state != start:
            continue  # nothing is tried any more
        for middle, allowed in near:
            if state != start and not allowed & _LATER:
                continue
            for mask, target in automaton.steps[middle]:
                if mask & allowed:
                    edges[state].append((mask & allowed, target))
                    todo.append(target)
    if search:
        _let_begin_anywhere(automaton, edges)
        return _ANYWHERE, edges
    return start, edges


def _let_begin_anywhere(automaton: _Automaton, edges: Edges) -> None:
    """Put in front that characters are skipped, and that lines are."""
    for state in (_ANYWHERE, _LINE_BEGINS):
        edges[state] = [(_ALL & ~_NEWLINE, _ANYWHERE), (_NEWLINE, _LINE_BEGINS)]
        for middle, allowed in automaton.reach(automaton.start):
            if allowed & _LATER and (state == _LINE_BEGINS or allowed & _WITHIN):
                edges[state] += [
                    (mask & allowed, target)
                    for mask, target in automaton.steps[middle]
                    if mask & allowed
                ]


def _reachable(edges: Edges, start: int) -> set[int]:
    seen = {start}
    todo = [start]
    while todo:
        for _, target in edges[todo.pop()]:
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def _steps(edges: Edges, states: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Where several paths may be after reading the same character."""
    if len(states) == 1:
        return
    first, second, *rest = states
    for mask1, target1 in edges[first]:
        for mask2, target2 in edges[second]:
            both = mask1 & mask2
            if not both:
                continue
            if not rest:
                yield target1, target2
                continue
            for mask3, target3 in edges[rest[0]]:
                if both & mask3:
                    yield target1, target2, target3


def _leads(edges: Edges, source: tuple[int, ...], target: tuple[int, ...],
           within: Iterable[set[int]]) -> bool:  # fmt: skip
    rooms = tuple(within)
    seen = {source}
    todo = [source]
    while todo:
        for states in _steps(edges, todo.pop()):
            if states == target:
                return True
            if states not in seen and all(s in room for s, room in zip(states, rooms, strict=True)):
                seen.add(states)
                todo.append(states)
    return False


def _exponential(edges: Edges, state: int, loop: set[int]) -> bool:
    """Whether two paths lead from the state to itself over one word."""
    apart: set[tuple[int, int]] = set()
    todo: list[tuple[int, int]] = [(state, state)]
    seen = {(state, state)}
    while todo:
        at = todo.pop()
        counted: dict[int, int] = {}
        for mask, target in edges[at[0]]:
            if at[0] == at[1] and target in loop and counted.get(target, 0) & mask:
                return True  # two ways over the same character
            counted[target] = counted.get(target, 0) | mask
        for pair in _steps(edges, at):
            first, second = pair
            if first in loop and second in loop and (first, second) not in seen:
                seen.add((first, second))
                todo.append((first, second))
                if first != second:
                    apart.add((first, second))
    return any(_leads(edges, pair, (state, state), (loop, loop)) for pair in apart)


def ambiguous(pattern: str | bytes, flags: int, *, whole: bool, search: bool) -> str:
    """ "" for a pattern that is linear, or "exponential", "quadratic".

    whole: fullmatch. search: it may begin anywhere.
    """
    if isinstance(pattern, bytes):
        pattern, flags = pattern.decode("latin-1"), flags | re.ASCII
    tree = parser.parse(pattern, flags)
    automaton = _Automaton(tree, tree.state.flags)
    start, edges = _edges(automaton, whole=whole, search=search)
    reach = {state: _reachable(edges, state) for state in _reachable(edges, start)}
    loops = {
        state: {other for other in reach[state] if state in reach[other]}
        for state in reach
        if any(state in reach[target] for _, target in edges[state])
    }
    for state, loop in loops.items():
        if _exponential(edges, state, loop):
            return "exponential"
    for first, loop1 in loops.items():
        for second, loop2 in loops.items():
            if first == second or second not in reach[first]:
                continue
            between = {one for one in reach[first] if second in reach[one]}
            rooms = (loop1, between, loop2)
            if _leads(edges, (first, first, second), (first, second, second), rooms):
                return "quadratic"
    return ""
