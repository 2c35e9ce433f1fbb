"""What postfix(1) says: to the log, and to people who look at it.

As with Postfix, whose script has postlog(1) speak for it, lines on standard error are those of that
program.
"""

from libmail.config import Config
from libmail.log import LOG
from libmail.log.setup import open_log
from libmail.text.printable import complain

__all__ = ["error", "fatal", "info", "open_report", "warning"]

_SPEAKER = "postlog"


def open_report(config: Config) -> None:
    """Connect with the log. Raises Fatal, ConfigError."""
    open_log(config, "postfix-script")


def info(text: str) -> None:
    """An ordinary line."""
    LOG.info(text)
    complain(_SPEAKER, text)


def warning(text: str) -> None:
    """Something that should be looked at."""
    LOG.warning(text)
    complain(_SPEAKER, f"warning: {text}")


def error(text: str) -> None:
    """Something that went wrong, before it is said what follows."""
    LOG.error(text)
    complain(_SPEAKER, f"error: {text}")


def fatal(text: str) -> None:
    """Why the command failed."""
    LOG.fatal(text)
    complain(_SPEAKER, f"fatal: {text}")
