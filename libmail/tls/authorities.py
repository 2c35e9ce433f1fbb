"""Certificate authorities that are trusted: CAfile and CApath, read before the jail.

A file is parsed at once, for it is in use as a whole. Of a directory of certificates by hash
(openssl-rehash(1)), which has some hundred files, only the bytes are read; a certificate is parsed
when the library asks for the issuer of one, by the hash that is in the name of its file, as it does
itself where it can still open files. So a process with a CApath starts some 30 ms earlier.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from libmail.tls.certificate import Certificate
from libmail.tls.certificate_files import read_file
from libmail.tls.errors import TlsConfigError
from libmail.tls.library import CRYPTO, FFI, Handle, clear_problems, text
from libmail.tls.pem import pem_objects

__all__ = ["Authorities"]

_HASHED: Final = re.compile(r"([0-9a-f]{8})\.[0-9]{1,4}")
_CERTIFICATE: Final = 1  # X509_LU_X509
_MOST_FILES: Final = 20_000
_UNUSABLE: Final = "cannot load Certification Authority data"


class Authorities:
    """The authorities of one context. names: certificates whose names a server sends to clients."""

    def __init__(
        self,
        file: str,
        directory: str,
        *,
        defaults: bool = False,
        read: Callable[[str], bytes] = read_file,
    ) -> None:
        """Read them; "" for none. defaults: those of the library as well.

        read: the content of the file; raises TlsConfigError. Raises TlsConfigError.
        """
        self.handle = FFI.gc(CRYPTO.X509_STORE_new(), CRYPTO.X509_STORE_free)
        self.names: list[Certificate] = []
        self._known: list[Certificate] = []  # those that were asked for, and all of files
        self._by_hash: defaultdict[int, list[bytes]] = defaultdict(list)
        self._self = FFI.new_handle(self)
        if file:
            self.names = self._load(file, read)
        if directory:
            self._read_directory(directory)
        if defaults:
            self._add_defaults()
        if self._by_hash:
            lookup = CRYPTO.X509_STORE_add_lookup(self.handle, _METHOD)
            CRYPTO.X509_LOOKUP_set_method_data(lookup, self._self)
        clear_problems()

    def _load(self, path: str, read: Callable[[str], bytes]) -> list[Certificate]:
        found = []
        try:
            for item in pem_objects(read(path), path):
                if item.is_certificate:
                    found.append(item.certificate())
                    CRYPTO.X509_STORE_add_cert(self.handle, found[-1].handle)
        except TlsConfigError as error:
            raise TlsConfigError(f'{_UNUSABLE}, CAfile="{path}": {error.reason}') from None
        if not found:
            raise TlsConfigError(f'{_UNUSABLE}, CAfile="{path}": no certificate in it')
        self._known += found
        return found

    def _read_directory(self, path: str) -> None:
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            raise TlsConfigError(f'{_UNUSABLE}, CApath="{path}": {error.strerror}') from None
        for name in names[:_MOST_FILES]:
            if (match := _HASHED.fullmatch(name)) is None:
                continue
            try:
                self._by_hash[int(match[1], 16)].append(read_file(os.path.join(path, name)))
            except TlsConfigError:
                continue  # a link whose file is gone: the library does not mind either

    def _add_defaults(self) -> None:
        file = text(CRYPTO.X509_get_default_cert_file())
        directory = text(CRYPTO.X509_get_default_cert_dir())
        if os.path.isfile(file):
            self._load(file, read_file)
        if os.path.isdir(directory):
            self._read_directory(directory)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._known or self._by_hash)

    def has_issuer_of(self, certificate: Certificate) -> bool:
        """Whether one has the name of the issuer of a certificate."""
        name = CRYPTO.X509_get_issuer_name(certificate.handle)
        self._known += self.parsed(CRYPTO.X509_NAME_hash_ex(name, FFI.NULL, FFI.NULL, FFI.NULL))
        subjects = (CRYPTO.X509_get_subject_name(one.handle) for one in self._known)
        return any(CRYPTO.X509_NAME_cmp(subject, name) == 0 for subject in subjects)

    def parsed(self, hashed: int) -> list[Certificate]:
        """The certificates of the directory whose subject has the hash, now in the store."""
        found = []
        for data in self._by_hash.pop(hashed, ()):
            for item in pem_objects(data, "CApath"):
                if not item.is_certificate:
                    continue
                try:
                    certificate = item.certificate()
                except TlsConfigError:
                    continue  # one that cannot be read is as good as absent
                CRYPTO.X509_STORE_add_cert(self.handle, certificate.handle)
                found.append(certificate)
        return found


@FFI.callback("subject_cb", error=0)
def _by_subject(lookup: Handle, kind: int, name: Handle, target: Handle) -> int:
    """Called by the library for a subject that is not in the store."""
    if kind != _CERTIFICATE:
        return 0
    authorities = FFI.from_handle(CRYPTO.X509_LOOKUP_get_method_data(lookup))
    assert isinstance(authorities, Authorities)
    hashed = CRYPTO.X509_NAME_hash_ex(name, FFI.NULL, FFI.NULL, FFI.NULL)
    for certificate in authorities.parsed(hashed):
        subject = CRYPTO.X509_get_subject_name(certificate.handle)
        if CRYPTO.X509_NAME_cmp(subject, name) == 0:
            return CRYPTO.X509_OBJECT_set1_X509(target, certificate.handle)
    return 0


_METHOD: Final = CRYPTO.X509_LOOKUP_meth_new(b"certificates read before the jail")
CRYPTO.X509_LOOKUP_meth_set_get_by_subject(_METHOD, _by_subject)
