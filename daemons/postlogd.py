"""postlogd(8): writes the log lines of all programs into maillog_file.

Called by: every program, as a client of the datagram socket `public/postlog`. Writes: the file,
or standard output. Asks and tells nobody. Needs: to open the file before it gives up root; to look
at the file's directory later.

Anyone may send lines. Only the mail system and root are believed to be the program that a line
names; those of users get a head that says so and names the user, and are limited in number.

When the file has been moved away (logrotate) it is opened anew; a process that has no right to do
that retires, and master starts another one, which opens the file before the jail.
"""

import asyncio
import bisect
import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from libmail.log import LOG, Fatal, Logger
from libmail.log.batch import HOLD, STAMP, decode_datagram, stamp_of, stamped
from libmail.log.setup import maillog_file, open_log, open_maillog, standard_stream
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE"]

_CHECK_INTERVAL: Final = 1.0  # seconds between looks at whether the file is still the same
_SETTLE: Final = 2.5 * HOLD
_INTERVAL: Final = 10.0  # seconds in which a user may have so many lines
_MOST_LINES: Final = 100
_LONGEST: Final = 2000  # octets of a user's line
# What a line of the mail system begins with: date, host, program.
_HEAD: Final = re.compile(
    r"\A(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\S{1,40}) \S{1,255} \S{1,100}: ", re.A
)


@dataclass(frozen=True, slots=True)
class PostlogdParams:
    """Parameters of postlogd(8)."""

    maillog_file_permissions: int


@dataclass(slots=True)
class LogFile:
    """The open file. path: "" for standard output, which is never opened anew."""

    path: str
    mode: int
    fd: int

    def is_current(self) -> bool:
        """Whether the path still names the open file; also when nobody can tell."""
        if not self.path:
            return True
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        own = os.fstat(self.fd)
        return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)

    def reopen(self) -> bool:
        """Go on in the file that the path names now; False if that is not allowed."""
        try:
            fd = open_maillog(self.path, self.mode)
        except OSError:
            return False
        os.close(self.fd)
        self.fd = fd
        return True


class UserLines:
    """Lines that users have sent, in our words. logger: as the whole mail system logs."""

    def __init__(self, name: str, *, json_format: bool) -> None:
        """name: syslog_name."""
        self._lines: list[bytes] = []  # with their times
        self._logger = Logger()
        self._logger.open(self._take, f"{name}/postlog", json_format=json_format)
        self._since = 0.0  # the limit counts from here
        self._counts = Counter[int]()

    def _take(self, severity: int, head: str, text: str) -> None:
        self._lines.append(stamped(f"{head}{text}\n".encode("utf-8", "replace")))

    def decode(self, data: bytes, uid: int) -> list[bytes]:
        """What to log for a datagram, perhaps nothing."""
        now = time.monotonic()
        if now - self._since >= _INTERVAL:
            self._begin(now)
        self._counts[uid] += 1
        if self._counts[uid] <= _MOST_LINES:
            text = data[:_LONGEST].decode("utf-8", "replace").rstrip("\n")
            self._logger.info(f"uid={uid}: {_HEAD.sub('', text)}")
        lines, self._lines = self._lines, []
        return lines

    def _begin(self, now: float) -> None:
        """Another interval."""
        for uid, count in self._counts.items():
            if count > _MOST_LINES:
                self._logger.warning(f"uid={uid}: {count - _MOST_LINES} lines left out")
        self._since = now
        self._counts.clear()


class Writer:
    """Collects lines, and writes them in the order in which they were logged.

    Those that are younger than `_SETTLE` stay a little: an older one may still come.
    """

    def __init__(self, file: LogFile, runtime: Runtime, users: UserLines) -> None:
        self._users = users
        self._file = file
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []  # with their times
        self._rest = b""  # of a line that was written in part
        self._scheduled = False
        self._checked = 0.0

    def receive(self, data: bytes, uid: int) -> None:
        """A datagram of this user."""
        if uid in self._runtime.trusted or uid in self._runtime.network:
            self._lines += decode_datagram(data)
        else:
            self._lines += self._users.decode(data, uid)
        if not self._scheduled:
            self._schedule(_SETTLE)

    def _schedule(self, delay: float) -> None:
        self._scheduled = True
        self._loop.call_later(delay, self.flush)

    def flush(self, settle: float = _SETTLE) -> None:
        """Write the lines that are old enough. settle: seconds."""
        self._scheduled = False
        self._follow_rotation()
        lines = sorted(self._lines)
        until = stamp_of(time.time_ns() - int(settle * 1e9))
        ripe = bisect.bisect(lines, until) if settle else len(lines)
        data = self._rest + b"".join([line[STAMP:] for line in lines[:ripe]])
        self._lines = lines[ripe:]
        try:
            written = os.write(self._file.fd, data) if data else 0
        except BlockingIOError:
            written = 0
        except OSError:
            written = len(data)  # the file system is full: these lines are lost
        self._rest = data[written:]
        if self._rest or self._lines:
            self._schedule(_SETTLE)

    def _follow_rotation(self) -> None:
        now = self._loop.time()
        if now - self._checked < _CHECK_INTERVAL:
            return
        self._checked = now
        if not self._file.is_current() and not self._file.reopen():
            self._runtime.retire()

    async def drain(self) -> None:
        """Before the end."""
        self.flush(settle=0)


def prepare(startup: Startup) -> LogFile:
    """Open the file, as root. Raises Fatal."""
    config = startup.config
    params = config.load(PostlogdParams)
    path = maillog_file(config)
    if not path:
        # Programs that were started with another configuration may still send lines.
        LOG.warning("maillog_file is empty: lines that arrive here are discarded")
        return LogFile("", 0, os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
    open_log(config, "postlogd", daemon=True, direct=True)
    stream = standard_stream(path)
    if stream is not None:
        return LogFile("", 0, stream)
    try:
        fd = open_maillog(path, params.maillog_file_permissions)
    except OSError as err:
        raise Fatal(f"open logfile '{path}': {err.strerror or err}") from err
    return LogFile(path, params.maillog_file_permissions, fd)


async def start(file: LogFile, runtime: Runtime) -> Handlers:
    """Begin to write."""
    config = runtime.config
    users = UserLines(
        config.text("syslog_name"), json_format=config.text("maillog_format") == "json"
    )
    writer = Writer(file, runtime, users)
    return Handlers(datagram=writer.receive, drain=writer.drain)


SERVICE: Final = Service(
    "postlogd",
    prepare,
    start,
    shared=True,
    watchdog="postlogd_watchdog_timeout",
)
