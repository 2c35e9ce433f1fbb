"""What `postfix check` says of certificates and keys, and of the TLSA records of the server."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from commands.postfix.certificates import certificate_problems, dane_problems
from libmail.config import Config, open_config, read_master_cf
from libmail.dns.answers import DnsAnswer, DnsRecord, TempFail
from libmail.dns.resolver import Resolver
from tests.certificates import Authority, Issued


class Answers(Resolver):
    """TLSA records of the server; None: nobody says."""

    def __init__(self, *records: str | None) -> None:
        self.records = records
        self.asked: list[str] = []

    async def lookup(self, name: str, rrtype: str) -> DnsAnswer:
        self.asked.append(f"{name} {rrtype}")
        if None in self.records:
            raise TempFail(name, rrtype, "silent")
        found = tuple(DnsRecord(name, rrtype, 60, text or "") for text in self.records)
        return DnsAnswer(name, name, rrtype, found, True, 60)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def configured(folder: Path, main: str) -> Config:
    (folder / "main.cf").write_text(f"compatibility_level = 3.6\nmyhostname = mail.test\n{main}")
    (folder / "master.cf").write_text("")
    return open_config(str(folder))


def problems(folder: Path, main: str) -> list[str]:
    config = configured(folder, main)
    return list(certificate_problems(config, read_master_cf(config.directory)))


def pair(certificate: Issued, key: Issued) -> str:
    return f"smtpd_tls_cert_file = {certificate.certificate}\nsmtpd_tls_key_file = {key.key}\n"


def test_certificates(tmp_path: Path, authority: Authority) -> None:
    trusted = f"smtpd_tls_CAfile = {authority.certificate}\n"
    good, soon = authority.issue("mail.test"), authority.issue("soon.test", days=90)
    assert problems(tmp_path, trusted + pair(good, good)) == []
    assert problems(tmp_path, trusted) == []
    assert problems(tmp_path, trusted + pair(soon, soon)) == []
    few = authority.issue("few.test", days=-1)
    assert problems(tmp_path, trusted + pair(few, few)) == [
        f"the certificate in {few.certificate} has expired"
    ]
    (wrong,) = problems(tmp_path, trusted + pair(good, soon))
    assert wrong == (
        f"RSA private key in {soon.key} does not match public key in {good.certificate}"
    )
    (missing,) = problems(tmp_path, "smtp_tls_chain_files = /nonexistent\n")
    assert missing == "error opening chain file: /nonexistent: No such file or directory"
    good.key.chmod(0o644)
    assert problems(tmp_path, trusted + pair(good, good)) == [
        f"{good.key} has a private key, and everybody may read it"
    ]
    good.key.chmod(0o600)


def test_days_that_are_left(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a month a quarter, of a year three weeks: a renewal has gone wrong before that."""
    trusted = f"smtpd_tls_CAfile = {authority.certificate}\n"
    for days, later, told in ((30, 10, ""), (30, 25, "4"), (365, 340, ""), (365, 350, "14")):
        issued = authority.issue("mail.test", days=days)
        monkeypatch.setattr(
            "libmail.tls.certificate.Certificate.seconds_left",
            lambda _, left=(days - later) * 86400 - 60: left,
        )
        monkeypatch.setattr(
            "libmail.tls.certificate.Certificate.seconds_to_wait",
            lambda _, gone=later * 86400 + 60: -gone,
        )
        said = [f"the certificate in {issued.certificate} is valid for {told} more days"]
        assert problems(tmp_path, trusted + pair(issued, issued)) == (said if told else [])


def test_chains(tmp_path: Path, authority: Authority) -> None:
    """One that misses its intermediate; where nobody can say, nothing is said."""
    below = Authority(tmp_path / "below", "Intermediate", authority)
    issued = below.issue("mail.test")
    trusted = f"smtpd_tls_CAfile = {authority.certificate}\n"
    (told,) = problems(tmp_path, trusted + pair(issued, issued))
    assert told.startswith(
        f"the chain in {issued.certificate} misses the certificate of /O=Tests/CN=Intermediate,"
    )
    issued.chain.chmod(0o600)
    whole = f"smtpd_tls_chain_files = {issued.chain}\n"
    assert problems(tmp_path, trusted + whole) == []
    other = authority.issue("other.test")
    (tmp_path / "odd.pem").write_bytes(
        issued.key.read_bytes() + issued.certificate.read_bytes() + other.certificate.read_bytes()
    )
    (tmp_path / "odd.pem").chmod(0o600)
    assert len(problems(tmp_path, f"{trusted}smtpd_tls_chain_files = {tmp_path}/odd.pem\n")) == 1
    self_signed = authority.self_signed("self.test")
    assert problems(tmp_path, trusted + pair(self_signed, self_signed)) == []


def records(*issued: Issued) -> list[str]:
    return [f"3 1 1 {hashlib.sha256(one.public_key()).hexdigest()}" for one in issued]


def test_records(tmp_path: Path, authority: Authority) -> None:
    below = Authority(tmp_path / "below", "Intermediate", authority)
    issued, other = below.issue("mail.test"), below.issue("other.test")
    config = configured(tmp_path, f"smtpd_tls_chain_files = {issued.chain}\n")

    def said(*found: str | None) -> list[str]:
        answers = Answers(*found)
        told = list(dane_problems(config, answers))
        assert answers.asked == ["_25._tcp.mail.test TLSA"]
        return told

    wrong = [
        f"no TLSA record of _25._tcp.mail.test fits the certificate in {issued.chain}:"
        " whoever uses DANE sends no mail"
    ]
    intermediate = below.own.der()
    full: Sequence[str] = [
        f"3 0 0 {issued.der().hex()}",
        f"3 0 2 {hashlib.sha512(issued.der()).hexdigest()}",
        f"2 0 1 {hashlib.sha256(intermediate).hexdigest()}",
    ]
    for right in (*records(issued), *full):
        assert said(right) == said(*records(other), right) == []
    assert said(*records(other)) == wrong
    assert said(f"2 0 1 {hashlib.sha256(issued.der()).hexdigest()}") == wrong
    assert said() == said(None) == said("1 1 1 00", "nonsense") == []
