"""Certificates that are renewed: which new ones are good, and what is used when they are not."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from libmail.config import Config
from libmail.config.main_cf import parse_main_cf
from libmail.config.master_cf import parse_master_cf
from libmail.files.approved import ApprovedFiles
from libmail.tables.file_values import named_files
from libmail.tls.certificate_files import AUTHORITIES, HASHED, CertificateFiles
from libmail.tls.errors import TlsConfigError
from libmail.tls.renewal import Certificates, problem_of
from libmail.tls.watched_files import watched_files
from tests.certificates import Authority, Issued


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Pair:
    """A certificate and a key in files that change."""

    def __init__(self, folder: Path, issued: Issued) -> None:
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.files = CertificateFiles((str(self.certificate), str(self.key)), "ECDSA")
        self.write(issued, issued)

    def write(self, certificate: Issued, key: Issued) -> None:
        self.certificate.write_bytes(certificate.certificate.read_bytes())
        self.key.write_bytes(key.key.read_bytes())


def test_problems(tmp_path: Path, authority: Authority) -> None:
    good, other = authority.issue("mail.test"), authority.issue("other.test")
    pair = Pair(tmp_path, good)
    assert problem_of(pair.files, pair.files.read()) == ""
    pair.write(good, other)
    assert problem_of(pair.files, pair.files.read()) == (
        f"ECDSA private key in {pair.key} does not match public key in {pair.certificate}"
    )
    pair.write(expired := authority.issue("mail.test", days=-1), expired)
    assert problem_of(pair.files, pair.files.read()).endswith("cert.pem has expired")
    pair.write(good, good)
    whole = pair.certificate.read_bytes()
    for length in (0, 100, len(whole) - 5):
        pair.certificate.write_bytes(whole[:length])
        assert problem_of(pair.files, pair.files.read())
    chain = CertificateFiles((str(good.chain),))
    assert problem_of(chain, (good.chain.read_bytes() + b"-----BEGIN CERTIFICATE-----\nMII",)) == (
        f"{good.chain} is not complete"
    )


def test_what_a_new_process_uses(tmp_path: Path, authority: Authority) -> None:
    """What is in the files; what was approved before only where that is better."""
    old, new = authority.issue("old.test"), authority.issue("new.test")
    pair = Pair(tmp_path, new)
    approved = ApprovedFiles()

    def used() -> bytes:
        (chain,) = Certificates(approved).chains_of([pair.files])
        return chain.certificate.der()

    assert used() == new.der()
    approved.replace({pair.files.key: (old.certificate.read_bytes(), old.key.read_bytes())})
    assert used() == new.der()
    pair.write(new, old)
    assert used() == old.der()
    pair.key.unlink()
    assert used() == old.der()
    expired = authority.issue("late.test", days=-1)
    pair.write(expired, expired)
    assert used() == old.der()
    approved.replace({pair.files.key: (expired.certificate.read_bytes(), expired.key.read_bytes())})
    pair.write(bad := authority.issue("later.test", days=-1), bad)
    assert used() == bad.der()  # it is no worse
    pair.certificate.unlink()
    with pytest.raises(
        TlsConfigError, match=r'cannot get ECDSA certificate from file ".*": No such'
    ):
        used()


def test_one_that_cannot_be_used_is_waited_for(tmp_path: Path, authority: Authority) -> None:
    good = authority.issue("mail.test")
    pair = Pair(tmp_path, good)
    pair.certificate.write_bytes(b"")
    approved = ApprovedFiles()
    with pytest.raises(TlsConfigError):
        Certificates(approved).chains_of([pair.files])
    approved.replace({pair.files.key: (good.certificate.read_bytes(), good.key.read_bytes())})
    assert approved.replaced == str(pair.certificate)


def test_values_of_tables(tmp_path: Path, authority: Authority) -> None:
    good = authority.issue("mail.test").chain.read_bytes()
    file = tmp_path / "chain.pem"
    file.write_bytes(good)
    approved = ApprovedFiles()
    assert base64.b64decode(Certificates(approved).value(f"{file}")) == good
    approved.replace({("", str(file)): (good,)})
    file.write_bytes(good[:-10])
    assert base64.b64decode(Certificates(approved).value(f"{file}")) == good
    assert base64.b64decode(Certificates().value(f"{file}")) == good[:-10]


def test_authorities(tmp_path: Path, authority: Authority) -> None:
    """A file that is being written does not replace one that was good."""
    good = authority.certificate.read_bytes()
    file, folder = tmp_path / "ca.pem", tmp_path / "hashed"
    file.write_bytes(good)
    folder.mkdir()
    approved = ApprovedFiles()

    def trusted() -> int:
        found = Certificates(approved).authorities(str(file), str(folder), defaults=False)
        return len(found.names)

    assert trusted() == 1
    of_file, of_folder = (CertificateFiles((str(path),), kind)
                          for path, kind in ((file, AUTHORITIES), (folder, HASHED)))  # fmt: skip
    before = of_folder.read()
    approved.replace({of_file.key: (good,), of_folder.key: before})
    assert approved.replaced == ""
    for bad in (good[:-10], b"", b"nothing\n"):
        file.write_bytes(bad)
        assert problem_of(of_file, (bad,))
        assert trusted() == 1
    file.write_bytes(good * 2)
    assert problem_of(of_file, (good * 2,)) == ""
    assert trusted() == 2
    (folder / "01234567.0").write_bytes(good)
    (folder / "12345678.0").symlink_to("nowhere")
    assert of_folder.read() != before
    assert problem_of(of_folder, of_folder.read()) == ""
    approved.replace({of_folder.key: of_folder.read()})
    assert approved.replaced == str(folder)
    trusted()
    assert approved.replaced == ""


def test_tables_of_patterns(tmp_path: Path) -> None:
    rules = tmp_path / "sni"
    rules.write_text(
        "# comment\n/^a[.]b\\/ c/ig /a.key, /a.pem\nif /x/\n!,x,!  ,y,i /b.pem\nendif\n"
        "/one/!/two/x  /c.key\n  /c.pem\n/unfinished /d.pem\n/nothing/\n"
    )
    assert [names for names in named_files(str(rules), patterns=True) if names] == [
        ("/a.key", "/a.pem"),
        ("/b.pem",),
        ("/c.key", "/c.pem"),
    ]


def test_what_the_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("/\\.z$/ /z.pem\n")
    (tmp_path / "sni").write_text("# comment\na.test /a.key, /a.pem\nbad\n.b.test /b.pem\n")
    main = f"""
