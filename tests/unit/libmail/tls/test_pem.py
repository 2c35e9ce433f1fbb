"""Keys and certificates in PEM files."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tls.certificate import (
    Certificate,
    common_name,
    fingerprint,
    issuer_name,
    subject_names,
)
from libmail.tls.errors import TlsConfigError
from libmail.tls.pem import chains_of, load_chains, load_pair, pem_objects
from tests.certificates import Authority, openssl


def test_chain_files(authority: Authority, tmp_path: Path) -> None:
    """Key first, in one file or two, several algorithms."""
    ec, rsa = authority.issue("one"), authority.issue("one", kind="rsa")
    chains = load_chains([str(ec.chain), str(rsa.key), str(rsa.certificate)])
    assert [chain.key.kind() for chain in chains] == ["EC", "RSA"]
    assert [chain.certificate.der() for chain in chains] == [ec.der(), rsa.der()]


def test_chain_above(tmp_path: Path) -> None:
    below = Authority(tmp_path / "b", "Below", Authority(tmp_path / "a", "Root"))
    (chain,) = load_chains([str(below.issue("leaf").chain)])
    assert [common_name(above) for above in chain.above] == ["Below"]


def test_keys_and_certificates_in_wrong_order(authority: Authority) -> None:
    first, second = authority.issue("one"), authority.issue("two")
    for files, reason in (
        ([first.certificate, first.key], "key not first"),
        ([first.key], "at index 1 in .* not followed by a certificate"),
        ([first.key, second.key, second.certificate], "not followed by a certificate"),
        ([first.key, second.certificate], "does not match the certificate"),
    ):
        with pytest.raises(TlsConfigError, match=reason):
            load_chains([str(file) for file in files])


def test_files_that_are_none(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "bad").write_text(
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    with pytest.raises(TlsConfigError, match="No PEM data in "):
        load_chains([str(tmp_path / "empty")])
    with pytest.raises(TlsConfigError, match=r"error opening chain file: .*No such file"):
        load_chains([str(tmp_path / "absent")])
    with pytest.raises(TlsConfigError, match=r"loading private key \(PEM object number 1\)"):
        load_chains([str(tmp_path / "bad")])
    with pytest.raises(TlsConfigError, match="No private key found in x"):
        chains_of([], "x")


def test_key_with_a_passphrase_does_not_ask(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue("one")
    for form in ("-traditional", "-aes256"):
        locked = tmp_path / "locked"
        words = ["pkey" if form == "-aes256" else "ec", "-in", str(issued.key), "-aes256"]
        locked.write_bytes(openssl(*words, "-passout", "pass:x"))
        with pytest.raises(TlsConfigError, match="has a passphrase"):
            load_chains([str(locked), str(issued.certificate)])


def test_pair_of_files(authority: Authority, tmp_path: Path) -> None:
    issued, other = authority.issue("one"), authority.issue("two", kind="rsa")
    both = tmp_path / "both"
    both.write_bytes(issued.certificate.read_bytes() + issued.key.read_bytes())
    assert load_pair(str(both), str(both), "ECDSA").certificate.der() == issued.der()
    with pytest.raises(TlsConfigError, match=r"RSA private key in .* does not match public key in"):
        load_pair(str(issued.certificate), str(other.key), "RSA")
    with pytest.raises(TlsConfigError, match=r'cannot get RSA private key from file ".*": no priv'):
        load_pair(str(issued.certificate), str(issued.certificate), "RSA")
    with pytest.raises(TlsConfigError, match=r'cannot get RSA certificate from file "/x": No such'):
        load_pair("/x", "/x", "RSA")


def test_names_and_fingerprints(authority: Authority) -> None:
    issued = authority.issue("mx.example.com", "mx.example.com", "*.example.net")
    (chain,) = load_chains([str(issued.chain)])
    certificate = chain.certificate
    assert common_name(certificate) == "mx.example.com"
    assert issuer_name(certificate) == "Test CA"
    assert subject_names(certificate) == ("mx.example.com", "*.example.net")
    for digest in ("md5", "sha1", "sha256", "sha512"):
        said = openssl(
            "x509", "-in", str(issued.certificate), "-noout", "-fingerprint", f"-{digest}"
        )
        assert fingerprint(certificate.der(), digest) == said.decode().strip().split("=")[1]
    assert certificate.public_key() == issued.public_key() == chain.key.public_key()
    with pytest.raises(TlsConfigError, match='Digest algorithm "x" not found'):
        fingerprint(b"", "x")


@pytest.mark.parametrize("subject", ["/CN=a\tb", "/CN=x\x07", "/O=x", "/CN=a\u2028b"])
def test_names_that_are_no_names(authority: Authority, subject: str) -> None:
    (chain,) = load_chains([str(authority.issue("odd", subject=subject, label="odd").chain)])
    assert common_name(chain.certificate) == ""


def test_name_with_a_null_byte(authority: Authority) -> None:
    """Who reads up to it would see another name than the authority has signed."""
    der = authority.issue("good.example.com@evil").der().replace(b".com@evil", b".com\0evil")
    certificate = Certificate.from_der(der)
    assert common_name(certificate) == ""
    assert "good.example.com" not in subject_names(certificate)


@given(st.binary(max_size=300))
def test_pem_of_any_octets(data: bytes) -> None:
    block = b"-----BEGIN CERTIFICATE-----\n%b\n-----END CERTIFICATE-----\n"
    for content in (data, block % data, block % base64.b64encode(data)):
        for item in pem_objects(content, "x"):
            with pytest.raises(TlsConfigError):
                item.certificate()
