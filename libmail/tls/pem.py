"""PEM files: what is in them, and chains of a private key and its certificates.

`Chain` is one key with
its certificate and the intermediate ones; a server has one for each algorithm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from libmail.files.approved import Contents
from libmail.tls.certificate import Certificate, Key
from libmail.tls.certificate_files import CertificateFiles
from libmail.tls.errors import TlsConfigError
from libmail.tls.library import CRYPTO, FFI, clear_problems, octets, problems, text

__all__ = ["Chain", "Pem", "chains_in", "chains_of", "load_chains", "load_pair", "pem_objects"]

_CERTIFICATES: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_KEYS: Final = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "DSA PRIVATE KEY")


@dataclass(frozen=True, slots=True)
class Pem:
    """One object of a PEM file. place: its number in the file, from 1."""

    kind: str
    data: bytes = field(repr=False)
    source: str
    place: int
    encrypted: bool = False

    @property
    def is_key(self) -> bool:
        """Whether it is a private key."""
        return self.kind in _KEYS or self.kind == "ENCRYPTED PRIVATE KEY"

    @property
    def is_certificate(self) -> bool:
        """Whether it is a certificate."""
        return self.kind in _CERTIFICATES

    def certificate(self) -> Certificate:
        """The certificate. Raises TlsConfigError."""
        try:
            return Certificate.from_der(self.data, trusted=self.kind.startswith("TRUSTED"))
        except ValueError:
            raise self._bad("certificate") from None

    def private_key(self) -> Key:
        """The private key. Raises TlsConfigError, for one with a passphrase, too."""
        if self.encrypted or self.kind == "ENCRYPTED PRIVATE KEY":
            raise TlsConfigError(f"private key in {self.source} has a passphrase")
        try:
            return Key.private(self.data)
        except ValueError:
            raise self._bad("private key") from None

    def _bad(self, what: str) -> TlsConfigError:
        reason = f"error loading {what} (PEM object number {self.place}) from {self.source}"
        return TlsConfigError(reason, problems())


@dataclass(frozen=True, slots=True)
class Chain:
    """A private key, its certificate, and the certificates of those who signed it, in order."""

    key: Key
    certificate: Certificate
    above: tuple[Certificate, ...]
    source: str


def pem_objects(data: bytes, source: str) -> Iterator[Pem]:
    """The PEM objects in data; what stands between them does not count."""
    clear_problems()
    content = FFI.from_buffer(data)
    bio = FFI.gc(CRYPTO.BIO_new_mem_buf(content, len(data)), CRYPTO.BIO_free)
    name, header = FFI.new("char **"), FFI.new("char **")
    body, length = FFI.new("unsigned char **"), FFI.new("long *")
    place = 0
    while CRYPTO.PEM_read_bio(bio, name, header, body, length) == 1:
        place += 1
        try:
            encrypted = "ENCRYPTED" in text(header[0])
            yield Pem(text(name[0]), octets(body[0], length[0]), source, place, encrypted)
        finally:
            for pointer in (name[0], header[0], body[0]):
                CRYPTO.CRYPTO_free(pointer, FFI.NULL, 0)
    clear_problems()


def chains_of(objects: Iterable[Pem], source: str) -> tuple[Chain, ...]:
    """Chains out of a sequence key, certificate, intermediates, key, ... .

    Raises TlsConfigError: the key must come first, and fit the certificate behind it.
    """
    groups: list[tuple[Pem, list[Pem]]] = []
    for item in objects:
        if item.is_key:
            if groups and not groups[-1][1]:
                raise TlsConfigError(_lonely(groups[-1][0]))
            groups.append((item, []))
        elif item.is_certificate:
            if not groups:
                raise TlsConfigError(f"error loading chain from {item.source}: key not first")
            groups[-1][1].append(item)
    if not groups:
        raise TlsConfigError(f"No private key found in {source}")
    if not groups[-1][1]:
        raise TlsConfigError(_lonely(groups[-1][0]))
    return tuple(_chain(key, certificates) for key, certificates in groups)


def _lonely(key: Pem) -> str:
    return (
        f"error loading certificate chain: key at index {key.place} in {key.source}"
        " not followed by a certificate"
    )


def _chain(key_object: Pem, objects: Sequence[Pem]) -> Chain:
    key = key_object.private_key()
    leaf, *above = [item.certificate() for item in objects]
    if CRYPTO.X509_check_private_key(leaf.handle, key.handle) != 1:
        clear_problems()
        raise TlsConfigError(
            f"error loading certificate chain: key at index {key_object.place}"
            f" in {key_object.source} does not match the certificate"
        )
    return Chain(key, leaf, tuple(above), key_object.source)


def chains_in(files: CertificateFiles, contents: Contents) -> tuple[Chain, ...]:
    """The chains in files with these contents. Raises TlsConfigError."""
    if files.algorithm:
        return (_pair(files, contents),)
    objects: list[Pem] = []
    for path, data in zip(files.paths, contents, strict=True):
        found = list(pem_objects(data, path))
        if not found:
            raise TlsConfigError(f"No PEM data in {path}")
        objects += found
    return chains_of(objects, " ".join(files.paths))


def _pair(files: CertificateFiles, contents: Contents) -> Chain:
    of_certificate, of_key = map(pem_objects, contents, files.paths)
    certificates = [item for item in of_certificate if item.is_certificate]
    if not certificates:
        raise TlsConfigError(f"{files.titles[0]}: no certificate in it")
    key = next((item for item in of_key if item.is_key), None)
    if key is None:
        raise TlsConfigError(f"{files.titles[1]}: no private key in it")
    try:
        return _chain(key, certificates)
    except TlsConfigError as error:
        if "does not match" not in error.reason:
            raise
        public, private = files.paths
        reason = f"{files.algorithm} private key in {private} does not match public key in {public}"
        raise TlsConfigError(reason) from None


def load_chains(paths: Sequence[str]) -> tuple[Chain, ...]:
    """The chains of smtpd_tls_chain_files: the files count as one. Raises TlsConfigError."""
    files = CertificateFiles(tuple(paths))
    return chains_in(files, files.read())


def load_pair(cert_file: str, key_file: str, algorithm: str) -> Chain:
    """The chain of a cert_file and a key_file parameter. Raises TlsConfigError.

    algorithm: RSA, DSA or ECDSA, for messages.
    """
    files = CertificateFiles((cert_file, key_file), algorithm)
    (chain,) = chains_in(files, files.read())
    return chain
