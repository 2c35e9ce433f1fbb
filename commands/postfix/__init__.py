"""postfix(1): start and stop the mail system, and look after it.

Asks: master(8), by its pid file, its lock and signals. Writes: missing directories of the queue.
control: what the commands do; directories: postfix check; rotation: postfix logrotate; upgrade:
upgrade-configuration; passwd: logins; oauth2: consent to log in elsewhere; tls, keypairs: postfix
tls; report: what is said.
"""

import getopt
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from commands.postfix import control
from commands.postfix.non_bdb import non_bdb
from commands.postfix.report import fatal, open_report
from commands.postfix.rotation import rotate
from commands.postfix.tls import manage_tls
from commands.postfix.upgrade import upgrade_configuration
from libmail.config import Config, ConfigError, open_config
from libmail.config.expand import compatibility_level
from libmail.config.programs import program_directory
from libmail.log import Fatal
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["main"]

_USAGE = "usage: postfix [-c config_dir] [-Dv] command"
_COMMANDS: dict[str, Callable[[Config], object]] = {
    "abort": control.abort,
    "check": control.check,
    "drain": control.drain,
    "flush": control.flush,
    "logrotate": rotate,
    "quick-stop": control.stop,
    "reload": control.reload,
    "set-permissions": control.set_permissions,
    "stop": control.stop,
    "upgrade-configuration": upgrade_configuration,
}
_TAKES_SETTINGS = ("set-permissions", "upgrade-configuration")
_TAKES_LOGIN = "passwd"
_TAKES_LEVEL = "non-bdb"
_TLS = "tls"
_OAUTH = "oauth2"
_LEVEL = "3.11"
_ABOUT_LEVELS = "https://www.postfix.org/COMPATIBILITY_README.html"
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class _Identity:
    """Without which no program of the system can work."""

    myhostname: str
    mydomain: str
    myorigin: str


def _open(directory: str | None) -> Config:
    """Main.cf, and the directory of it for all programs that are started. Raises ConfigError."""
    if directory is not None:
        os.environ["MAIL_CONFIG"] = os.path.abspath(directory)
    config = open_config(process_name="postfix")
    os.environ["MAIL_CONFIG"] = config.directory
    os.environ.setdefault("PATH", _PATH)
    config.load(_Identity)
    return config


def _all_instances(config: Config, arguments: Sequence[str], *, named: bool) -> None:
    """Give the command to the manager of instances, where there are several.  Raises Fatal.

    named: this instance alone is meant.  The manager comes back to this program for each of them,
    with its directory.
    """
    wrapper = config.text("multi_instance_wrapper").split()
    if named or not wrapper or not config.list("multi_instance_directories"):
        return
    try:
        os.execv(wrapper[0], [*wrapper, *arguments])
    except OSError as err:
        raise Fatal(f"{wrapper[0]}: {err.strerror}") from err


def _remark_on_level(config: Config) -> None:
    """Say that old defaults are in use. Raises ExpansionError for what is no level."""
    level = config.text("compatibility_level")
    if compatibility_level(level) < compatibility_level(_LEVEL):
        complain("postfix", "Postfix is using backwards-compatible default settings")
        complain("postfix", f"See {_ABOUT_LEVELS} for details")
        advice = f'use "postconf compatibility_level={_LEVEL}" and "postfix reload"'
        complain("postfix", f"To disable backwards compatibility {advice}")


def _set(config: Config, settings: list[str]) -> Config:
    """Write `name=value` words into main.cf; the new configuration. Raises Fatal, ConfigError."""
    for setting in settings:
        if not setting.partition("=")[1] or setting.startswith("-"):
            raise Fatal(f"not name=value: {setting}")
    program = program_directory(config, "command_directory") + "/postconf"
    done = subprocess.run([program, "-c", config.directory, "-e", *settings], check=False)
    if done.returncode != 0:
        raise Fatal("main.cf was not changed")
    return _open(config.directory)


def _run(config: Config, command: str, options: list[str]) -> int:
    if command == "start":
        control.start(config, options)
    elif command == "start-fg":
        control.start_foreground(config, options)
    elif command == "status":
        return control.status(config)
    elif command in _COMMANDS:
        _COMMANDS[command](config)
    else:
        raise Fatal(
            f"unknown command: '{command}'. Usage: postfix start (or stop, reload, abort, flush, "
            "check, status, set-permissions, upgrade-configuration, logrotate)"
        )
    return 0


def _fits(command: str, words: list[str]) -> bool:
    """Whether a command takes so many words behind it."""
    if command in (_TAKES_LOGIN, _TAKES_LEVEL):
        return len(words) == 1
    return not words or command in (*_TAKES_SETTINGS, _TLS, _OAUTH)


def main(arguments: Sequence[str]) -> int:
    """Run postfix; returns the exit status. arguments: without the program's name."""
    try:
        pairs, words = getopt.getopt(arguments, "c:Dv")
        command, *settings = words or [""]
        if not command or not _fits(command, settings):
            raise Fatal(_USAGE)
        directory = dict(pairs).get("-c")
        named = directory is not None or "MAIL_CONFIG" in os.environ
        config = _open(directory)
        open_report(config)
        _all_instances(config, words, named=named)
        if command not in _TAKES_SETTINGS:  # these are called by scripts of packages, one by one
            _remark_on_level(config)
    except getopt.GetoptError as err:
        complain("postfix", option_mistake(err))
        complain("postfix", f"fatal: {_USAGE}")
        return 1
    except (Fatal, ConfigError) as err:
        for warning in err.warnings if isinstance(err, ConfigError) else ():
            complain("postfix", f"warning: {warning}")
        complain("postfix", f"fatal: {err}")
        return 1
    try:
        if command == _TAKES_LOGIN:
            # Loads what no other command needs.
            from commands.postfix.passwd import set_password

            set_password(config, settings[0])
            return 0
        if command == _OAUTH:
            # Loads what no other command needs.
            from commands.postfix.oauth2 import agree

            agree(config, settings)
            return 0
        if command == _TAKES_LEVEL:
            non_bdb(settings)
            return 0
        if command == _TLS:
            return manage_tls(config, settings)
        if settings:
            config = _set(config, settings)
        return _run(config, command, [name for name, _ in pairs if name in ("-D", "-v")])
    except (Fatal, ConfigError) as err:
        fatal(str(err))
        return 1
