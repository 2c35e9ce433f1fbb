"""What postfix(1) says: to the log, and to people who look at it.

As with Postfix, whose script has postlog(1) speak for it, lines on standard error begin as those of
that program do.
"""

from libmail.config import Config
from libmail.log import LOG
from libmail.log.setup import open_log
from libmail.text.printable import complain

__all__ = ["error", "fatal", "info", "open_report", "warning"]


def open_report(config: Config) -> None:
    """Connect with the log. Raises Fatal, ConfigError."""
    open_log(config, "postfix-script")


def info(text: str) -> None:
    """An ordinary line."""
    LOG.info(text)
    complain(LOG.shown_tag(), text)


def warning(text: str) -> None:
    """Something that should be looked at."""
    LOG.warning(text)
    complain(LOG.shown_tag(), f"warning: {text}")


def error(text: str) -> None:
    """Something that went wrong, before it is said what follows."""
    LOG.error(text)
    complain(LOG.shown_tag(), f"error: {text}")


def fatal(text: str) -> None:
    """Why the command failed."""
    LOG.fatal(text)
    complain(LOG.shown_tag(), f"fatal: {text}")
