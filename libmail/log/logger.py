"""Log lines: from one event to syslog, to postlogd(8) or to a stream.

A process has one `Logger`, `LOG`, which `open` connects to its sink once, early, and which
everything else only writes to. A line has the classic form

    Nov 22 17:18:39 host postfix/smtpd[4711]: text

or, with the JSON format, is an object with the same fields. Text that comes from peers is made
printable here (see `libmail.text.printable`).
"""

import json
import os
import socket
import struct
import time
from _thread import get_ident  # commands load no more of threads than this
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final, Protocol

from libmail.log.batch import HOLD, encode_batch
from libmail.text.printable import complain, printable
from libmail.text.quoting import quote_local

__all__ = ["LOG", "Event", "Fatal", "Level", "Logger", "Sink", "printable"]


_INFO: Final = 6


class Level(Enum):
    """How bad it is. severity: that of syslog(3), which several levels may share."""

    DEBUG = "debug", _INFO
    INFO = "info", _INFO
    WARNING = "warning", 4
    ERROR = "error", 3
    FATAL = "fatal", 2
    PANIC = "panic", 2

    def __init__(self, label: str, severity: int) -> None:
        self.label: Final = label
        self.severity: Final = severity
        self.prefix: Final = "" if severity == _INFO else f"{label}: "  # of the classic form


class Fatal(Exception):
    """This process cannot go on because of its surroundings. The text is logged as "fatal: "."""


class Event(Protocol):
    """A NamedTuple for one kind of log line, see `libmail.log.events`."""

    def text(self) -> str:
        """The classic line, without time, host, tag."""

    def _asdict(self) -> dict[str, object]:
        """The fields of the JSON form."""


Later = Callable[[float, Callable[[], None]], object]
Sink = Callable[[int, str, str], None]
"""(syslog severity, head, text): head is "Nov 22 17:18:39 host tag[pid]" in the classic form."""

_MAX_LINE: Final = 8000
_SELDOM: Final = 10.0  # seconds
_MOST_WAITING: Final = 16  # lines that go to postlogd together
_PATIENCE: Final = struct.pack("ll", 1, 0)  # struct timeval: for postlogd to make room


class _Discard:
    def __call__(self, severity: int, head: str, text: str) -> None:
        pass


class StreamSink:
    """Lines to a file descriptor, one write each."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, severity: int, head: str, text: str) -> None:
        data = f"{head}{text}\n".encode("utf-8", "replace")
        try:
            os.write(self._fd, data)
        except OSError:
            pass  # nowhere left to complain


class SyslogSink:
    """Datagrams to the system's log socket, facility mail (RFC 3164)."""

    def __init__(self, path: str = "/dev/log", facility: int = 2) -> None:
        self._path = path
        self._facility = facility << 3
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._connect()

    def __del__(self) -> None:
        self._socket.close()

    def _connect(self) -> None:
        try:
            self._socket.connect(self._path)
        except OSError:
            pass  # no syslogd (yet): the next line tries again

    def __call__(self, severity: int, head: str, text: str) -> None:
        stamp, rest = head[:16], head[16:].partition(" ")[2]  # syslogd knows the host
        data = f"<{self._facility | severity}>{stamp}{rest}{text}".encode("utf-8", "replace")
        try:
            self._socket.send(data)
        except OSError:
            self._connect()
            try:
                self._socket.send(data)
            except OSError:
                pass


class PostlogSink:
    """Lines as datagrams to postlogd(8), or to `fallback` when it cannot be reached.

    In a process with an event loop (`batch`), lines wait a moment for others to join them.
    """

    def __init__(self, path: str, fallback: Sink) -> None:
        self._path = path
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        self._connected = False
        self._later: Later | None = None
        self._thread = 0  # whose lines wait
        self._waiting: list[tuple[int, int, str, str]] = []  # stamp, severity, head, text
        self._connect()

    def __del__(self) -> None:
        self._socket.close()

    def _connect(self) -> None:
        try:
            self._socket.connect(self._path)
            self._connected = True
        except OSError:
            self._connected = False

    def __call__(self, severity: int, head: str, text: str) -> None:
        if self._later is None or get_ident() != self._thread:
            if not self._send(f"{head}{text}\n".encode("utf-8", "replace")):
                self._fallback(severity, head, text)
            return
        waiting = self._waiting
        if not waiting:
            self._later(HOLD, self.flush)
        waiting.append((time.time_ns(), severity, head, text))
        if severity < _INFO or len(waiting) >= _MOST_WAITING:
            self.flush()

    def _send(self, data: bytes) -> bool:
        if not self._connected:
            self._connect()
        try:
            self._socket.send(data)
        except OSError:
            self._connected = False
            return False
        return True

    def batch(self, later: Later | None) -> None:
        """Send lines together; later: the loop's call_later. None: one by one again.

        Lines of other threads than this one still go by themselves.
        """
        self.flush()
        self._later = later
        self._thread = get_ident()

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting and not self._send(
            encode_batch([(stamp, f"{head}{text}") for stamp, _, head, text in waiting])
        ):
            for _, severity, head, text in waiting:
                self._fallback(severity, head, text)


