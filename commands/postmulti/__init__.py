"""postmulti(1): the same command for all instances on this machine; making and removing them.

The primary instance is the one in the default configuration directory; its main.cf lists the
directories of the others.  instances: which there are, and which are meant; life_cycle: -e.
Asks: postfix(1), postconf(1) and whatever -x names, an instance at a time.
"""

import getopt
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from commands.postmulti.instances import (
    Failure,
    Instance,
    Selection,
    chosen,
    environment,
    read_instances,
)
from commands.postmulti.life_cycle import ACTIONS, Order, perform
from libmail.config import Config, ConfigError, open_config
from libmail.config.installed import DEFAULT_CONFIG_DIRECTORY
from libmail.config.programs import program_directory
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["main"]

_USAGE: Final = (
    "Usage: postmulti -l [-v] [-a] [-g group] [-i instance] | postmulti -p [-v] [-a] [-g group] "
    "[-i instance] command... | postmulti -x [-v] [-a] [-g group] [-i instance] command... | "
    "postmulti -e action [-v] [-a] [-g group] [-i instance] [-G group] [-I instance] "
    "[param=value ...]"
)
_MODES: Final = "lpxe"


@dataclass(slots=True)
class Options:
    """The command line.  mode: l, p, x or e.  backwards: the last instance first."""

    mode: str = ""
    order: Order = field(default_factory=Order)
    selection: Selection = field(default_factory=Selection)
    backwards: bool = False
    verbose: int = 0
    words: list[str] = field(default_factory=list)


def parse(argv: Sequence[str]) -> Options:
    """Raises Failure for what makes no sense."""
    try:
        pairs, words = getopt.getopt(list(argv), "ae:g:i:lpRvxG:I:")
    except getopt.GetoptError as err:
        complain("postmulti", option_mistake(err))
        raise Failure(_USAGE) from None
    options = Options(words=words)
    for option, value in pairs:
        _set(options, option[1], value)
    if not options.mode or ((options.mode in "px") != bool(words) and options.mode != "e"):
        raise Failure(_USAGE)
    if options.mode == "p" and options.backwards:
        raise Failure("The '-p' option cannot be used with -R.")
    return options


def _set(options: Options, letter: str, value: str) -> None:
    if letter in _MODES:
        if options.mode not in ("", letter):
            raise Failure("Specify only one of '-e', '-l', '-p', '-x'")
        options.mode = letter
    if letter == "e":
        if value not in ACTIONS:
            raise Failure(
                f"Invalid '-e' edit action '{value}'. Specify one of {', '.join(ACTIONS)}"
            )
        options.order.action = value
    elif letter == "g":
        options.selection.group = value
    elif letter == "i":
        options.selection.name = value
    elif letter == "G":
        options.order.group = value
    elif letter == "I":
        options.order.name = value
    options.selection.everything |= letter == "a"
    options.backwards |= letter == "R"
    options.verbose += letter == "v"


def _list(instances: Sequence[Instance]) -> int:
    for one in instances:
        enabled = "y" if one.enabled else "n"
        print(f"{one.name or '-':<15} {one.group or '-':<15} {enabled:<9} {one.directory}")
    return 0


def plan(
    config: Config, instances: Sequence[Instance], words: Sequence[str]
) -> list[tuple[Instance, list[str]]]:
    """What `-p` gives to postfix(1), instance by instance.

    Those that are not enabled are only checked where the others are started, and left alone by
    commands that end something or need a running system.
    """
    command = words[0]
    if command in config.list("postmulti_start_commands"):
        return [(one, list(words) if one.enabled else ["check"]) for one in instances]
    stopping = command in config.list("postmulti_stop_commands")
    if not stopping and command not in config.list("postmulti_control_commands"):
        return [(one, list(words)) for one in instances]
    running = [one for one in instances if one.enabled]
    return [(one, list(words)) for one in (reversed(running) if stopping else running)]


def _postfix(config: Config, instances: Sequence[Instance], options: Options) -> int:
    """Run postfix(1) for each; the exit status: that of the last one that failed."""
    program = program_directory(config, "command_directory") + "/postfix"
    status = 0
    for one, words in plan(config, instances, options.words):
        command = [program, "-c", one.directory, *["-v"] * options.verbose, *words]
        status = _run(config, one, command) or status
    return status


def _command(config: Config, instances: Sequence[Instance], options: Options) -> int:
    status = 0
    for one in instances:
        status = _run(config, one, options.words) or status
    return status


def _run(config: Config, instance: Instance, command: Sequence[str]) -> int:
    """The exit status.  Raises Failure if there is no such program."""
    sys.stdout.flush()
    try:
        done = subprocess.run(command, env=environment(config, instance), check=False)
    except OSError as err:
        raise Failure(f"cannot execute {command[0]}: {err.strerror}") from err
    return done.returncode if done.returncode >= 0 else 1


def _perform(options: Options) -> int:
    named = os.environ.get("MAIL_CONFIG", DEFAULT_CONFIG_DIRECTORY)
    if os.path.normpath(named) != DEFAULT_CONFIG_DIRECTORY:
        raise Failure(
            f"Non-default configuration directory: {named}: "
            "postmulti works on the instances of the default one"
        )
    config = open_config(DEFAULT_CONFIG_DIRECTORY, process_name="postmulti")
    instances = read_instances(config)
    if options.mode == "e":
        perform(config, instances, options.selection, options.order, options.words)
        return 0
    found = chosen(instances, options.selection)
    if options.backwards:
        found.reverse()
    if options.mode == "l":
        return _list(found)
    return (_postfix if options.mode == "p" else _command)(config, found, options)


def main(argv: Sequence[str]) -> int:
    """argv: without the program name."""
    try:
        return _perform(parse(argv))
    except (Failure, ConfigError) as err:
        complain("postmulti", f"fatal: {err}")
        return 1
    except OSError as err:
        complain("postmulti", f"fatal: {err.filename}: {err.strerror}")
        return 1
