"""Tables that programs make and fill themselves: nobody builds them, and they need not exist.

They stand in data_directory, where every program of mail_owner may write.  So no other program may
take a file there for a source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.config.declared import all_parameters
from libmail.tables.registry import without_proxy

__all__ = ["cache_names", "settings"]

_PARAMETERS: Final = re.compile(
    r"_session_cache_database$|_verify_map$|_cache_map$|_cache_name$|^proxy_write_maps$"
)
_BETWEEN: Final = re.compile(r"[\s,]+")


def settings(
    config: Config, entries: Sequence[ServiceEntry], more: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Names of parameters with their expanded values: those that main.cf or master.cf sets.

    more: names of others that count by their defaults.
    """
    pairs = [(name, config.raw(name) or "") for name in (*config.names(), *more)]
    pairs += [pair for entry in entries for pair in entry.overrides]
    for name, text in pairs:
        try:
            yield name, config.expand(text)
        except ConfigError:
            continue  # whoever reads it complains


def cache_names(config: Config, entries: Sequence[ServiceEntry]) -> frozenset[str]:
    """The names, without their types, of the tables that are caches."""
    parameters = [name for name in all_parameters() if _PARAMETERS.search(name)]
    return frozenset(
        without_proxy(word).partition(":")[2]
        for name, value in settings(config, entries, parameters)
        if _PARAMETERS.search(name)
        for word in _BETWEEN.split(value)
        if ":" in word
    )
