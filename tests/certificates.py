"""Certificates for tests, made by openssl(1): a small authority that issues what is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Authority", "Issued", "openssl"]

OPENSSL: Final = shutil.which("openssl") or "openssl"
_KEYS: Final = {
    "rsa": ["-newkey", "rsa:2048"],
    "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "ed25519": ["-newkey", "ed25519"],
}


def openssl(*words: str, stdin: bytes = b"") -> bytes:
    """Run openssl(1) with the library of the system, whichever the tests run with."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    done = subprocess.run([OPENSSL, *words], input=stdin, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as files. chain: key, certificate, and the authorities above."""

    certificate: Path
    key: Path
    chain: Path

    def der(self) -> bytes:
        return openssl("x509", "-in", str(self.certificate), "-outform", "DER")

    def public_key(self) -> bytes:
        pem = openssl("x509", "-in", str(self.certificate), "-noout", "-pubkey")
        return openssl("pkey", "-pubin", "-outform", "DER", stdin=pem)


class Authority:
    """A certificate authority in a directory; `parent` has signed its certificate."""

    def __init__(self, directory: Path, name: str = "Test CA", parent: Authority | None = None):
        self.directory = directory
        self.parent = parent
        directory.mkdir(parents=True, exist_ok=True)
        authority = ["-addext", "basicConstraints=critical,CA:TRUE"]
        self.own = self._made(f"/O=Tests/CN={name}", authority, parent, "ec", 30, "authority")

    @property
    def certificate(self) -> Path:
        return self.own.certificate

    def issue(
        self,
        name: str,
        *names: str,
        kind: str = "ec",
        days: int = 30,
        usage: str = "",
        subject: str = "",
        label: str = "",
    ) -> Issued:
        """A certificate for CN=name and DNS names; days < 0: one that has expired."""
        words = ["-addext", "basicConstraints=CA:FALSE"]
        if names:
            words += ["-addext", "subjectAltName=" + ",".join(f"DNS:{n}" for n in names)]
        if usage:
            words += ["-addext", f"extendedKeyUsage={usage}"]
        label = label or f"{name}-{kind}{days}{usage}".replace("/", "_").replace("*", "_")
        return self._made(subject or f"/CN={name}", words, self, kind, days, label)

    def self_signed(self, name: str, *names: str, kind: str = "ec") -> Issued:
        words = []
        if names:
            words += ["-addext", "subjectAltName=" + ",".join(f"DNS:{n}" for n in names)]
        return self._made(f"/CN={name}", words, None, kind, 30, f"self-{name}")

    def _made(
        self,
        subject: str,
        words: list[str],
        signer: Authority | None,
        kind: str,
        days: int,
        label: str,
    ) -> Issued:
        key, certificate = self.directory / f"{label}.key", self.directory / f"{label}.pem"
        chain = self.directory / f"{label}.chain"
        made = ["req", "-x509", "-nodes", *_KEYS[kind], "-keyout", str(key), "-utf8"]
        made += ["-out", str(certificate), "-subj", subject, "-days", str(days), *words]
        if signer is not None:
            made += ["-CA", str(signer.own.certificate), "-CAkey", str(signer.own.key)]
        if days < 0:
            self._expired(made, key, certificate, signer)
        else:
            openssl(*made)
        parts = [key, certificate]
        while signer is not None and signer.parent is not None:
            parts.append(signer.own.certificate)
            signer = signer.parent
        chain.write_bytes(b"".join(part.read_bytes() for part in parts))
        return Issued(certificate, key, chain)

    @staticmethod
    def _expired(made: list[str], key: Path, certificate: Path, signer: Authority | None) -> None:
        """Only `openssl x509` takes a negative number of days; it wants extensions in a file."""
        assert signer is not None
        at = made.index("-days")
        days, words = made[at + 1], made[at + 2 :]
        extensions = [words[index + 1] for index, word in enumerate(words) if word == "-addext"]
        file = certificate.with_suffix(".extensions")
        file.write_text("\n".join(extensions))
        request = [word for word in made[:at] if word != "-x509"]
        request[request.index("-out") + 1] = str(file.with_suffix(".csr"))
        openssl(*request, "-new")
        sign = ["x509", "-req", "-in", str(file.with_suffix(".csr")), "-out", str(certificate)]
        sign += ["-CA", str(signer.own.certificate), "-CAkey", str(signer.own.key)]
        openssl(*sign, "-days", days, "-extfile", str(file))
