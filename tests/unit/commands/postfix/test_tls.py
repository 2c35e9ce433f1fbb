"""postfix tls: keys, certificates and records, made and read by openssl(1)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from commands.postfix.keypairs import ALGORITHMS, OpenSsl
from commands.postfix.tls import manage_tls
from libmail.config import Config, open_config
from libmail.log import LOG, Fatal
from libmail.tls.pem import load_pair
from tests.certificates import Authority, openssl

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration, and a postconf that changes it."""
    LOG.open(lambda severity, head, text: None, "postfix/postfix-script")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/postconf"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from commands.postconf import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    script.chmod(0o755)
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.11\nmyhostname = mail.example.org\n"
        f"command_directory = {tmp_path}/bin\n"
    )
    (tmp_path / "master.cf").write_text("")
    return tmp_path


@pytest.fixture(autouse=True)
def _own_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "commands.postfix.tls.program_directory", lambda config, name: f"{tmp_path}/bin"
    )
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)


def run(folder: Path, *words: str) -> int:
    return manage_tls(open_config(str(folder)), words)


def made(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*.pem"))


def settings(folder: Path) -> Config:
    return open_config(str(folder))


def test_client(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "all-default-client") == 0
    assert run(folder, "enable-client", "-r", "dev:/dev/random") == 0
    config = settings(folder)
    assert config.text("smtp_tls_security_level") == "may"
    assert config.raw("smtp_tls_session_cache_database") == "lmdb:${data_directory}/smtp_scache"
    assert "-r is ignored" in capsys.readouterr().err
    before = (folder / "main.cf").read_text()
    assert run(folder, "all-default-client") == 1
    assert run(folder, "all-default-server") == 0
    capsys.readouterr()
    assert run(folder, "enable-client") == 0
    assert "*** Non-default SMTP client TLS settings detected" in capsys.readouterr().err
    assert (folder / "main.cf").read_text() == before


def test_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "enable-server", "a.example.org", "b.example.org") == 0
    (certificate,), (key,) = made(folder, "cert"), made(folder, "key")
    config = settings(folder)
    assert config.text("smtpd_tls_security_level") == "may"
    assert config.text("smtpd_tls_cert_file") == str(certificate)
    assert config.text("smtpd_tls_key_file") == str(key)
    load_pair(str(certificate), str(key), "RSA")
    assert key.stat().st_mode & 0o777 == 0o600
    told = openssl("x509", "-in", str(certificate), "-noout", "-text").decode()
    assert "DNS:a.example.org, DNS:b.example.org" in told
    assert re.search("Subject: CN ?= ?a.example.org", told)
    before = (folder / "main.cf").read_text()
    assert run(folder, "enable-server") == 0
    assert (folder / "main.cf").read_text() == before
    assert "*** Non-default SMTP server" in capsys.readouterr().err


def test_another_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "new-server-key", "-a", "ecdsa", "-b", "secp384r1") == 0
    (certificate,), (key,) = made(folder, "eccert"), made(folder, "eckey")
    deploy = f"postlog:   # postfix tls deploy-server-cert {certificate} {key}\n"
    assert deploy in capsys.readouterr().err
    assert not settings(folder).text("smtpd_tls_eccert_file")
    assert run(folder, "deploy-server-cert", certificate.name, key.name) == 0
    assert settings(folder).text("smtpd_tls_eckey_file") == str(key)
    capsys.readouterr()
    assert run(folder, "output-server-tlsa", "-h", "mx.example.org") == 0
    digest = OpenSsl(settings(folder)).digest(str(key))
    assert capsys.readouterr().out == (
        f"; {key}\n_25._tcp.mx.example.org. IN TLSA 3 1 1 {digest}\n"
    )


def test_certificate_for_the_key_in_use(folder: Path, tmp_path: Path) -> None:
    issued = Authority(tmp_path / "ca").issue("mail.example.org", kind="rsa")
    with (folder / "main.cf").open("a") as file:
        file.write(f"smtpd_tls_cert_file = {issued.certificate}\n")
        file.write(f"smtpd_tls_key_file = {issued.key}\n")
    assert run(folder, "new-server-cert", "new.example.org") == 0
    (key,) = made(folder, "key")
    assert key.read_bytes() == issued.key.read_bytes()
    assert run(folder, "new-server-cert", "-a", "ecdsa") == 0  # there is none yet
    assert len(made(folder, "eckey")) == 1


def test_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "new-server-key")
    (key,) = made(folder, "key")
    capsys.readouterr()
    assert run(folder, "output-server-csr", "-k", key.name, "x.example.org") == 0
    request = capsys.readouterr().out.encode()
    assert b"DNS:x.example.org" in openssl("req", "-noout", "-text", "-verify", stdin=request)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "usage: postfix tls enable-client (or enable-server, new-server-key, "),
        (["nonsense"], "usage: postfix tls enable-client (or "),
        (["all-default-client", "x"], "usage: postfix tls all-default-client"),
        (["new-server-key", "-x"], "usage: postfix tls new-server-key [-a algorithm] [-b bits ]"),
        (["new-server-key", "-a", "dsa"], "Unsupported public key algorithm: dsa"),
        (["new-server-key", "-b", "x"], "openssl genpkey: "),
        (["new-server-key", "a,DNS:b"], "bad hostname: a,DNS:b"),
        (["deploy-server-cert", "one"], "usage: postfix tls deploy-server-cert certfile keyfile"),
        (["deploy-server-cert", "no", "none"], "no private key found in file: "),
        (["output-server-csr"], "No usable keyfile specified or configured"),
        (["output-server-tlsa", "nothing"], "no private key found in file: "),
    ],
)
def test_mistakes(folder: Path, words: list[str], complaint: str) -> None:
    with pytest.raises(Fatal) as caught:
        run(folder, *words)
    assert complaint in str(caught.value)


def test_what_does_not_fit_is_not_deployed(folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    one, other = authority.issue("a.example.org"), authority.issue("b.example.org")
    for certificate, complaint in ((other.certificate, "is not of the key"), (one.key, "no cert")):
        with pytest.raises(Fatal, match=complaint):
            run(folder, "deploy-server-cert", str(certificate), str(one.key))
    assert not settings(folder).text("smtpd_tls_eccert_file")


def test_no_openssl(folder: Path) -> None:
    with (folder / "main.cf").open("a") as file:
        file.write("openssl_path = no-such-program\n")
    with pytest.raises(Fatal, match=r"No working openssl\(1\) command found"):
        run(folder, "new-server-key")


def test_nobody_puts_another_file_in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20270101-000000")
    (folder / "key-20270101-000000.pem").symlink_to("/tmp/elsewhere")
    with pytest.raises(Fatal, match="File exists"):
        run(folder, "new-server-key")
    assert not os.path.exists("/tmp/elsewhere")


def test_algorithms_are_told_apart(tmp_path: Path, folder: Path) -> None:
    authority = Authority(tmp_path / "ca")
    found = OpenSsl(settings(folder))
    for kind, algorithm in (("rsa", ALGORITHMS[0]), ("ec", ALGORITHMS[1])):
        key = found.public_key(str(authority.issue("x.test", kind=kind).key))
        assert key is not None
        assert found.algorithm(key) is algorithm
    key = found.public_key(str(authority.issue("x.test", kind="ed25519").key))
    with pytest.raises(Fatal, match="Unsupported public key algorithm"):
        found.algorithm(key or b"")
