"""Certificates that are renewed: new ones are approved if they are good, or else the old ones stay.

What is approved is in memory that master(8) has made (libmail.files.approved).  Services compare it
with what they have read, and begin anew where that is not the newest any more; one that begins
while the files are bad uses what was approved.  The files are read here as root, and looked into by
a process of mail_owner, as whoever has made them may have led the parser astray.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from libmail.files.approved import ApprovedFiles, Contents, FilesKey
from libmail.log import LOG
from libmail.privileges import Identity, in_process_of
from libmail.tables.file_values import encoded, in_base64, names_in
from libmail.tls.certificate_files import CertificateFiles
from libmail.tls.errors import TlsConfigError

__all__ = ["CertificateKeeper", "Judge", "judge_as"]

Judge: TypeAlias = Callable[[CertificateFiles, Contents], str]
"""Why contents must not be used; "" if they may be."""

_Version: TypeAlias = tuple[tuple[int, ...], ...]
_MISSING: Final = ()


class CertificateKeeper:
    """find: the certificates that are in use now."""

    def __init__(
        self, approved: ApprovedFiles, find: Callable[[], Sequence[CertificateFiles]], judge: Judge
    ) -> None:
        self._approved = approved
        self._find = find
        self._judge = judge
        self._good: dict[FilesKey, Contents] = approved.contents()
        self._seen: dict[CertificateFiles, _Version] = {}
        self._told: dict[CertificateFiles, str] = {}  # those that are bad, and what was said of it

    def look(self, *, settled: bool) -> bool:
        """Approve what is new and good; tells whether there was anything.

        settled: nobody is writing, so that what is bad now will stay bad.
        """
        found = self._find()
        before = dict(self._good)
        for files in found:
            version = tuple(map(_version, files.paths))
            if self._seen.get(files) != version or files in self._told:
                self._seen[files] = version
                self._take(files, settled=settled)
        keys = {files.key for files in found}
        self._good = {key: contents for key, contents in self._good.items() if key in keys}
        if self._good == before:
            return False
        try:
            self._approved.replace(self._good)
        except ValueError as error:
            LOG.warning(f"certificates are not kept: {error}")
        return True

    def value(self, names: str) -> str:
        """The value of an entry of tls_server_sni_maps. Raises EntryError."""
        good = self._good.get(CertificateFiles(tuple(names_in(names))).key)
        return encoded(names) if good is None else in_base64(good)

    def _take(self, files: CertificateFiles, *, settled: bool) -> None:
        kept = self._good.get(files.key)
        try:
            contents = files.read()
        except TlsConfigError as error:
            problem = error.reason
        else:
            problem = "" if contents == kept else self._judge(files, contents)
            if not problem:
                if kept not in (None, contents):
                    LOG.info(f"{files.paths[0]}: renewed")
                self._good[files.key] = contents
                self._told.pop(files, None)
                return
        self._tell(files, problem if settled and kept is not None else "")

    def _tell(self, files: CertificateFiles, problem: str) -> None:
        """Say it once, if anything, and try again."""
        if problem and self._told.get(files) != problem:
            LOG.warning(f"{problem}; the old certificate stays in use")
        self._told[files] = problem or self._told.get(files, "")


def judge_as(user: Identity, judge: Judge) -> Judge:
    """The same in a process of `user`, where this one has the rights of root."""
    if os.geteuid() != 0 or user.uid == 0:
        return judge

    def judged(files: CertificateFiles, contents: Contents) -> str:
        try:
            return in_process_of(user, lambda: judge(files, contents))
        except OSError as error:
            return f"{files.paths[0]}: {error.strerror}"

    return judged


def _version(path: str) -> tuple[int, ...]:
    """What is another one as soon as the file is."""
    try:
        found = os.stat(path)
    except OSError:
        return _MISSING
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
