"""Trust-anchor files: smtp_tls_trust_anchor_file, and `tafile=` of a policy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from libmail.tls.certificate_files import read_file
from libmail.tls.dane import CERTIFICATE, DANE_TA, FULL, PUBLIC_KEY, Tlsa
from libmail.tls.errors import TlsConfigError
from libmail.tls.pem import pem_objects

__all__ = ["Anchors"]

_MOST_FILES: Final = 100


class Anchors:
    """Files that were read, each once. Those of main.cf are read before the jail.

    One that only a policy table names is read when it is needed: who puts it there puts it in the
    jail, as with Postfix.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Raises TlsConfigError."""
        self._files: dict[str, tuple[Tlsa, ...]] = {}
        self.of(paths)

    def of(self, paths: Iterable[str]) -> tuple[Tlsa, ...]:
        """The anchors in the files. Raises TlsConfigError."""
        return tuple(anchor for path in paths for anchor in self._file(path))

    def _file(self, path: str) -> tuple[Tlsa, ...]:
        if path not in self._files:
            found = _read(path)
            if len(self._files) >= _MOST_FILES:
                self._files.clear()
            self._files[path] = found
        return self._files[path]


def _read(path: str) -> tuple[Tlsa, ...]:
    try:
        objects = list(pem_objects(read_file(path), path))
    except TlsConfigError as error:
        reason = error.reason.rpartition(": ")[2]
        raise TlsConfigError(f"error opening trust anchor file: {path}: {reason}") from None
    found = []
    for item in objects:
        if item.is_certificate:
            found.append(Tlsa(DANE_TA, CERTIFICATE, FULL, item.certificate().der()))
        elif item.kind == "PUBLIC KEY":
            found.append(Tlsa(DANE_TA, PUBLIC_KEY, FULL, item.data))
        else:
            raise TlsConfigError(f"{path}: unexpected {item.kind} in a trust anchor file")
    if not found:
        raise TlsConfigError(f"{path}: no certificate or public key in a trust anchor file")
    return tuple(found)
