"""Connects LOG with its sink as main.cf asks: syslog(3), or maillog_file through postlogd(8).

With maillog_file, lines go as datagrams to `public/postlog`. While nobody listens there (the
system is down, or is being started) a process that has the rights appends to the file itself.
"""

import os
import socket
import stat

from libmail.config import Config
from libmail.files.safe_open import safe_open
from libmail.log.logger import LOG, Fatal, PostlogSink, Sink, StreamSink, SyslogSink

__all__ = ["FileSink", "maillog_file", "open_log", "open_maillog", "standard_stream"]

_FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
)  # fmt: skip
_PUBLIC = "public"
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}


def maillog_file(config: Config) -> str:
    """The file for the log, "" for syslog. Raises Fatal if it is outside maillog_file_prefixes."""
    path = config.text("maillog_file")
    if path and not any(
        path == prefix or path.startswith(prefix.rstrip("/") + "/")
        for prefix in config.list("maillog_file_prefixes")
    ):
        raise Fatal(
            f"maillog_file value '{path}' does not match any prefix in "
            f"maillog_file_prefixes ({config.text('maillog_file_prefixes')})"
        )
    return path


def standard_stream(path: str) -> int | None:
    """The descriptor that /dev/stdout or /dev/stderr stands for; None for a real file."""
    return _STREAMS.get(path)


def open_maillog(path: str, mode: int) -> int:
    """A descriptor that appends to the log file, which is created with this mode.

    Raises OSError; also when the file is a symbolic link or nothing that one appends to.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
    old = os.umask(0)
    try:
        fd = safe_open(path, flags, mode, follow=False)
    finally:
        os.umask(old)
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind) or stat.S_ISCHR(kind) or stat.S_ISFIFO(kind):
        return fd
    os.close(fd)
    raise OSError(f"{path}: not a file that one can append to")


class FileSink:
    """Appends each line to the file, which is opened anew: it may be replaced at any time."""

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._mode = mode

    def __call__(self, severity: int, head: str, text: str) -> None:
        """Write a line, or lose it when that is not allowed: there is no place to complain."""
        try:
            fd = open_maillog(self._path, self._mode)
        except OSError:
            return
        StreamSink(fd)(severity, head, text)
        os.close(fd)


class HurriedSink:
    """To postlogd(8) in a process that may not wait for it.

    master(8) starts postlogd: if it waited for room in that socket, nobody would make room.
    """

    def __init__(self, path: str, fallback: Sink) -> None:
        self._path = path
        self._fallback = fallback
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )

    def __del__(self) -> None:
        self._socket.close()

    def __call__(self, severity: int, head: str, text: str) -> None:
        """Send a line; append it to the file if it cannot be sent now."""
        try:
            self._socket.sendto(f"{head}{text}\n".encode("utf-8", "replace"), self._path)
        except OSError:
            self._fallback(severity, head, text)


def direct_sink(config: Config) -> Sink | None:
    """What writes to maillog_file without postlogd(8); None for syslog. Raises Fatal."""
    path = maillog_file(config)
    if not path:
        return None
    stream = standard_stream(path)
    if stream is not None:
        return StreamSink(stream)
    return FileSink(path, int(config.text("maillog_file_permissions"), 8))


def _postlog_path(config: Config, *, inside: bool) -> str:
    path = f"{_PUBLIC}/{config.text('postlog_service_name')}"
    return path if inside else f"{config.text('queue_directory')}/{path}"


def _lose(severity: int, head: str, text: str) -> None:
    """Drop a line: what matters of it is on standard error."""


def open_log(
    config: Config,
    process_name: str,
    *,
    daemon: bool = False,
    may_wait: bool = True,
    direct: bool = False,
    echo: bool = False,
    tag: str = "",
    alone: bool = True,
) -> None:
    """Open LOG for a program.

    process_name: makes the tag, "postfix/NAME". daemon: the working directory is the queue
    directory, now and after a chroot. may_wait: for room in postlogd's socket. direct: never
    through postlogd. echo: warnings and worse to standard error, too. tag: not the usual one.
    alone: append to the file while nobody listens, where that is allowed.
    Raises Fatal, ConfigError.
    """
    sink = direct_sink(config)
    if sink is None:
        facility = config.text("syslog_facility").lower()
        if facility not in _FACILITIES or not facility:
            raise Fatal(f"file {config.directory}/main.cf: parameter syslog_facility: "
                        f"unrecognized value: {facility}")  # fmt: skip
        sink = SyslogSink(facility=_FACILITIES.index(facility))
    elif not direct:
        path = _postlog_path(config, inside=daemon)
        sink = sink if alone else _lose
        sink = PostlogSink(path, sink) if may_wait else HurriedSink(path, sink)
    tag = tag or f"{config.text('syslog_name')}/{process_name}"
    LOG.open(
        sink,
        tag,
        json_format=config.text("maillog_format") == "json",
        echo=echo,
        internal_addresses=config.text("info_log_address_format").lower() == "internal",
        delay_digits=config.int("delay_logging_resolution_limit"),
    )
