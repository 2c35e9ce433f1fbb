"""Keys and self-signed certificates of the SMTP server, made by openssl(1), for postfix tls.

Files are made in the directory of main.cf, named by the time; keys for root alone, or whoever runs
the command.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from libmail.config import Config
from libmail.dns.hostname import valid_hostname
from libmail.files.safe_open import safe_open
from libmail.log import Fatal

__all__ = ["ALGORITHMS", "Algorithm", "KeyPair", "OpenSsl", "algorithm_named"]

_DAYS: Final = "36525"  # a hundred years: it is not the date that makes such a certificate good
_PATH: Final = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"
_SAME_CURVES: Final = {"secp256r1": "prime256v1"}  # other names of curves, in OpenSSL


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One kind of key. oid: as it stands in a public key, DER. prefix: of file names.

    size: bits, or the name of a curve. certificate, key: the parameters of main.cf.
    """

    name: str
    oid: bytes
    prefix: str
    size: str
    certificate: str
    key: str

    def options(self, size: str) -> list[str]:
        """For `openssl genpkey`."""
        if self.name == "rsa":
            return ["-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{size}"]
        curve = f"ec_paramgen_curve:{_SAME_CURVES.get(size, size)}"
        return ["-algorithm", "EC", "-pkeyopt", curve, "-pkeyopt", "ec_param_enc:named_curve"]


ALGORITHMS: Final = (
    Algorithm("rsa", bytes.fromhex("06092a864886f70d010101"), "", "2048",
              "smtpd_tls_cert_file", "smtpd_tls_key_file"),
    Algorithm("ecdsa", bytes.fromhex("06072a8648ce3d0201"), "ec", "secp256r1",
              "smtpd_tls_eccert_file", "smtpd_tls_eckey_file"),
)  # fmt: skip


def algorithm_named(name: str) -> Algorithm | None:
    """None if there is none."""
    return next((one for one in ALGORITHMS if one.name == name), None)


class KeyPair(NamedTuple):
    """Paths."""

    certificate: str
    key: str


class OpenSsl:
    """The command, and the directory that names of files are relative to."""

    def __init__(self, config: Config) -> None:
        """Raises Fatal."""
        self._directory = config.directory
        wanted = config.text("openssl_path")
        program = shutil.which(wanted, path=os.environ.get("PATH") or _PATH)
        if program is None:
            raise Fatal(f"No working openssl(1) command found with 'openssl_path = {wanted}'")
        self._program = program

    def path(self, name: str) -> str:
        """The file of that name."""
        return os.path.join(self._directory, name)

    # what files hold

    def public_key(self, path: str) -> bytes | None:
        """Of a private key, DER; None if the file has none that can be read."""
        if not os.path.isfile(path):
            return None
        return self._try("pkey", "-in", path, "-passin", "pass:", "-pubout", "-outform", "DER")

    def certified_key(self, path: str) -> bytes | None:
        """Of the first certificate in a file, DER; None if there is none."""
        pem = self._try("x509", "-in", path, "-noout", "-pubkey")
        if pem is None:
            return None
        return self._try("pkey", "-pubin", "-outform", "DER", stdin=pem)

    def algorithm(self, public_key: bytes) -> Algorithm:
        """Raises Fatal."""
        for one in ALGORITHMS:
            if one.oid in public_key[:40]:
                return one
        raise Fatal("Unsupported public key algorithm")

    def digest(self, path: str) -> str:
        """SHA-256 of the public key, for TLSA records 3 1 1. Raises Fatal."""
        key = self.public_key(path)
        if key is None:
            raise Fatal(f"no private key found in file: {path}")
        return hashlib.sha256(key).hexdigest()

    # new ones

    def make_pair(
        self, algorithm: Algorithm, size: str, names: Sequence[str], old_key: str = ""
    ) -> KeyPair:
        """A new key, or a copy of the old one, and a certificate for it. Raises Fatal."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        pair = KeyPair(
            self.path(f"{algorithm.prefix}cert-{stamp}.pem"),
            self.path(f"{algorithm.prefix}key-{stamp}.pem"),
        )
        if old_key:
            _create(pair.key, 0o600, _content(old_key))
        else:
            _create(pair.key, 0o600, self._must("genpkey", *algorithm.options(size)))
        request = ("req", "-new", "-x509", "-sha256", "-days", _DAYS, "-key", pair.key)
        subject = ("-subj", f"/CN={names[0]}", *_extensions(names))
        _create(pair.certificate, 0o644, self._must(*request, *subject))
        return pair

    def request(self, key: str, names: Sequence[str]) -> str:
        """A certificate signing request. Raises Fatal."""
        words = ("req", "-new", "-sha256", "-key", key, "-subj", "/", *_extensions(names))
        return self._must(*words).decode()

    def _try(self, *words: str, stdin: bytes = b"") -> bytes | None:
        done = subprocess.run(
            [self._program, *words], input=stdin, capture_output=True, check=False
        )
        return done.stdout if done.returncode == 0 and done.stdout else None

    def _must(self, verb: str, *words: str) -> bytes:
        options = ("-config", "/dev/null") if verb == "req" else ()
        done = subprocess.run(
            [self._program, verb, *options, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            why = done.stderr.decode(errors="replace").strip().splitlines()
            raise Fatal(f"openssl {verb}: {why[-1] if why else done.returncode}")
        return done.stdout


def _extensions(names: Sequence[str]) -> tuple[str, ...]:
    """What certificates and requests have. Raises Fatal for what is no host name."""
    for name in names:
        if not valid_hostname(name, wildcard=True):
            raise Fatal(f"bad hostname: {name}")
    listed = ",".join(f"DNS:{name}" for name in names)
    extensions = (
        "basicConstraints=CA:FALSE",
        "extendedKeyUsage=serverAuth,clientAuth",
        f"subjectAltName={listed}",
    )
    return tuple(word for one in extensions for word in ("-addext", one))


def _content(path: str) -> bytes:
    try:
        fd = safe_open(path, os.O_RDONLY)
        with os.fdopen(fd, "rb") as file:
            return file.read()
    except OSError as error:
        raise Fatal(f"open {path}: {error.strerror}") from None


def _create(path: str, mode: int, data: bytes) -> None:
    """A new file: whoever may write there has not put one or a link in its place."""
    try:
        fd = safe_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, follow=False)
    except OSError as error:
        raise Fatal(f"create {path}: {error.strerror}") from None
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(data)
