"""Certificates and keys as objects of the library that Python owns, and what is written in them."""

from __future__ import annotations

from typing import Final, Protocol, cast

from libmail.tls.errors import TlsConfigError
from libmail.tls.library import CRYPTO, FFI, LONGEST, Handle, octets, text

__all__ = [
    "Certificate",
    "Key",
    "common_name",
    "digest_exists",
    "encoded",
    "fingerprint",
    "issuer_name",
    "one_line",
    "subject_names",
]

_COMMON_NAME: Final = 13  # NID_commonName
_ORGANIZATION: Final = 17  # NID_organizationName
_ALT_NAME: Final = 85  # NID_subject_alt_name
_DNS_NAME: Final = 2  # GEN_DNS
_LONGEST_NAME: Final = 255
_MOST_NAMES: Final = 1000


class _GeneralName(Protocol):
    """The structure GENERAL_NAME."""

    type: int
    value: Handle


class Certificate:
    """One X.509 certificate."""

    __slots__ = ("handle",)

    def __init__(self, handle: Handle) -> None:
        """Take over a reference that the caller owns."""
        self.handle = FFI.gc(handle, CRYPTO.X509_free)

    @classmethod
    def from_der(cls, data: bytes, *, trusted: bool = False) -> Certificate:
        """Of its encoding; trusted: with the extra data of "TRUSTED CERTIFICATE".

        Raises ValueError.
        """
        source, start = FFI.from_buffer("unsigned char[]", data), FFI.new("unsigned char **")
        start[0] = source
        decode = CRYPTO.d2i_X509_AUX if trusted else CRYPTO.d2i_X509
        handle = decode(FFI.NULL, start, len(data))
        if handle == FFI.NULL:
            raise ValueError("not a certificate")
        return cls(handle)

    @classmethod
    def borrowed(cls, handle: Handle) -> Certificate:
        """Of a certificate that the library owns; a reference is added."""
        CRYPTO.X509_up_ref(handle)
        return cls(handle)

    def der(self) -> bytes:
        """Its encoding."""
        return encoded(CRYPTO.i2d_X509, self.handle)

    def public_key(self) -> bytes:
        """The encoding of its public key (SubjectPublicKeyInfo)."""
        return encoded(CRYPTO.i2d_X509_PUBKEY, CRYPTO.X509_get_X509_PUBKEY(self.handle))

    def seconds_left(self) -> int:
        """How long it is valid from now on; negative: has expired."""
        return _seconds_until(CRYPTO.X509_get0_notAfter(self.handle))

    def seconds_to_wait(self) -> int:
        """How long it will not be valid from now on; negative: has begun to be."""
        return _seconds_until(CRYPTO.X509_get0_notBefore(self.handle))


def _seconds_until(time: Handle) -> int:
    """From now on; 0 for what is no time."""
    times = FFI.new("int[2]")
    if not CRYPTO.ASN1_TIME_diff(times, times + 1, FFI.NULL, time):
        return 0
    return int(times[0]) * 86400 + int(times[1])


class Key:
    """A private or public key."""

    __slots__ = ("handle",)

    def __init__(self, handle: Handle) -> None:
        """Take over a reference that the caller owns."""
        self.handle = FFI.gc(handle, CRYPTO.EVP_PKEY_free)

    @classmethod
    def private(cls, data: bytes) -> Key:
        """Of the encoding of an unencrypted private key, in any of its forms. Raises ValueError."""
        return cls(_decoded_key(CRYPTO.d2i_AutoPrivateKey, data))

    @classmethod
    def public(cls, data: bytes) -> Key:
        """Of a SubjectPublicKeyInfo. Raises ValueError."""
        return cls(_decoded_key(CRYPTO.d2i_PUBKEY, data))

    @classmethod
    def borrowed(cls, handle: Handle) -> Key:
        """Of a key that the library owns; a reference is added."""
        CRYPTO.EVP_PKEY_up_ref(handle)
        return cls(handle)

    def public_key(self) -> bytes:
        """The encoding of its public part (SubjectPublicKeyInfo)."""
        return encoded(CRYPTO.i2d_PUBKEY, self.handle)

    def kind(self) -> str:
        """The algorithm: RSA, EC, ED25519, ..."""
        return text(CRYPTO.EVP_PKEY_get0_type_name(self.handle))


def _decoded_key(decode: object, data: bytes) -> Handle:
    source, start = FFI.from_buffer("unsigned char[]", data), FFI.new("unsigned char **")
    start[0] = source
    assert callable(decode)
    handle: Handle = decode(FFI.NULL, start, len(data))
    if handle == FFI.NULL:
        raise ValueError("not a key")
    return handle


