"""What postconf does: show, edit, list features."""

from __future__ import annotations

import os
import sys

from commands.postconf import master_view
from commands.postconf.main_view import MainView
from commands.postconf.options import Request, parse
from commands.postconf.report import print_lines, warn
from libmail.config import Config, ConfigError, ExpansionError, open_config
from libmail.text.printable import complain, printable_octets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run postconf. Exit status 0, or 1 after "fatal: ..." on standard error.

    argv: without the program name.
    """
    try:
        return _run(parse(argv))
    except ExpansionError as error:
        warn(str(error.__cause__ or error))
        return fatal("macro processing error")
    except ConfigError as error:
        return fatal(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(request: Request) -> int:
    if request.edit:
        from commands.postconf.edit_requests import edit

        edit(request)
    elif request.origin:
        from commands.postconf.origin import origin_lines

        print_lines(origin_lines(_open(request), _entries(request, True), request.arguments))
    elif request.target in "bt":
        return _show_texts(request)
    elif request.target in "aAlmT":
        from commands.postconf.features import feature_lines

        try:
            print_lines(feature_lines(request.target, request.mode))
        except ValueError as error:
            warn(str(error))
            return 1
    else:
        show(request)
    return 0


def fatal(text: str) -> int:
    """Report why nothing more is done; the exit status."""
    complain("postconf", f"fatal: {printable_octets(text)}")
    return 1


def show(request: Request) -> None:
    """Print what was asked for, with warnings about odd configurations around it."""
    config = _open(request)
    entries = _entries(request, request.target != "p")
    defaults, expand = "d" in request.flags, "x" in request.flags
    chosen = request.chosen_directory is not None
    view = MainView(config, entries, defaults, quiet="q" in request.flags, chosen=chosen)
    if not defaults:
        view.check_expansions()
        view.warn_undefined()
    if request.target == "p":
        print_lines(_main_lines(request, view))
    else:
        master = {
            "M": master_view.service_lines,
            "F": master_view.field_lines,
            "P": master_view.parameter_lines,
        }[request.target]
        lines = master(
            entries,
            request.arguments,
            fold="f" in request.flags,
            show=request.show,
            expander=config if expand else None,
        )
        print_lines(lines)
    if not defaults:
        if request.target == "p":
            view.warn_unused_settings()
        view.warn_unused_options()


def _show_texts(request: Request) -> int:
    """Print templates of notifications."""
    from commands.postconf.templates_view import show_templates

    if len(request.arguments) > 1:
        raise ConfigError("options -b and -t require at most one template file")
    config = _open(request)
    return show_templates(config, request.arguments, expand=request.target == "b")


def _main_lines(request: Request, view: MainView) -> list[str]:
    names: Sequence[str] = request.arguments
    if not names or "n" in request.flags:
        chosen = view.names(request.classes, "n" in request.flags)
        shown = set(chosen)
        names = [n for n in names if n in shown or not view.knows(n)] if names else chosen
    fold, expand = "f" in request.flags, "x" in request.flags
    return view.lines(names, expand=expand, fold=fold, show=request.show)


def _open(request: Request) -> Config:
    """The configuration, its warnings told; with -d only what is built in."""
    if "d" in request.flags:
        return Config(request.directory, (), (), "postconf")
    config = open_config(request.given_directory, process_name="postconf")
    for warning in config.warnings():
        warn(warning)
    return config.override(request.overrides) if request.overrides else config


def _entries(request: Request, needed: bool) -> tuple[master_view.MasterLine, ...]:
    path = os.path.join(request.directory, "master.cf")
    if not needed and not os.path.exists(path):
        warn(f"open {path}: No such file or directory")
        return ()
    return master_view.read_entries(request.directory)
