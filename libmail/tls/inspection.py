"""Asks the library about a session: what was agreed upon, and who the peer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from libmail.tls.certificate import (
    Certificate,
    Key,
    common_name,
    fingerprint,
    issuer_name,
    subject_names,
)
from libmail.tls.dane import Tlsa
from libmail.tls.facts import Agreed, Algorithm
from libmail.tls.library import CRYPTO, FFI, SSL, Handle, at_least, clear_problems, octets, text

__all__ = ["PeerIdentity", "agreement", "matched_record", "peer_chain", "peer_identity"]

_TLS_1_3: Final = 0x0304
_GET_PEER_DIGEST: Final = 108  # SSL_ctrl(3) commands: SSL_CTRL_GET_PEER_SIGNATURE_NID
_GET_PEER_KEY: Final = 109  # SSL_CTRL_GET_PEER_TMP_KEY
_GET_DIGEST: Final = 132  # SSL_CTRL_GET_SIGNATURE_NID
_SIGNATURES: Final = {6: "RSA", 912: "RSA-PSS", 116: "DSA", 408: "ECDSA"}  # by NID
_MOST_CERTIFICATES: Final = 100
# Where the library writes to what it is asked for, to be read at once.
_first: Final = FFI.new("int *")
_second: Final = FFI.new("int *")
_key: Final = FFI.new("EVP_PKEY **")


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What the peer has shown: a certificate, or since OpenSSL 3.2 perhaps a key only."""

    certificate: Certificate | None
    key: Key | None

    @property
    def common_name(self) -> str:
        """Of the subject; "" if there is none."""
        return common_name(self.certificate) if self.certificate else ""

    @property
    def issuer(self) -> str:
        """Common name or organization of the issuer; "" if there is none."""
        return issuer_name(self.certificate) if self.certificate else ""

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names that the certificate is for."""
        return subject_names(self.certificate) if self.certificate else ()

    def certificate_fingerprint(self, digest: str) -> str:
        """AB:CD:... of the certificate; "" with a raw public key. Raises TlsConfigError."""
        return fingerprint(self.certificate.der(), digest) if self.certificate else ""

    def key_fingerprint(self, digest: str) -> str:
        """AB:CD:... of the public key. Raises TlsConfigError."""
        if self.certificate is not None:
            return fingerprint(self.certificate.public_key(), digest)
        return fingerprint(self.key.public_key(), digest) if self.key else ""

    def fingerprints(self, digest: str) -> set[str]:
        """Both. Raises TlsConfigError."""
        return {self.certificate_fingerprint(digest), self.key_fingerprint(digest)}

    def line(self, peer: str, issuer: str, digest: str) -> str:
        """A line of the log. issuer: the word for it. Raises TlsConfigError."""
        return (
            f"{peer}: subject_CN={self.common_name}, {issuer}={self.issuer},"
            f" fingerprint={self.certificate_fingerprint(digest)},"
            f" pkey_fingerprint={self.key_fingerprint(digest)}"
        )


def peer_identity(ssl: Handle) -> PeerIdentity | None:
    """Who the peer is; None if it has shown nothing."""
    certificate = SSL.SSL_get0_peer_certificate(ssl)
    if certificate != FFI.NULL:
        return PeerIdentity(Certificate.borrowed(certificate), None)
    if at_least(3, 2) and (key := SSL.SSL_get0_peer_rpk(ssl)) != FFI.NULL:
        return PeerIdentity(None, Key.borrowed(key))
    return None


def peer_chain(ssl: Handle) -> tuple[Certificate, ...]:
    """The certificates that the peer has sent, its own perhaps not among them on a server."""
    stack = SSL.SSL_get_peer_cert_chain(ssl)
    if stack == FFI.NULL:
        return ()
    count = min(CRYPTO.OPENSSL_sk_num(stack), _MOST_CERTIFICATES)
    items = (CRYPTO.OPENSSL_sk_value(stack, index) for index in range(count))
    return tuple(Certificate.borrowed(FFI.cast("X509 *", item)) for item in items)


def matched_record(ssl: Handle) -> Tlsa | None:
    """The TLSA record that matched, None for none or a session that was resumed."""
    usage, selector, matching = (FFI.new("uint8_t *") for _ in range(3))
    data, length = FFI.new("unsigned char **"), FFI.new("size_t *")
    if SSL.SSL_get0_dane_tlsa(ssl, usage, selector, matching, data, length) < 0:
        return None
    content = octets(data[0], int(length[0]))
    return Tlsa(int(usage[0]), int(selector[0]), int(matching[0]), content)


def agreement(ssl: Handle, *, server: bool) -> Agreed:
    """What was agreed upon. server: which end we are."""
    cipher = SSL.SSL_get_current_cipher(ssl)
    bits = SSL.SSL_CIPHER_get_bits(cipher, _first)
    of_bits = int(_first[0])
    protocol, name = text(SSL.SSL_get_version(ssl)), text(SSL.SSL_CIPHER_get_name(cipher))
    resumed = bool(SSL.SSL_session_reused(ssl))
    if SSL.SSL_version(ssl) < _TLS_1_3:
        return Agreed(protocol, name, bits, of_bits, resumed)
    exchange, ours, theirs = _exchange(ssl), None, None
    if not resumed:
        ours, theirs = _our_signature(ssl), _peer_signature(ssl)
    clear_problems()
    by_server, by_client = (ours, theirs) if server else (theirs, ours)
    return Agreed(protocol, name, bits, of_bits, resumed, exchange, by_server, by_client)


def _exchange(ssl: Handle) -> Algorithm | None:
    if SSL.SSL_ctrl(ssl, _GET_PEER_KEY, 0, _key) != 1:
        return Algorithm(text(SSL.SSL_get0_group_name(ssl))) if at_least(3, 2) else None
    key = FFI.gc(_key[0], CRYPTO.EVP_PKEY_free)
    kind = text(CRYPTO.EVP_PKEY_get0_type_name(key))
    if kind == "EC":
        return Algorithm("ECDHE", _curve(key))
    if kind == "DH":
        return Algorithm("DHE", _bits(key))
    return Algorithm(kind)


def _our_signature(ssl: Handle) -> Algorithm | None:
    key = SSL.SSL_get_privatekey(ssl)
    if key == FFI.NULL or SSL.SSL_get_signature_type_nid(ssl, _first) != 1:
        return None
    SSL.SSL_ctrl(ssl, _GET_DIGEST, 0, _second)
    return _signature(int(_first[0]), int(_second[0]), key)


def _peer_signature(ssl: Handle) -> Algorithm | None:
    identity = peer_identity(ssl)
    if identity is None or SSL.SSL_get_peer_signature_type_nid(ssl, _first) != 1:
        return None
    SSL.SSL_ctrl(ssl, _GET_PEER_DIGEST, 0, _second)
    key = identity.key.handle if identity.key else None
    if identity.certificate is not None:
        key = CRYPTO.X509_get0_pubkey(identity.certificate.handle)
    return _signature(int(_first[0]), int(_second[0]), key) if key is not None else None


def _signature(kind: int, digest: int, key: Handle) -> Algorithm:
    name = _SIGNATURES.get(kind) or text(CRYPTO.OBJ_nid2sn(kind))
    if name == "ECDSA":
        detail = _curve(key)
    elif kind in _SIGNATURES:
        detail = _bits(key)
    else:
        detail = ""
    return Algorithm(name, detail, text(CRYPTO.OBJ_nid2sn(digest)) if digest else "")


def _bits(key: Handle) -> str:
    return f"{CRYPTO.EVP_PKEY_get_bits(key)} bits"


def _curve(key: Handle) -> str:
    buffer, length = FFI.new("char[]", 80), FFI.new("size_t *")
    if CRYPTO.EVP_PKEY_get_group_name(key, buffer, 80, length) != 1:
        return ""
    return text(buffer)
