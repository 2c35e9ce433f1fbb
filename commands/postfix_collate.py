"""postfix-collate(1): the lines of a log, those of a session or a message together.

A group has all that a connection to smtpd logged and all that was logged of the messages that came
by it, or of one message that came otherwise. It is complete when the session has ended and the
messages have left the queue. A line without a queue id outside of a session, as of smtp(8) when it
connects, belongs to the message that the same process names next.

Reads: log files in the classic form, or standard input.
"""

import getopt
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TextIO

from libmail.queue.ids import is_queue_id
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["groups", "main"]

_USAGE: Final = "usage: postfix-collate [file...]"


class _Line(NamedTuple):
    """process: "HOST TAG[PID"; queue_id: "" for none; rest: behind the queue id."""

    process: str
    queue_id: str
    rest: str


def _parse(line: str) -> _Line | None:
    """None: of no program of the mail system."""
    head, mark, text = line.partition("]: ")
    program, bracket, pid = head.rpartition("[")
    tag = program.rpartition(" ")[2]
    if not mark or not bracket or not pid.isdigit() or "/" not in tag:
        return None
    queue_id, colon, rest = text.partition(": ")
    process = " ".join(head.rsplit(" ", 2)[-2:])
    known = bool(colon) and is_queue_id(queue_id)
    return _Line(process, queue_id, rest) if known else _Line(process, "", text)


class _Group:
    """Lines, and what has not ended yet: sessions of smtpd, messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.open: set[str] = set()


class _Collator:
    def __init__(self) -> None:
        self._messages: dict[str, _Group] = {}  # by queue id
        self._sessions: dict[str, _Group] = {}  # by process
        self._waiting: dict[str, list[str]] = {}  # by process: lines that the next message gets

    def _group_of(self, line: _Line) -> _Group:
        group = self._messages.get(line.queue_id) or self._sessions.get(line.process) or _Group()
        if line.queue_id:
            self._messages[line.queue_id] = group
            group.open.add(line.queue_id)
        return group

    def add(self, text: str, line: _Line) -> list[str]:
        """Lines of the group that this line completes; none if it completes none."""
        if line.rest.startswith("connect from "):
            return self._begin(text, line.process)
        if not line.queue_id and line.process not in self._sessions:
            self._waiting.setdefault(line.process, []).append(text)
            return []
        group = self._group_of(line)
        group.lines += [*self._waiting.pop(line.process, ()), text]
        if line.queue_id and line.rest.rstrip() == "removed":
            group.open.discard(line.queue_id)
            self._messages.pop(line.queue_id, None)
        elif line.rest.startswith("disconnect from "):
            group.open.discard(line.process)
            self._sessions.pop(line.process, None)
        return [] if group.open else group.lines

    def _begin(self, text: str, process: str) -> list[str]:
        """A session begins; one of this process whose end is not in the log has ended."""
        before = self._sessions.get(process, _Group())
        before.open.discard(process)
        self._sessions[process] = group = _Group()
        group.open.add(process)
        group.lines.append(text)
        return [] if before.open else before.lines

    def rest(self) -> Iterator[list[str]]:
        """What is not complete."""
        left = {id(one): one for one in (*self._messages.values(), *self._sessions.values())}
        yield from (group.lines for group in left.values())
        yield from self._waiting.values()


def groups(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines of each group, in order; groups as they become complete, then those that do not."""
    collator = _Collator()
    for text in lines:
        line = _parse(text)
        if line is not None and (complete := collator.add(text, line)):
            yield complete
    yield from collator.rest()


def _write(source: TextIO) -> None:
    for group in groups(source):
        text = "".join(line.rstrip("\n") + "\n" for line in group) + "\n"
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


def main(arguments: Sequence[str]) -> int:
    """Run postfix-collate; returns the exit status. arguments: names of log files."""
    try:
        _, names = getopt.getopt(list(arguments), "")
    except getopt.GetoptError as err:
        complain("postfix-collate", option_mistake(err))
        complain("postfix-collate", f"fatal: {_USAGE}")
        return 1
    for name in names or ("-",):
        file: int | str = 0 if name == "-" else name
        try:
            with open(
                file, encoding="utf-8", errors="surrogateescape", closefd=file != 0
            ) as source:
                _write(source)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            return 0
        except OSError as err:
            complain("postfix-collate", f"{name}: {err.strerror}")
            return 1
    return 0
