"""postconf's options, which of them go together, and what they lead to."""

from __future__ import annotations

import getopt
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from commands.postconf import editing, master_view
from commands.postconf.main_view import MainView
from commands.postconf.report import print_lines, printable, warn
from commands.postconf.templates_view import show_templates
from libmail.config import Config, ConfigError, ExpansionError, open_config
from libmail.config.installed import DEFAULT_CONFIG_DIRECTORY
from libmail.config.main_cf import SPACES, split_name_value
from libmail.mistakes import option_mistake

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

USAGE: Final = (
    "usage: postconf [-b (bounce templates)] [-c config_dir] [-C param_class]"
    " [-d (parameter defaults)] [-e (edit configuration)] [-f (fold lines)]"
    " [-F (master.cf fields)] [-h (no names)] [-H (no values)] [-M (master.cf)]"
    " [-n (non-default parameters)] [-o name=value (override parameter value)]"
    " [-p (main.cf, default)] [-P (master.cf parameters)] [-t (bounce templates)] [-v (verbose)]"
    " [-x (expand parameter values)] [-X (exclude)] [-# (comment-out)] [name...]"
)
ALONE: Final = ("btMFPp", "denX#", "hH", "do")
ALLOWED: Final = {
    "M": "efovxX#",
    "F": "efhHovx",
    "P": "efhHovxX",
    "p": "defhHnovxX#C",
    "b": "v",
    "t": "v",
}
CLASSES: Final = ("builtin", "service", "user", "all")


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed command line. flags: the option letters given; target: M, F, P, b, t or p."""

    flags: frozenset[str]
    target: str
    directory: str | None
    classes: tuple[str, ...]
    overrides: tuple[tuple[str, str], ...]
    arguments: tuple[str, ...]

    @property
    def show(self) -> str:
        """Which half of `name = value` is wanted: both, names or values."""
        return "values" if "h" in self.flags else "names" if "H" in self.flags else "both"

    @property
    def change(self) -> editing.Change | None:
        """What to do with the files; None: show them."""
        for change in editing.Change:
            if change.value in self.flags:
                return change
        implied = self.arguments and "=" in self.arguments[0] and self.target != "M"
        return editing.Change.SET if implied or self._implies_edit() else None

    def _implies_edit(self) -> bool:
        return self.target == "M" and any("=" in argument for argument in self.arguments)


def main(argv: Sequence[str]) -> int:
    """Run postconf. Exit status 0, or 1 after "fatal: ..." on standard error.

    argv: without the program name.
    """
    try:
        request = parse(argv)
        if request.target in "bt":
            return show_texts(request)
        if request.change is not None:
            edit(request, request.change)
        else:
            show(request)
    except ExpansionError as error:
        warn(str(error.__cause__ or error))
        return fatal("macro processing error")
    except ConfigError as error:
        return fatal(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def fatal(text: str) -> int:
    """Report why nothing more is done; the exit status."""
    sys.stdout.flush()
    sys.stderr.write(f"postconf: fatal: {printable(text)}\n")
    return 1


def parse(arguments: Sequence[str]) -> Request:
    """The command line. Raises ConfigError for options that are unknown or do not fit."""
    try:
        options, rest = getopt.getopt(list(arguments), "bc:C:defFhHMno:pPtvxX#")
    except getopt.GetoptError as error:
        sys.stderr.write(f"postconf: {option_mistake(error)}\n")
        raise ConfigError(USAGE) from None
    flags = {option[1] for option, _ in options}
    for group in ALONE:
        given = [letter for letter in group if letter in flags]
        if len(given) > 1:
            raise _specify_one_of(given)
    target = next((letter for letter in "btMFP" if letter in flags), "p")
    for letter in sorted(flags - {"c", "v", target} - set(ALLOWED[target])):
        raise ConfigError(f"with option -{target}, do not specify -{letter}")
    classes = tuple(word for option, value in options if option == "-C" for word in _words(value))
    for word in classes:
        if word not in CLASSES:
            raise ConfigError(f'unknown -C option value "{word}" in "{",".join(classes)}"')
    directories = [value for option, value in options if option == "-c"]
    request = Request(
        frozenset(flags),
        target,
        directories[-1] if directories else None,
        classes or ("all",),
        tuple(_override(value) for option, value in options if option == "-o"),
        tuple(rest),
    )
    implied = {"e"} if any("=" in text for text in rest[:1]) else set()
    clash = sorted((flags & set("denX#")) | implied, key="denX#".index)
    if len(clash) > 1:
        raise _specify_one_of(clash)
    return request


def _specify_one_of(letters: Sequence[str]) -> ConfigError:
    return ConfigError("specify one of " + " ".join(f"-{letter}" for letter in letters))


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split(" ") if word]


def _override(text: str) -> tuple[str, str]:
    try:
        return split_name_value(text)
    except ValueError as error:
        raise ConfigError(f"invalid parameter override: {text}: {error}") from None


def show(request: Request) -> None:
    """Print what was asked for, with warnings about odd configurations around it."""
    config = _open(request)
    entries = _entries(config, request.target != "p")
    fold, expand = "f" in request.flags, "x" in request.flags
    view = MainView(config, entries, "d" in request.flags)
    if "d" not in request.flags:
        view.warn_undefined()
    match request.target:
        case "M":
            lines = master_view.service_lines(
                entries, request.arguments, fold=fold, expander=config if expand else None
            )
        case "F":
            lines = master_view.field_lines(
                entries, request.arguments, fold=fold, show=request.show
            )
        case "P":
            lines = master_view.parameter_lines(
                entries,
                request.arguments,
                fold=fold,
                show=request.show,
                expander=config if expand else None,
            )
        case _:
            names = request.arguments or view.names(request.classes, "n" in request.flags)
            if request.arguments and "n" in request.flags:
                shown = set(view.names(request.classes, True))
                names = tuple(n for n in names if n in shown or config.raw(n) is None)
            lines = view.lines(names, expand=expand, fold=fold, show=request.show)
    print_lines(lines)
    if "d" not in request.flags:
        if request.target == "p":
            view.warn_unused_settings()
        view.warn_unused_options()


def show_texts(request: Request) -> int:
    """Print templates of notifications."""
    if len(request.arguments) > 1:
        raise ConfigError("options -b and -t require at most one template file")
    config = _open(request)
    return show_templates(config, request.arguments, expand=request.target == "b")


def _open(request: Request) -> Config:
    """The configuration, its warnings told; with -d only what is built in."""
    if "d" in request.flags:
        directory = _directory(request)
        return Config(directory, (), (), "postconf")
    config = open_config(request.directory, process_name="postconf")
    for warning in config.warnings():
        warn(warning)
    return config.override(request.overrides) if request.overrides else config


def _directory(request: Request) -> str:
    return request.directory or os.environ.get("MAIL_CONFIG") or DEFAULT_CONFIG_DIRECTORY


def _entries(config: Config, needed: bool) -> tuple[master_view.MasterLine, ...]:
    path = os.path.join(config.directory, "master.cf")
    if not needed and not os.path.exists(path):
        warn(f"open {path}: No such file or directory")
        return ()
    return master_view.read_entries(config.directory)


def edit(request: Request, change: editing.Change) -> None:
    """Change main.cf or master.cf."""
    if not request.arguments:
        if change is editing.Change.SET:
            raise ConfigError("-e requires name=value argument")
        raise ConfigError("missing service argument")
    for argument in request.arguments:
        editing.check_argument(argument)
    name = "main.cf" if request.target == "p" else "master.cf"
    path = os.path.join(_directory(request), name)
    match request.target:
        case "M":
            entries = dict(_entry_change(text, change) for text in request.arguments)
            editing.edit_file(path, lambda old: editing.edit_master_entries(old, change, entries))
        case "F":
            fields = [_field_change(text, "Fe", "field_name") for text in request.arguments]
            editing.edit_file(path, lambda old: editing.edit_master_fields(old, fields))
        case "P":
            options = [_option_change(text, change) for text in request.arguments]
            editing.edit_file(path, lambda old: editing.edit_master_options(old, options))
        case _:
            settings = editing.name_values(request.arguments, change)
            editing.edit_file(path, lambda old: editing.edit_main(old, change, settings, path))


def _entry_change(
    text: str, change: editing.Change
) -> tuple[tuple[str, str], master_view.MasterLine | None]:
    pattern, _, value = text.partition("=")
    parts = pattern.strip(SPACES).split("/")
    if len(parts) != 2 or not all(parts):
        raise ConfigError("-Me, -MX or -M# requires service_name/type")
    key = parts[0], parts[1]
    if change is not editing.Change.SET:
        if "=" in text:
            raise ConfigError("-MX or -M# requires service_name/type without value")
        return key, None
    try:
        return key, master_view.parse_entry(value.strip(SPACES))
    except ValueError as error:
        raise ConfigError(f'{error}: "{text}"') from None


def _field_change(text: str, option: str, what: str) -> tuple[tuple[str, str, str], str]:
    pattern, sign, value = text.partition("=")
    parts = pattern.strip(SPACES).split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise ConfigError(f"-{option} or -{option[0]}X requires service_name/type/{what}")
    if not sign:
        raise ConfigError(f"missing '=' after attribute name: \"{text}\"")
    return (parts[0], parts[1], parts[2]), value.strip(SPACES)


def _option_change(text: str, change: editing.Change) -> tuple[tuple[str, str, str], str | None]:
    removing = change is editing.Change.REMOVE
    key, value = _field_change(text + "=" if removing else text, "Pe", "parameter")
    if key[2] == "*":
        raise ConfigError("-Pe does not accept wild-card parameter name")
    if any(space in value for space in SPACES):
        raise ConfigError("-Pe does not accept whitespace in parameter value")
    return key, None if removing else value
