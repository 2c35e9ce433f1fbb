"""What postfix(1) says: to the log, and to people who look at it.

As with Postfix, ordinary lines appear on standard error only when that is a terminal. Other than
there, the reason why a command failed always does.
"""

import sys

from libmail.config import Config
from libmail.log import LOG
from libmail.log.setup import open_log
from libmail.printable import complain

__all__ = ["fatal", "info", "open_report", "warning"]

_TAG = "postfix/postfix-script"


def open_report(config: Config) -> None:
    """Connect with the log. Raises Fatal, ConfigError."""
    open_log(config, "postfix-script")


def _show(text: str) -> None:
    complain(_TAG, text)


def info(text: str) -> None:
    """An ordinary line."""
    LOG.info(text)
    if sys.stderr.isatty():
        _show(text)


def warning(text: str) -> None:
    """Something that should be looked at."""
    LOG.warning(text)
    if sys.stderr.isatty():
        _show(f"warning: {text}")


def fatal(text: str) -> None:
    """Why the command failed."""
    LOG.fatal(text)
    _show(f"fatal: {text}")
