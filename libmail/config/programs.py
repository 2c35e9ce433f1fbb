"""Where the programs of this installation are, whatever main.cf says.

A main.cf that was written for another installation names the directories of that one.  Its
programs are not ours, and may even be there: starting its master would be worse than not to start.
"""

from __future__ import annotations

import os

from libmail.config.installed import INSTALLED_DEFAULTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from libmail.config.core import Config

__all__ = ["foreign_directories", "program_directory"]

# A program that tells whose directory it is.
_TELLING: Final[Mapping[str, str]] = {"command_directory": "postfix", "daemon_directory": "master"}


def program_directory(config: Config, name: str) -> str:
    """command_directory or daemon_directory: that of main.cf if our programs are there."""
    named = config.text(name)
    own = INSTALLED_DEFAULTS.get(name, named)
    return named if named == own or _same(named, own, _TELLING[name]) else own


def foreign_directories(config: Config) -> dict[str, str]:
    """Names of parameters whose directories belong to another installation, with these."""
    found = {name: config.text(name) for name in _TELLING}
    return {name: path for name, path in found.items() if program_directory(config, name) != path}


def _same(named: str, own: str, program: str) -> bool:
    """Whether both directories have the same program, or copies of it."""
    there, here = f"{named}/{program}", f"{own}/{program}"
    try:
        if os.path.samefile(there, here):
            return True
        if os.path.getsize(there) != os.path.getsize(here):
            return False
        with open(there, "rb") as one, open(here, "rb") as other:
            return one.read() == other.read()
    except OSError:
        return False
