"""Files of certificates and keys: which belong together, and which the configuration names.

Nothing here needs the TLS library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.files.approved import Contents, FilesKey
from libmail.files.safe_open import safe_open
from libmail.tls.errors import TlsConfigError

__all__ = [
    "AUTHORITIES",
    "HASHED",
    "CertificateFiles",
    "configured_authorities",
    "configured_files",
    "files_of_settings",
    "read_file",
    "views",
]

AUTHORITIES: Final = "CAfile"  # in place of an algorithm: certificates that are trusted
HASHED: Final = "CApath"  # a directory of such, by hash

LONGEST_FILE: Final = 1 << 24  # octets; a bundle of all authorities has less than 1 MB
_PREFIXES: Final = ("smtpd", "tlsproxy", "smtp", "lmtp")
_TRUSTING: Final = (*_PREFIXES, "postscreen")
_MOST_NAMES: Final = 20_000
_PAIRS: Final = (("RSA", ""), ("DSA", "d"), ("ECDSA", "ec"))


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Files that make chains together.

    algorithm: RSA, DSA or ECDSA where the paths are those of a certificate and of its key; "" for
    files that hold keys, each before its certificates. AUTHORITIES, HASHED: none of these.
    """

    paths: tuple[str, ...]
    algorithm: str = ""

    @property
    def key(self) -> FilesKey:
        """What `libmail.files.approved` knows them by."""
        return (self.algorithm, *self.paths)

    @property
    def titles(self) -> tuple[str, str]:
        """What a problem with the certificate, or with the key, is called."""
        certificate, key = self.paths
        return (
            f'cannot get {self.algorithm} certificate from file "{certificate}"',
            f'cannot get {self.algorithm} private key from file "{key}"',
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the directories in which something changes when the contents do."""
        if self.algorithm == HASHED:
            return tuple(os.path.join(path, "0") for path in self.paths)
        return self.paths

    def read(self) -> Contents:
        """The contents; of a directory, what changes with them. Raises TlsConfigError."""
        if self.algorithm == HASHED:
            return tuple(map(_listing, self.paths))
        if self.algorithm in ("", AUTHORITIES):
            return tuple(map(read_file, self.paths))
        return tuple(_read_as(*item) for item in zip(self.paths, self.titles, strict=True))


def read_file(path: str) -> bytes:
    """The content of a file. Raises TlsConfigError."""
    try:
        with open(path, "rb", opener=safe_open) as file:
            data = file.read(LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TlsConfigError(f"error opening chain file: {path}: {reason}") from None
    if len(data) > LONGEST_FILE:
        raise TlsConfigError(f"{path} is larger than {LONGEST_FILE} octets")
    return data


def _listing(path: str) -> bytes:
    """Names, sizes and times of files in a directory. Raises TlsConfigError."""
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in islice(entries, _MOST_NAMES):
                with suppress(OSError):  # a link whose file is gone
                    status = entry.stat()
                    found.append(f"{entry.name} {status.st_size} {status.st_mtime_ns}")
    except OSError as error:
        raise TlsConfigError(f"{path}: {error.strerror}") from None
    return "\n".join(sorted(found)).encode("utf-8", "surrogateescape")


def _read_as(path: str, title: str) -> bytes:
    try:
        return read_file(path)
    except TlsConfigError as error:
        raise TlsConfigError(f"{title}: {error.reason.rpartition(': ')[2]}") from None


def files_of_settings(
    chain_files: Sequence[str], pairs: Sequence[tuple[str, str, str]]
) -> tuple[CertificateFiles, ...]:
    """What parameters name: chains of the newer form, or else pairs.

    pairs: of algorithm, certificate and key; "" or "none" for no certificate, "" for a key that is
    in the same file.
    """
    if chain_files:
        return (CertificateFiles(tuple(chain_files)),)
    return tuple(
        CertificateFiles((certificate, key or certificate), algorithm)
        for algorithm, certificate, key in pairs
        if certificate and certificate != "none"
    )


def views(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[Config]:
    """main.cf, and main.cf as each service sees it whose options in master.cf tell it more."""
    yield config
    for entry in entries:
        if entry.overrides:
            yield config.override(entry.overrides)


def configured_files(
    config: Config, entries: Sequence[ServiceEntry]
) -> tuple[CertificateFiles, ...]:
    """The files of all services, without those that tables name."""
    found: dict[CertificateFiles, None] = {}
    for one in views(config, entries):
        for prefix in _PREFIXES:
            try:
                found.update(dict.fromkeys(_of_prefix(one, prefix)))
            except ConfigError:
                continue  # whoever reads it complains
    return tuple(found)


def configured_authorities(
    config: Config, entries: Sequence[ServiceEntry]
) -> tuple[CertificateFiles, ...]:
    """The files and directories of authorities of all services."""
    found: dict[CertificateFiles, None] = {}
    for one in views(config, entries):
        for prefix in _TRUSTING:
            for kind in (AUTHORITIES, HASHED):
                with suppress(ConfigError):  # whoever reads it complains
                    if path := one.text(f"{prefix}_tls_{kind}"):
                        found[CertificateFiles((path,), kind)] = None
    return tuple(found)


def _of_prefix(config: Config, prefix: str) -> tuple[CertificateFiles, ...]:
    pairs = [
        (
            algorithm,
            config.text(f"{prefix}_tls_{letters}cert_file"),
            config.text(f"{prefix}_tls_{letters}key_file"),
        )
        for algorithm, letters in _PAIRS
    ]
    return files_of_settings(config.list(f"{prefix}_tls_chain_files"), pairs)