def encoded(encode: object, handle: Handle) -> bytes:
    """What a function like i2d_X509 makes of an object. Raises ValueError."""
    assert callable(encode)
    length = encode(handle, FFI.NULL)
    if not 0 < length <= LONGEST:
        raise ValueError("the TLS library cannot encode an object")
    buffer = FFI.new("unsigned char[]", length)
    end = FFI.new("unsigned char **")
    end[0] = buffer
    if encode(handle, end) != length:
        raise ValueError("the TLS library cannot encode an object")
    return octets(buffer, length)


def digest_exists(name: str) -> bool:
    """Whether the library knows the digest algorithm, such as sha256."""
    return bool(CRYPTO.EVP_get_digestbyname(name.encode()) != FFI.NULL)


def fingerprint(data: bytes, digest: str) -> str:
    """The digest of data as AB:CD:..., in upper case. Raises TlsConfigError."""
    algorithm = CRYPTO.EVP_get_digestbyname(digest.encode())
    if algorithm == FFI.NULL:
        raise TlsConfigError(f'Digest algorithm "{digest}" not found')
    buffer, size = FFI.new("unsigned char[64]"), FFI.new("unsigned int *")
    if CRYPTO.EVP_Digest(data, len(data), buffer, size, algorithm, FFI.NULL) != 1:
        raise TlsConfigError(f"error computing {digest} message digest")
    return octets(buffer, size[0]).hex(":").upper()


def common_name(certificate: Certificate) -> str:
    """The common name of the subject; "" if there is none that can be used."""
    return _name_part(CRYPTO.X509_get_subject_name(certificate.handle), _COMMON_NAME)


def issuer_name(certificate: Certificate) -> str:
    """The common name of the issuer, or else its organization."""
    name = CRYPTO.X509_get_issuer_name(certificate.handle)
    return _name_part(name, _COMMON_NAME) or _name_part(name, _ORGANIZATION)


def one_line(certificate: Certificate, *, issuer: bool = False) -> str:
    """The full name of subject or issuer, /C=.../CN=..., at most 255 octets."""
    get = CRYPTO.X509_get_issuer_name if issuer else CRYPTO.X509_get_subject_name
    buffer = FFI.new("char[]", 256)
    CRYPTO.X509_NAME_oneline(get(certificate.handle), buffer, 256)
    return text(buffer)


def _name_part(name: Handle, nid: int) -> str:
    """One part of a name; "" where it is absent, too long or not printable.

    A null byte in it would have other programs see another name than the issuer has signed.
    """
    index = CRYPTO.X509_NAME_get_index_by_NID(name, nid, -1)
    if index < 0:
        return ""
    entry = CRYPTO.X509_NAME_get_entry(name, index)
    target = FFI.new("unsigned char **")
    length = CRYPTO.ASN1_STRING_to_UTF8(target, CRYPTO.X509_NAME_ENTRY_get_data(entry))
    if length < 0:
        return ""
    try:
        data = octets(target[0], length) if length <= _LONGEST_NAME else b""
    finally:
        CRYPTO.CRYPTO_free(target[0], FFI.NULL, 0)
    try:
        value = data.decode()
    except UnicodeDecodeError:
        return ""
    return value if value.isprintable() else ""


def subject_names(certificate: Certificate) -> tuple[str, ...]:
    """The DNS names that the certificate is for (subjectAltName), those that are well-formed."""
    stack = CRYPTO.X509_get_ext_d2i(certificate.handle, _ALT_NAME, FFI.NULL, FFI.NULL)
    if stack == FFI.NULL:
        return ()
    try:
        count = min(CRYPTO.OPENSSL_sk_num(FFI.cast("OPENSSL_STACK *", stack)), _MOST_NAMES)
        found = [_dns_name(stack, index) for index in range(count)]
    finally:
        CRYPTO.GENERAL_NAMES_free(stack)
    return tuple(name for name in found if name)


def _dns_name(stack: Handle, index: int) -> str:
    item = CRYPTO.OPENSSL_sk_value(FFI.cast("OPENSSL_STACK *", stack), index)
    name = cast(_GeneralName, FFI.cast("GENERAL_NAME *", item))
    if name.type != _DNS_NAME:
        return ""
    value = FFI.cast("ASN1_STRING *", name.value)
    length = CRYPTO.ASN1_STRING_length(value)
    if not 0 < length <= _LONGEST_NAME:
        return ""
    data = octets(CRYPTO.ASN1_STRING_get0_data(value), length)
    return data.decode() if data.isascii() and data.decode().isprintable() else ""