class Logger:
    """Renders events and hands them to a sink. See `open`.

    address: turns an address in internal form into what a line shows.
    """

    def __init__(self) -> None:
        self._sink: Sink = _Discard()
        self._tag = "postfix"
        self._host = ""
        self._json = False
        self._echo = False
        self._second = -1
        self._head = ""
        self._pid = 0
        self._seldom: dict[str, tuple[float, int]] = {}  # by kind: when logged, left out since
        self.verbose = 0
        self.delay_digits = 2  # delay_logging_resolution_limit
        self.address: Callable[[str], str] = quote_local

    def open(
        self,
        sink: Sink,
        tag: str,
        *,
        json_format: bool = False,
        echo: bool = False,
        internal_addresses: bool = False,
        delay_digits: int = 2,
    ) -> None:
        """Send all later lines to `sink`, tagged "postfix/smtpd".

        echo: also "tag: text" of warnings and worse to standard error, as commands do; the tag is
        then its last component. internal_addresses: show addresses without quotes.
        delay_digits: at most, after the decimal point of delays.
        """
        self._sink = sink
        self._tag = tag
        self._host = socket.gethostname().partition(".")[0]
        self._json = json_format
        self._echo = echo
        self.delay_digits = delay_digits
        self.address = str if internal_addresses else quote_local
        self._second = -1
        self._seldom.clear()
        time.localtime()  # loads the time zone while it can be read

    def shown_tag(self) -> str:
        """How postlog(1) begins a line on standard error: by the tag, on a terminal."""
        return self._tag if os.isatty(2) else "postlog"

    def _stamp(self, now: int) -> str:
        """The head of lines of this second; also right in a forked child."""
        self._pid = os.getpid()
        local = time.localtime(now)
        stamp = time.strftime("%b %d %H:%M:%S", local)
        if stamp[4] == "0":
            stamp = f"{stamp[:4]} {stamp[5:]}"
        self._head = f"{stamp} {self._host} {self._tag}[{self._pid}]: "
        self._second = now  # last: another thread that finds it finds the head, too
        return self._head

    def batch(self, later: Later | None) -> None:
        """Lines to postlogd(8) may wait a moment; later: call_later of the running event loop.

        None: the loop ends; nothing waits any more.
        """
        if isinstance(self._sink, PostlogSink):
            self._sink.batch(later)

    def forked(self) -> None:
        """Forget what belongs to the parent process."""
        self._second = -1

    def event(self, event: Event, level: Level = Level.INFO) -> None:
        """Log one event, whose line begins with the word for a level above INFO."""
        self._say(level, event.text(), event)

    def _say(self, level: Level, text: str, event: Event | None = None) -> None:
        """The one way of everything that is logged."""
        if level.prefix:
            text = level.prefix + text
        if self._json:
            self._write_json(level, text, event)
        else:
            now = int(time.time())
            head = self._head if now == self._second else self._stamp(now)
            self._sink(level.severity, head, printable(text[:_MAX_LINE]))
        if self._echo and level is not Level.INFO:
            complain(self._tag.rpartition("/")[2], text)

    def _write_json(self, level: Level, text: str, event: Event | None) -> None:
        now = time.time()
        record: dict[str, object] = {
            "time": round(now, 6),
            "host": self._host,
            "tag": self._tag,
            "pid": os.getpid(),
            "level": level.label,
            "text": printable(text[:_MAX_LINE]),
        }
        if event is not None:
            record["event"] = type(event).__name__
            for name, value in event._asdict().items():
                record.setdefault(name, printable(value) if isinstance(value, str) else value)
        data = json.dumps(record, default=str).encode("ascii", "replace").decode("ascii")
        self._sink(level.severity, "", data)

    def debug(self, text: str) -> None:
        """Only when the process runs with -v."""
        if self.verbose:
            self._say(Level.DEBUG, text)

    def info(self, text: str) -> None:
        """An ordinary line that no log analyser knows: those are events."""
        self._say(Level.INFO, text)

    def warning(self, text: str) -> None:
        """Something an administrator should look at."""
        self._say(Level.WARNING, text)

    @contextmanager
    def instead_of(self, program: str) -> Iterator[None]:
        """What is logged inside carries the name of a command, which has no right to log itself.

        Its counterpart in the original is set-gid, and logs what it tells a user.
        """
        tag = self._tag
        self._tag = f"{tag.rpartition('/')[0]}/{program}"
        self._second = -1
        try:
            yield
        finally:
            self._tag = tag
            self._second = -1

    def seldom(self, kind: str, detail: str = "") -> None:
        """A warning that a stranger can cause as often as he likes: one line in an interval.

        kind: what counts as the same, and begins the line; of a fixed set. The next line of the
        kind says how many were left out.
        """
        now = time.monotonic()
        since, missed = self._seldom.get(kind, (-_SELDOM, 0))
        if now - since < _SELDOM:
            self._seldom[kind] = (since, missed + 1)
            return
        self._seldom[kind] = (now, 0)
        more = f" ({missed} more since the last such line)" if missed else ""
        self.warning(f"{kind}{detail}{more}")

    def error(self, text: str) -> None:
        """Something failed, the process goes on."""
        self._say(Level.ERROR, text)

    def fatal(self, text: str) -> None:
        """The last line of a process that cannot go on; the caller then exits."""
        self._say(Level.FATAL, text)

    def panic(self, text: str) -> None:
        """The last line of a process with a bug."""
        self._say(Level.PANIC, text)


LOG: Final = Logger()
