"""Channel bindings: what both ends of a TLS session know, and nobody in between can.

tls-exporter (RFC 9266) is of the session, tls-server-end-point (RFC 5929 §4) of the server's
certificate. tls-unique is not safe before TLS 1.3, and does not exist in it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from libmail.tls.certificate import Certificate
from libmail.tls.library import CRYPTO, FFI, SSL, Handle, text

__all__ = ["channel_bindings"]

_TLS_1_3: Final = "TLSv1.3"
_LABEL: Final = b"EXPORTER-Channel-Binding"
_LENGTH: Final = 32
# "MD5 or SHA-1: use SHA-256; other hash functions: use that one"                RFC 5929 §4.1
_DIGESTS: Final = {
    "MD5": "sha256",
    "SHA1": "sha256",
    "SHA224": "sha224",
    "SHA256": "sha256",
    "SHA384": "sha384",
    "SHA512": "sha512",
}


def channel_bindings(ssl: Handle, *, server: bool) -> dict[str, bytes]:
    """The data of a session after its handshake, by name of the binding. server: our end."""
    found = {}
    if text(SSL.SSL_get_version(ssl)) == _TLS_1_3:
        out = FFI.new("unsigned char[]", _LENGTH)
        label = FFI.from_buffer("char[]", _LABEL)
        # The context is empty, but there: RFC 9266 §4.2.
        if SSL.SSL_export_keying_material(ssl, out, _LENGTH, label, len(_LABEL), out, 0, 1) == 1:
            found["tls-exporter"] = bytes(FFI.buffer(out))
    if not SSL.SSL_session_reused(ssl):  # which of several certificates it was is not known then
        get = SSL.SSL_get_certificate if server else SSL.SSL_get0_peer_certificate
        handle = get(ssl)
        if handle != FFI.NULL and (end_point := _end_point(Certificate.borrowed(handle))):
            found["tls-server-end-point"] = end_point
    return found


def _end_point(certificate: Certificate) -> bytes:
    """b"" for a signature without a digest of its own, such as Ed25519."""
    digest = FFI.new("int *")
    null = FFI.NULL
    if not CRYPTO.X509_get_signature_info(certificate.handle, digest, null, null, null):
        return b""
    name = _DIGESTS.get(text(CRYPTO.OBJ_nid2sn(digest[0])))
    return hashlib.new(name, certificate.der()).digest() if name else b""
