"""ldap:/file - directories, ldap_table(5). Through python-ldap, in threads.

Keys are escaped for the place where the query has them: RFC 4515 for filters, RFC 4514 for names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.query_table import QueryTable
from libmail.tables.queries.templates import Template
from libmail.tables.servers.ldap_client import (
    Directory,
    DirectoryError,
    Settings,
    escape_filter,
    escape_name,
    read_settings,
    set_debug_level,
)
from libmail.tables.servers.ldap_results import Expansion, Search, SearchRequest, TooDeep
from libmail.tables.table import Log, TableFailed, TableOptions
from libmail.tables.worker import Worker

__all__ = ["open_named"]

_THREADS: Final = 4
_IDLE: Final = 60.0  # seconds until connections are closed that nobody uses


class _Asker:
    """Asks the query of a table."""

    def __init__(self, client: ClientFile, settings: Settings, log: Log) -> None:
        """Raises TableConfigError."""
        self._spec = client.spec
        self._settings = settings
        self._log = log
        base = client.text("search_base")
        self._base = Template(client.spec, "search_base", base)
        self._filter = Template(
            client.spec,
            "query_filter",
            client.text("query_filter", "(mailacceptinggeneralid=%s)"),
        )

    def takes(self, key: str) -> bool:
        """Whether the query can be made of a key."""
        return self._base.query(key) is not None and self._filter.query(key) is not None

    def ask(self, directory: Directory, key: str) -> Sequence[str]:
        """The results for a key. Raises TableRetry."""
        names = self._settings.attributes
        request = SearchRequest(
            self._base.query(key, escape_name) or "",
            self._settings.scope,
            self._filter.query(key, escape_filter) or "",
            names.all,
        )

        def missing(dn: str) -> None:
            self._log.warning(f"dict_ldap_get_values: {self._spec}: DN {dn} not found, skipping")

        def results(search: Search) -> Sequence[str]:
            expansion = Expansion(names, search, self._settings.recursion_limit, missing)
            return list(expansion.results(search(request)))

        try:
            return directory.ask(results)
        except (TooDeep, ValueError) as error:
            self._log.warning(f"{self._spec}: {error}")
            raise TableFailed(self._spec, str(error)) from error
        except DirectoryError as error:
            raise TableFailed(self._spec, str(error)) from error


def open_named(kind: str, name: str, options: TableOptions) -> QueryTable[Directory]:
    """Open `ldap:name`; raises TableConfigError."""
    client = ClientFile(kind, name, options)
    settings = read_settings(client, options.log)
    if settings.debug_level:
        set_debug_level(settings.debug_level)
    asker = _Asker(client, settings, options.log)
    worker = Worker(
        client.spec,
        lambda: Directory(settings, options.log),
        Directory.close,
        threads=_THREADS,
        idle=_IDLE,
        rest=Directory.close,
    )
    # result_filter is what releases before 2.2 had.
    old_format = client.text("result_filter") or "%s"
    return QueryTable(client, options, worker, asker.takes, asker.ask, old_format)
