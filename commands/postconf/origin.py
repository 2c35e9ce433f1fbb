"""postconf --origin: where the value of a parameter comes from, for somebody who wonders.

smtpd_banner = $myhostname ESMTP
    set in /etc/postfix/main.cf, line 12
    submission/inet has hello, /etc/postfix/master.cf, line 20
    $myhostname = mail.example.com, set in /etc/postfix/main.cf, line 7
"""

from __future__ import annotations

import os

from commands.postconf.report import INDENT, squeeze, warn
from libmail.config.core import COMPUTED
from libmail.config.declared import find
from libmail.config.errors import ConfigError
from libmail.config.expand import references
from libmail.config.families import family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from commands.postconf.master_view import MasterLine
    from libmail.config import Config

__all__ = ["origin_lines"]


def origin_lines(
    config: Config, entries: Sequence[MasterLine], names: Sequence[str]
) -> Iterator[str]:
    """The lines for each name: its value, who set it, what services have instead, what it
    refers to. Raises ConfigError without names; unknown names are warned about."""
    if not names:
        raise ConfigError("--origin requires parameter names")
    for name in names:
        overriding = list(_overriding(config, entries, name))
        value = config.raw(name)
        if value is None and not overriding:
            warn(f"{name}: unknown parameter")
            continue
        yield f"{name} = {squeeze(value or '')}".rstrip(" ")
        yield f"{INDENT}{_source(config, name)}"
        yield from (INDENT + line for line in overriding)
        for other in dict.fromkeys(references(value or "")):
            shown = squeeze(config.raw(other) or "")
            yield f"{INDENT}${other} = {shown or '(empty)'}, {_source(config, other)}"


def _source(config: Config, name: str) -> str:
    place = config.origin(name)
    if place is not None:
        return f"set in {place[0]}, line {place[1]}" if place[0] else "set by option -o"
    if name in COMPUTED:
        return "found out by the program"
    if find(name) is not None:
        return "default"
    family = family_of(name)
    if family is not None:
        return f"default of all SERVICE{family.suffix} parameters"
    return "not defined"


def _overriding(config: Config, entries: Sequence[MasterLine], name: str) -> Iterator[str]:
    """What services of master.cf have instead of the value in main.cf."""
    path = os.path.join(config.directory, "master.cf")
    for entry in entries:
        value = entry.options().get(name)
        if value is not None:
            shown = squeeze(value) or "(empty)"
            yield f"{entry.key} has {shown}, {path}, line {entry.line}"
