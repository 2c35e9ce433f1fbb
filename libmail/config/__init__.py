"""Configuration: main.cf, master.cf and the declarations of all parameters.

    config = open_config()                  # $MAIL_CONFIG or /etc/postfix
    params = config.load(SmtpdParams)       # typed values for the fields of a frozen dataclass

Knows nothing of mail and loads in a few milliseconds; what only master and postconf need
(master.cf, interface addresses) is loaded when it is asked for.
"""

from __future__ import annotations

from libmail.config.core import Config, open_config
from libmail.config.errors import ConfigError, ExpansionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libmail.config.master_cf import ServiceEntry, read_master_cf

__all__ = [
    "Config",
    "ConfigError",
    "ExpansionError",
    "ServiceEntry",
    "open_config",
    "read_master_cf",
]


def __getattr__(name: str) -> object:
    if name in ("ServiceEntry", "read_master_cf"):
        from libmail.config import master_cf

        return getattr(master_cf, name)
    raise AttributeError(name)
