"""What the sessions of smtp-sink(1) share."""

import os
import secrets
import socket
import syslog
import time
from dataclasses import dataclass

from commands.smtp_sink.counters import Counters
from commands.smtp_sink.settings import Settings
from commands.smtp_sink.transaction import Transaction
from libmail.message.dates import rfc5322_date

__all__ = ["Server"]


@dataclass(frozen=True, slots=True)
class Server:
    """One for all sessions."""

    settings: Settings
    counters: Counters
    sockets: list[socket.socket]

    def log(self, command: str) -> None:
        """Tell syslogd of a command."""
        syslog.openlog("smtp-sink", syslog.LOG_PID, syslog.LOG_MAIL)
        syslog.syslog(syslog.LOG_INFO, command)

    def keep(self, transaction: Transaction) -> None:
        """Write a message to its file. Raises OSError."""
        settings, now = self.settings, time.time()
        ident = secrets.token_hex(4)
        path = time.strftime(settings.dump, time.localtime(now))
        if not settings.shared:
            path += ident
        if "/" in path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        head = transaction.head(settings.host_name, ident, rfc5322_date(int(now)))
        mode = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        mode |= os.O_APPEND if settings.shared else os.O_EXCL
        start = settings.start.encode("utf-8", "surrogateescape")
        with open(os.open(path, mode, 0o644), "wb") as file:
            file.write(start + head + transaction.content() + b"\n")
