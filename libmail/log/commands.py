"""A line of a command that ends or goes on with trouble, for the log of the mail system."""

import os
import pwd

from libmail.config import Config, ConfigError
from libmail.log.logger import LOG, Fatal
from libmail.log.setup import open_log
from libmail.text.printable import complain

__all__ = ["log_line"]


def log_line(config: Config, program: str, text: str) -> None:
    """Log `text`, which begins with "warning: " or "fatal: ".

    For commands that load the rest of their logging only when there is something to log. What
    cannot be logged is on standard error all the same; nothing is raised.
    """
    if config.text("maillog_file") and not _is_trusted(config):
        return  # postlogd(8) would take it for something that a user has made up
    try:
        open_log(config, program, alone=False)
    except (ConfigError, Fatal) as err:
        complain(program, str(err))
        return
    label, _, rest = text.partition(": ")
    (LOG.fatal if label == "fatal" else LOG.warning)(rest)


def _is_trusted(config: Config) -> bool:
    """Whether this process is the mail system, or root."""
    uid = os.getuid()
    if uid == 0:
        return True
    try:
        return pwd.getpwnam(config.text("mail_owner")).pw_uid == uid
    except KeyError:
        return False
