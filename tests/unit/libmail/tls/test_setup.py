"""From main.cf to contexts."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libmail.config import Config, open_config
from libmail.tls.anchors import Anchors
from libmail.tls.client_params import ClientTlsParams
from libmail.tls.client_setup import client_settings
from libmail.tls.config_file import use_config_file
from libmail.tls.context import Ask, ClientContext, ServerContext, ServerSettings
from libmail.tls.dane import Tlsa
from libmail.tls.errors import TlsConfigError
from libmail.tls.levels import Level
from libmail.tls.params import ServerTlsParams, TlsParams
from libmail.tls.renewal import Certificates
from libmail.tls.server_level import server_level
from libmail.tls.server_setup import server_settings
from libmail.tls.settings import Protocols, session_seconds
from tests.certificates import Authority


def config(tmp_path: Path, **settings: str) -> Config:
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (tmp_path / "main.cf").write_text("\n".join(["compatibility_level = 3.12", *lines, ""]))
    return open_config(str(tmp_path))


def server(tmp_path: Path, level: Level = Level.MAY, **settings: str) -> ServerSettings:
    loaded = config(tmp_path, **settings)
    params, common = loaded.load(ServerTlsParams), loaded.load(TlsParams)
    return server_settings(
        params, common, level, session_context=b"smtpd", tickets=None, certificates=Certificates()
    )


@pytest.mark.parametrize(
    ("settings", "level", "warning"),
    [
        ({}, Level.NONE, ""),
        ({"smtpd_tls_security_level": "may"}, Level.MAY, ""),
        ({"smtpd_tls_security_level": "Encrypt"}, Level.ENCRYPT, ""),
        ({"smtpd_use_tls": "yes"}, Level.MAY, ""),
        ({"smtpd_enforce_tls": "yes"}, Level.ENCRYPT, ""),
        ({"smtpd_tls_wrappermode": "yes"}, Level.ENCRYPT, ""),
        ({"smtpd_tls_wrappermode": "yes", "smtpd_tls_security_level": "may"}, Level.ENCRYPT, ""),
        ({"smtpd_tls_security_level": "secure"}, Level.ENCRYPT,
         'smtpd_tls_security_level: unsupported TLS level "secure", using "encrypt"'),
        ({"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": ""}, Level.MAY,
         "No server certs available. TLS won't be enabled"),
        ({"smtpd_tls_security_level": "may", "smtpd_tls_cert_file": "none"}, Level.MAY, ""),
        ({"smtpd_tls_security_level": "may", "smtpd_tls_req_ccert": "yes"}, Level.MAY,
         "Can't require client certs unless TLS is required"),
    ],
)  # fmt: skip
def test_server_level(tmp_path: Path, settings: dict[str, str], level: Level, warning: str) -> None:
    loaded = config(tmp_path, **({"smtpd_tls_cert_file": "/x"} | settings))
    decided = server_level(loaded.load(ServerTlsParams))
    assert decided.level is level
    assert decided.warnings == ((warning,) if warning else ())
    assert decided.usable is not warning.startswith("No server certs")


def test_server_level_that_is_none(tmp_path: Path) -> None:
    params = config(tmp_path, smtpd_tls_security_level="bogus").load(ServerTlsParams)
    with pytest.raises(TlsConfigError, match='Invalid TLS level "bogus"'):
        server_level(params)


def test_server_of_a_site(authority: Authority, tmp_path: Path) -> None:
    """What distributions and books write."""
    issued = authority.issue("mx.example.com", kind="rsa")
    settings = server(
        tmp_path,
        smtpd_tls_cert_file=str(issued.chain),
        smtpd_tls_key_file="$smtpd_tls_cert_file",
        smtpd_tls_protocols="!SSLv2, !SSLv3, !TLSv1, !TLSv1.1",
        smtpd_tls_exclude_ciphers="aNULL, eNULL, EXPORT, DES, RC4",
        smtpd_tls_eecdh_grade="strong",
        tls_preempt_cipherlist="yes",
        tls_ssl_options="NO_COMPRESSION, NO_RENEGOTIATION",
        tls_high_cipherlist="HIGH",
        tls_medium_cipherlist="MEDIUM:HIGH",
    )
    assert settings.ciphers == "MEDIUM:HIGH:!aNULL:!eNULL:!EXPORT:!DES:!RC4"
    assert settings.groups == ("prime256v1", "ffdhe2048", "ffdhe3072")
    assert settings.options == 1 << 17 | 1 << 30
    assert settings.preempt
    assert settings.ask is Ask.NO
    assert ServerContext(settings).warnings == []


def test_defaults_work(authority: Authority, tmp_path: Path) -> None:
    """Every default of the parameters is one that the library takes."""
    issued = authority.issue("mx.example.com")
    context = ServerContext(server(tmp_path, smtpd_tls_chain_files=str(issued.chain)))
    assert context.warnings == []
    loaded = config(tmp_path)
    for prefix in (None, ("smtp_", "lmtp_")):
        settings = client_settings(
            loaded.load(ClientTlsParams, prefix), loaded.load(TlsParams), Certificates()
        )
        assert ClientContext(settings).warnings == []


def test_mandatory_settings(tmp_path: Path) -> None:
    own = {
        "tls_high_cipherlist": "H",
        "tls_medium_cipherlist": "M",
        "smtpd_tls_mandatory_ciphers": "high",
        "smtpd_tls_mandatory_exclude_ciphers": "RC4",
        "smtpd_tls_mandatory_protocols": "$smtpd_tls_protocols <=TLSv1.2",
        "smtpd_tls_protocols": ">=TLSv1.1",
    }
    may, must = server(tmp_path, Level.MAY, **own), server(tmp_path, Level.ENCRYPT, **own)
    assert (may.ciphers, may.protocols) == ("M", Protocols(0x0302))
    assert (must.ciphers, must.protocols) == ("H:!RC4", Protocols(0x0302, 0x0303))


def test_client_certificates(tmp_path: Path) -> None:
    asked = server(tmp_path, smtpd_tls_ask_ccert="yes", tls_medium_cipherlist="M")
    assert (asked.ask, asked.ciphers) == (Ask.YES, "M:!aNULL")
    for level, ask in ((Level.MAY, Ask.NO), (Level.ENCRYPT, Ask.REQUIRE)):
        assert server(tmp_path, level, smtpd_tls_req_ccert="yes").ask is ask


def test_two_algorithms(authority: Authority, tmp_path: Path) -> None:
    rsa, ec = authority.issue("mx.example.com", kind="rsa"), authority.issue("mx.example.com")
    settings = server(
        tmp_path,
        smtpd_tls_cert_file=str(rsa.certificate),
        smtpd_tls_key_file=str(rsa.key),
        smtpd_tls_eccert_file=str(ec.certificate),
        smtpd_tls_eckey_file=str(ec.key),
    )
    assert [chain.key.kind() for chain in settings.chains] == ["RSA", "EC"]
    newer = server(tmp_path, smtpd_tls_cert_file="/x", smtpd_tls_chain_files=f"{ec.chain} ")
    assert [chain.key.kind() for chain in newer.chains] == ["EC"]


def test_time_of_sessions() -> None:
    for given, kept in ((0, 0), (-1, 0), (1, 120), (3600, 3600), (10**8, 100 * 86400)):
        assert session_seconds(given) == kept


def test_anchors(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue("mx.example.com")
    both = tmp_path / "both"
    key = "-----BEGIN PUBLIC KEY-----\n{}-----END PUBLIC KEY-----\n"
    both.write_text(
        authority.certificate.read_text()
        + key.format(base64.encodebytes(issued.public_key()).decode())
    )
    anchors = Anchors([str(both)])
    wanted = (Tlsa(2, 0, 0, authority.own.der()), Tlsa(2, 1, 0, issued.public_key()))
    assert anchors.of([str(both)]) == wanted
    both.unlink()
    assert anchors.of([str(both)]) == wanted  # as in a jail
    for path, words in (("/x", "error opening trust anchor file: /x: No such"),
                        (str(issued.key), "unexpected PRIVATE KEY"),
                        ("/dev/null", "no certificate or public key")):  # fmt: skip
        with pytest.raises(TlsConfigError, match=words):
            Anchors([path])


def lowest_version(directory: Path, file: str, name: str) -> str:
    """What the library says, in a process of its own, after a file was read."""
    code = (
        "import hashlib\n"
        "from libmail.tls.config_file import use_config_file\n"
        "from libmail.tls.library import FFI, SSL\n"
        f"use_config_file({file!r}, {name!r})\n"
        "context = SSL.SSL_CTX_new(SSL.TLS_client_method())\n"
        "print(hex(SSL.SSL_CTX_ctrl(context, 130, 0, FFI.NULL)))\n"
    )
    environment = os.environ | {"OPENSSL_CONF": str(directory / "default.cnf")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_configuration_files(tmp_path: Path) -> None:
    def section(name: str, version: str) -> str:
        lines = (f"[{name}]", f"ssl_conf = {name}_s", f"[{name}_s]", f"system_default = {name}_d")
        return "\n".join([*lines, f"[{name}_d]", f"MinProtocol = {version}", ""])

    plain = "openssl_conf = o\n" + section("o", "TLSv1.1")
    (tmp_path / "default.cnf").write_text(plain)
    (tmp_path / "own.cnf").write_text(
        "postfix = p\nother = q\n" + plain + section("p", "TLSv1.3") + section("q", "TLSv1.2")
    )
    own = str(tmp_path / "own.cnf")
    for file, name, version in (
        ("default", "", "0x302"),
        ("none", "", "0x0"),
        (own, "", "0x304"),
        (own, "other", "0x303"),
    ):
        assert lowest_version(tmp_path, file, name) == version, (file, name)


def test_configuration_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(TlsConfigError, match="tls_config_file = x is not an absolute pathname"):
        use_config_file("x", "")
