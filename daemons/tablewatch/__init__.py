"""tablewatch(8): indexed tables and certificates stay as new as the files that they are made of.

called by: master (wake-up), inotify. asks: nobody. writes: indexed tables beside their sources.
tells: services, by memory that they share, of certificates (libmail.files.approved); tables change
in place, which their readers see at their next lookup.
needs: root, where tables and keys belong to root. It takes nothing from anybody but master's
wake-up.

master runs it without a line in master.cf. Only sources are read that nobody but root or
mail_owner could have written, what mail_owner could have led astray by a process of his
(libmail.tables.building.upkeep); they are written to the table as one transaction, or not at all.
Certificates are judged by a process of mail_owner.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from daemons.tablewatch.certificates import CertificateKeeper, Judge, judge_as
from daemons.tablewatch.tables import TableKeeper
from daemons.tablewatch.watch import Watch
from libmail.config import Config, ServiceEntry, read_master_cf
from libmail.files.approved import ApprovedFiles
from libmail.log import LOG
from libmail.privileges import Identity, identity_of
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.building.upkeep import KeptTable, kept_tables
from libmail.tls.certificate_files import CertificateFiles
from libmail.tls.errors import LibraryMissing
from libmail.tls.watched_files import watched_files, watched_tables

__all__ = ["SERVICE"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """owner: mail_owner. judge: of certificates; None where there are none."""

    config: Config
    entries: tuple[ServiceEntry, ...]
    tables: tuple[KeptTable, ...]
    owner: Identity
    approved: ApprovedFiles
    judge: Judge | None


def _prepare(startup: Startup) -> Prepared:
    with suppress(ImportError):  # newer versions of lmdb import it when a file is written
        import_module("lmdb._envid")
    config = startup.config
    entries = read_master_cf(config.directory)
    owner = identity_of(config.text("mail_owner"))
    approved = startup.approved or ApprovedFiles()
    tables = kept_tables(config, entries)
    judge = _judge(owner) if watched_files(config, entries) else None
    return Prepared(config, entries, tables, owner, approved, judge)


def _judge(owner: Identity) -> Judge | None:
    try:
        from libmail.tls.renewal import problem_of
    except LibraryMissing:
        return None
    return judge_as(owner, problem_of)


class _Keeper:
    """Everything that is watched."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        judge = prepared.judge or (lambda files, contents: "not judged")
        self._certificates = CertificateKeeper(prepared.approved, self._files, judge)
        self._tables = TableKeeper(
            prepared.config, prepared.tables, prepared.owner, self._certificates.value
        )
        self._watch: Watch | None = None

    def _files(self) -> tuple[CertificateFiles, ...]:
        if self._prepared.judge is None:
            return ()
        return watched_files(self._prepared.config, self._prepared.entries)

    def begin(self) -> None:
        """From now on, look as soon as something changes."""
        try:
            self._watch = Watch(self._prepared.tables, self._tables, self._look, self.catch_up)
        except OSError as err:
            LOG.warning(f"cannot watch tables, looking every minute: {err.strerror}")

    def catch_up(self) -> None:
        """Look at everything."""
        self._look(settled=True)
        self._tables.catch_up()

    def _look(self, *, settled: bool) -> None:
        """Look at certificates."""
        if self._certificates.look(settled=settled):
            self._tables.files_changed()
        if self._watch is not None:
            paths = [path for files in self._files() for path in files.names]
            sources = watched_tables(self._prepared.config, self._prepared.entries)
            self._watch.follow([*paths, *sources])


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    keeper = _Keeper(prepared)

    async def serve(connection: Connection) -> None:
        while True:
            await connection.receive()  # a wake-up
            keeper.catch_up()

    keeper.begin()
    keeper.catch_up()
    return Handlers(stream=exchanges(runtime, serve))


SERVICE: Final = Service("tablewatch", _prepare, _start, permanent=True, writes_approved=True)
