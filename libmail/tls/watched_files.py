"""The certificates that tablewatch(8) looks after: those of parameters, and those that tables name.

Those of servers and clients, and those of the authorities that they trust.

Nothing here needs the TLS library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.tables.braces import split_list, strip_braces
from libmail.tables.file_values import named_files, names_in
from libmail.tls.certificate_files import (
    CertificateFiles,
    configured_authorities,
    configured_files,
    views,
)

__all__ = ["named_certificates", "watched_files", "watched_tables"]

_TABLE: Final = re.compile(r"(?<![\w-])(?:btree|cdb|dbm|hash|lmdb|texthash):(/[^\s,{}]+)")
_PATTERNS: Final = re.compile(r"(?<![\w-])(?:pcre|regexp):(/[^\s,{}]+)")
_INLINE: Final = "inline:"


def watched_tables(config: Config, entries: Sequence[ServiceEntry]) -> tuple[str, ...]:
    """The sources of the tables of tls_server_sni_maps."""
    kinds = (_TABLE, _PATTERNS)
    texts = tuple(_maps(config, entries))
    return tuple(
        dict.fromkeys(path for text in texts for kind in kinds for path in kind.findall(text))
    )


def _patterns(config: Config, entries: Sequence[ServiceEntry]) -> frozenset[str]:
    """Those of them whose keys are patterns."""
    return frozenset(path for text in _maps(config, entries) for path in _PATTERNS.findall(text))


def watched_files(config: Config, entries: Sequence[ServiceEntry]) -> tuple[CertificateFiles, ...]:
    """All certificates, where tls_auto_reload wants it."""
    if not config.bool("tls_auto_reload"):
        return ()
    return (*named_certificates(config, entries), *configured_authorities(config, entries))


def named_certificates(
    config: Config, entries: Sequence[ServiceEntry]
) -> tuple[CertificateFiles, ...]:
    """All certificates that the configuration and its tables name."""
    found = dict.fromkeys(configured_files(config, entries))
    for path in watched_tables(config, entries):
        with suppress(OSError):  # whoever uses the table complains
            patterns = path in _patterns(config, entries)
            named = named_files(path, patterns=patterns)
            found.update(dict.fromkeys(map(CertificateFiles, named)))
    for text in _maps(config, entries):
        found.update(dict.fromkeys(_in_braces(text)))
    return tuple(files for files in found if files.paths)


def _maps(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    for one in views(config, entries):
        with suppress(ConfigError):
            yield one.text("tls_server_sni_maps")


def _in_braces(text: str) -> Iterator[CertificateFiles]:
    """Those of inline: tables."""
    with suppress(ValueError):
        for spec in split_list(text):
            if spec.startswith(_INLINE):
                for item in split_list(strip_braces(spec.removeprefix(_INLINE))):
                    pair = strip_braces(item) if item.startswith("{") else item
                    yield CertificateFiles(tuple(names_in(pair.partition("=")[2])))
