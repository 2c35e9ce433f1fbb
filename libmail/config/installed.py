"""Where this installation keeps its files: constants, unless the installer wrote others.

`make install` may write libmail/config/_installed.py with a mapping DEFAULTS of parameter names
(config_directory, daemon_directory, queue_directory, ...) to the default values of that place.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_CONFIG_DIRECTORY", "INSTALLED_DEFAULTS"]


def _installed() -> Mapping[str, str]:
    try:
        module = importlib.import_module("libmail.config._installed")
    except ModuleNotFoundError:
        return {}
    defaults: Mapping[str, str] = module.DEFAULTS
    return defaults


INSTALLED_DEFAULTS: Mapping[str, str] = _installed()
DEFAULT_CONFIG_DIRECTORY: str = INSTALLED_DEFAULTS.get("config_directory", "/etc/postfix")