smtpd_tls_cert_file = /c.pem
smtpd_tls_key_file = $smtpd_tls_cert_file
smtpd_tls_eccert_file = none
smtp_tls_chain_files = /one.pem, /two.pem
smtpd_tls_CAfile = /ca.pem
smtp_tls_CApath = /hashed
tls_server_sni_maps = hash:{tmp_path}/sni inline:{{x.test=/x.pem, {{y.test = /y.key /y.pem}}}}
    pcre:{tmp_path}/patterns
"""
    master = "465 inet n - n - - smtpd -o smtpd_tls_cert_file=/d.pem -o smtpd_tls_key_file=/d.key\n"
    entries = parse_master_cf(master, "master.cf")

    def found(text: str) -> set[tuple[str, ...]]:
        settings, _ = parse_main_cf(text, "main.cf")
        return {files.key for files in watched_files(Config("/etc/postfix", settings), entries)}

    assert found(main) == {
        ("RSA", "/c.pem", "/c.pem"),
        ("RSA", "/d.pem", "/d.key"),
        ("", "/one.pem", "/two.pem"),
        ("", "/a.key", "/a.pem"),
        ("", "/b.pem"),
        ("", "/x.pem"),
        ("", "/y.key", "/y.pem"),
        ("", "/z.pem"),
        ("CAfile", "/ca.pem"),
        ("CApath", "/hashed"),
    }
    assert found(f"{main}tls_auto_reload = no\n") == set()
