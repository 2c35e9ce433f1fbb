"""Certificates that are renewed while the system runs: which contents of files are to be used.

New ones replace older ones that were approved (`libmail.files.approved`, by tablewatch) only if
they could be used: complete files, keys that fit, certificates that are valid today.  The same is
asked by a process that begins just when files are being written.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from libmail.files.approved import ApprovedFiles, Contents, FilesKey
from libmail.tables.entries import EntryError
from libmail.tables.file_values import in_base64, names_in
from libmail.tls.authorities import Authorities
from libmail.tls.certificate_files import AUTHORITIES, HASHED, CertificateFiles
from libmail.tls.errors import TlsConfigError
from libmail.tls.pem import Chain, chains_in, pem_objects

__all__ = ["Certificates", "problem_of"]

_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "


def problem_of(files: CertificateFiles, contents: Contents) -> str:
    """Why these contents must not replace good ones; "" for no problem."""
    if files.algorithm == HASHED:
        return ""  # certificates there that cannot be read are as good as absent
    for path, data in zip(files.paths, contents, strict=True):
        if data.count(_BEGIN) != data.count(_END):
            return f"{path} is not complete"
    try:
        if files.algorithm == AUTHORITIES:
            return _problem_of_authorities(files.paths[0], contents[0])
        chains = chains_in(files, contents)
    except TlsConfigError as error:
        return error.reason
    for chain in chains:
        source = files.paths[0] if files.algorithm else chain.source
        if chain.certificate.seconds_left() <= 0:
            return f"the certificate in {source} has expired"
        if chain.certificate.seconds_to_wait() > 0:
            return f"the certificate in {source} is not valid yet"
    return ""


def _problem_of_authorities(path: str, data: bytes) -> str:
    """Raises TlsConfigError."""
    found = [item.certificate() for item in pem_objects(data, path) if item.is_certificate]
    return "" if found else f"{path}: no certificate in it"


class Certificates:
    """What a process uses, read before its jail.

    approved: tells what was good before, and is told what this process uses.
    """

    def __init__(self, approved: ApprovedFiles | None = None) -> None:
        self._approved = approved
        self._kept: dict[FilesKey, Contents] = {} if approved is None else approved.contents()

    def chains_of(self, all_files: Iterable[CertificateFiles]) -> tuple[Chain, ...]:
        """The chains in files. Raises TlsConfigError."""
        chains = (chains_in(files, self._contents(files)) for files in all_files)
        return tuple(chain for some in chains for chain in some)

    def authorities(self, file: str, directory: str, *, defaults: bool) -> Authorities:
        """As Authorities, and noted as in use. Raises TlsConfigError."""

        def read(path: str) -> bytes:
            return self._contents(CertificateFiles((path,), AUTHORITIES))[0]

        if directory:
            with suppress(TlsConfigError):  # it is told by who reads the certificates
                self._contents(CertificateFiles((directory,), HASHED))
        return Authorities(file, directory, defaults=defaults, read=read)

    def value(self, names: str) -> str:
        """The value of an entry that names files (tls_server_sni_maps). Raises EntryError."""
        try:
            return in_base64(self._contents(CertificateFiles(tuple(names_in(names)))))
        except TlsConfigError as error:
            raise EntryError(error.reason.replace("error opening chain file:", "open")) from None

    def _contents(self, files: CertificateFiles) -> Contents:
        """What is in the files, or was, where that is better. Raises TlsConfigError."""
        kept = self._kept.get(files.key)
        try:
            contents = files.read()
        except TlsConfigError:
            if kept is None or problem_of(files, kept):
                self._use(files, ())
                raise
            contents = kept
        if kept is not None and kept != contents and problem_of(files, contents):
            contents = contents if problem_of(files, kept) else kept
        self._use(files, contents)
        return contents

    def _use(self, files: CertificateFiles, contents: Contents) -> None:
        if self._approved is not None:
            self._approved.use(files.key, contents)
