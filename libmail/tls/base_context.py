"""What the contexts of both ends have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from libmail.tls.authorities import Authorities
from libmail.tls.certificate import Certificate
from libmail.tls.certificate_files import read_file
from libmail.tls.errors import TlsConfigError
from libmail.tls.library import CRYPTO, FFI, SSL, Handle, clear_problems, problems
from libmail.tls.pem import Chain, pem_objects
from libmail.tls.settings import ALL_WORKAROUNDS, Protocols

__all__ = ["BaseContext", "Common", "chain_stack", "dh_parameters"]

_MODE: Final = 33  # commands of SSL_CTX_ctrl(3)
_CLEAR_MODE: Final = 78
_GROUPS: Final = 92
_LOWEST: Final = 123
_HIGHEST: Final = 124
_PARTIAL_WRITES_NOT: Final = 0x02  # SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
_AUTO_RETRY: Final = 0x04  # read on behind records that are not data, however many
_RELEASE_BUFFERS: Final = 0x10  # an idle session has no buffers for records
_NO_RENEGOTIATION: Final = 1 << 30
_DIFFIE_HELLMAN: Final = {"DH PARAMETERS": 28, "X9.42 DH PARAMETERS": 920}


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Settings of both ends. groups: for key exchange, by name, most preferred first.

    disabled: workarounds that are switched off. options: others that are switched on.
    """

    chains: tuple[Chain, ...] = ()
    authorities: Authorities | None = None
    verify_depth: int = 9
    groups: tuple[str, ...] = ()
    disabled: int = 0
    options: int = 0
    raw_keys: bool = False


class BaseContext:
    """An SSL_CTX with what both ends need. warnings: what the log should say of the settings."""

    def __init__(self, method: Handle, common: Common) -> None:
        self.warnings: list[str] = []
        self.common = common
        clear_problems()
        context = SSL.SSL_CTX_new(method)
        if context == FFI.NULL:
            raise TlsConfigError("cannot allocate SSL_CTX", problems())
        self.handle = FFI.gc(context, SSL.SSL_CTX_free)
        # Weak keys and algorithms are excluded by name, as Postfix does, and not by a level of the
        # library: mail that goes encrypted somehow is better than mail that goes in the clear.
        SSL.SSL_CTX_set_security_level(context, 0)
        SSL.SSL_CTX_ctrl(context, _MODE, _PARTIAL_WRITES_NOT | _RELEASE_BUFFERS, FFI.NULL)
        SSL.SSL_CTX_ctrl(context, _CLEAR_MODE, _AUTO_RETRY, FFI.NULL)
        SSL.SSL_CTX_clear_options(context, ALL_WORKAROUNDS)
        workarounds = ALL_WORKAROUNDS & ~common.disabled
        SSL.SSL_CTX_set_options(context, workarounds | common.options | _NO_RENEGOTIATION)
        if common.authorities is not None:
            SSL.SSL_CTX_set1_cert_store(context, common.authorities.handle)
        SSL.SSL_CTX_set_verify_depth(context, common.verify_depth + 1)
        self._use_groups()
        for chain in common.chains:
            self._use_chain(chain)

    def set_versions(self, ciphers: str, protocols: Protocols) -> None:
        """Raises TlsConfigError for versions or ciphers that the library does not have."""
        for command, version, word in (
            (_LOWEST, protocols.low, "minimum"),
            (_HIGHEST, protocols.high, "maximum"),
        ):
            if SSL.SSL_CTX_ctrl(self.handle, command, version, FFI.NULL) != 1:
                reason = f"error setting {word} TLS version to: 0x{version:04x}"
                raise TlsConfigError(reason, problems())
        SSL.SSL_CTX_set_options(self.handle, protocols.options)
        if SSL.SSL_CTX_set_cipher_list(self.handle, ciphers.encode()) != 1:
            raise TlsConfigError(f'error setting cipher grade: "{ciphers}"', problems())

    def _use_groups(self) -> None:
        known = [name for name in self.common.groups if self._set_groups(name)]
        unknown = [name for name in self.common.groups if name not in known]
        self.warnings += [f'ignoring unknown ECDHE curve "{name}"' for name in unknown]
        if known:
            self._set_groups(":".join(known))
        elif unknown:
            self.warnings.append("none of the configured ECDHE curves are supported")
        clear_problems()

    def _set_groups(self, names: str) -> bool:
        target = FFI.new("char[]", names.encode())
        return SSL.SSL_CTX_ctrl(self.handle, _GROUPS, 0, target) == 1

    def _use_chain(self, chain: Chain) -> None:
        stack = chain_stack(chain.above)
        done = SSL.SSL_CTX_use_cert_and_key(
            self.handle, chain.certificate.handle, chain.key.handle, stack, 1
        )
        if done != 1:
            reason = f"error loading private keys and certificates from: {chain.source}"
            raise TlsConfigError(reason, problems())


def chain_stack(certificates: Sequence[Certificate]) -> Handle:
    """The certificates as the library wants them; lives as long as the result, and so do they."""
    stack = CRYPTO.OPENSSL_sk_new_null()
    for certificate in certificates:
        CRYPTO.OPENSSL_sk_push(stack, certificate.handle)
    return FFI.gc(stack, CRYPTO.OPENSSL_sk_free)


def dh_parameters(path: str) -> Handle:
    """The Diffie-Hellman parameters in a file, owned by the caller. Raises TlsConfigError."""
    try:
        objects = list(pem_objects(read_file(path), path))
    except TlsConfigError as error:
        reason = error.reason.rpartition(": ")[2]
        raise TlsConfigError(f'error opening DH parameter file "{path}": {reason}') from None
    for item in objects:
        if (kind := _DIFFIE_HELLMAN.get(item.kind)) is not None:
            source, start = (
                FFI.from_buffer("unsigned char[]", item.data),
                FFI.new("unsigned char **"),
            )
            start[0] = source
            key = CRYPTO.d2i_KeyParams(kind, FFI.NULL, start, len(item.data))
            if key != FFI.NULL:
                return key
    raise TlsConfigError(f'error decoding DH parameters from file "{path}"')
