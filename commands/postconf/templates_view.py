"""Showing the texts of notifications, for options -b and -t.

What bounce(8) would warn of is told in its name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from libmail.config import ConfigError
from libmail.dsn.templates import KINDS, TemplateError, expanded, read_templates
from libmail.text.printable import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libmail.config import Config

__all__ = ["show_templates"]


def show_templates(config: Config, arguments: Sequence[str], *, expand: bool) -> int:
    """Print the templates of a file, or what bounce(8) makes of them. Returns the exit status.

    arguments: the file's name, "" for the built-in ones, or nothing: the configured one.
    """
    path = arguments[0] if arguments else config.text("bounce_template_file")
    try:
        templates, warnings = read_templates(path, config.text("header_from_format").lower())
    except OSError as error:
        return _fatal(f"open {path}: {error.strerror}")
    except TemplateError as error:
        return _fatal(str(error))
    _warn(warnings)
    try:
        for number, kind in enumerate(KINDS):
            template = templates.of(kind)
            if expand:
                text, warnings = expanded(config, kind, template)
                _warn(warnings)
                shown = f"expanded_{kind}_text = <<EOF\n{text}EOF\n"
            else:
                shown = template.source(kind)
            _write("\n" + shown if number else shown)
    except (TemplateError, ConfigError) as error:
        return _fatal(str(error))
    return 0


def _write(text: str) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        complain("postfix/bounce", f"warning: {warning}")


def _fatal(text: str) -> int:
    complain("postfix/bounce", f"fatal: {text}")
    return 1
