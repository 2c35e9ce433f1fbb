"""postlog(1): write lines into the log of the mail system, for scripts.

Tells: postlogd(8) or syslog. Reads: standard input, if no text is given.
"""

import getopt
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from libmail.config import Config, ConfigError, open_config
from libmail.log import LOG, Fatal
from libmail.log.setup import open_log
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["main"]

_USAGE: Final = "usage: postlog [-c config_dir] [-p priority] [-t tag] [-v] [text]"
_PRIORITIES: Final[Mapping[str, tuple[str, Callable[[str], None]]]] = {
    "info": ("", LOG.info),
    "warn": ("warning: ", LOG.warning),
    "warning": ("warning: ", LOG.warning),
    "error": ("error: ", LOG.error),
    "fatal": ("fatal: ", LOG.fatal),
    "panic": ("panic: ", LOG.panic),
}
_PAUSE: Final = 1.0  # seconds after fatal and panic, so that a script cannot fail in a tight loop


def log_lines(priority: str, lines: Iterable[str]) -> None:
    """Log each, and show it."""
    label, log = _PRIORITIES[priority]
    for line in lines:
        text = line.rstrip("\n")
        log(text)
        complain(LOG.shown_tag(), f"{label}{text}")
        if priority in ("fatal", "panic"):
            time.sleep(_PAUSE)


def _open(directory: str | None) -> Config:
    if directory is not None:
        os.environ["MAIL_CONFIG"] = directory
    return open_config(process_name="postlog")


def main(arguments: Sequence[str]) -> int:
    """Run postlog; returns the exit status. arguments: without the program's name."""
    try:
        pairs, words = getopt.getopt(arguments, "c:ip:t:v")
        given = dict(pairs)
        priority = given.get("-p", "info").lower()
        if priority not in _PRIORITIES:
            raise Fatal(f'bad severity: "{priority}"')
        config = _open(given.get("-c"))
        tag = given.get("-t") or config.text("syslog_name") + "/postlog"
        open_log(config, "postlog", tag=tag)
    except getopt.GetoptError as err:
        complain("postlog", option_mistake(err))
        complain("postlog", f"fatal: {_USAGE}")
        return 1
    except (Fatal, ConfigError) as err:
        complain("postlog", f"fatal: {err}")
        return 1
    if words:
        log_lines(priority, [" ".join(words)])
        return 0
    with open(0, encoding="utf-8", errors="surrogateescape", closefd=False) as lines:
        log_lines(priority, lines)
    return 0
