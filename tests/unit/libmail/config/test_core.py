"""main.cf as programs see it: types, families, overrides, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from libmail.config import Config, ConfigError, ExpansionError, open_config


def config(text: str, tmp_path: Path, **overrides: str) -> Config:
    (tmp_path / "main.cf").write_text(text)
    return open_config(str(tmp_path), tuple(overrides.items()), service_name="smtpd")


@dataclass(frozen=True, slots=True)
class SampleParams:
    smtp_helo_name: str
    smtp_helo_timeout: float
    smtp_tcp_port: str
    smtp_always_send_ehlo: bool
    mydestination: tuple[str, ...]
    mynetworks: str
    message_size_limit: int
    forward_path: str


@dataclass(frozen=True, slots=True)
class UnknownParams:
    no_such_parameter: str


@dataclass(frozen=True, slots=True)
class WrongTypeParams:
    message_size_limit: str


def test_load(tmp_path: Path) -> None:
    sample = config("myhostname = mx.a.example\nsmtp_helo_timeout = 2m\n", tmp_path).load(
        SampleParams
    )
    assert sample.smtp_helo_name == "mx.a.example"
    assert sample.smtp_helo_timeout == 120.0
    assert sample.mydestination == ("mx.a.example", "localhost.a.example", "localhost")
    assert sample.message_size_limit == 10240000
    assert sample.forward_path.startswith("$home/.forward${recipient_delimiter}")


def test_load_of_the_twins_with_another_prefix(tmp_path: Path) -> None:
    text = (
        "mynetworks = ::1/128, 10.0.0.0/8\nsmtp_helo_timeout = 2m\nlmtp_lhlo_timeout = 3m\n"
        "myhostname = x.example\n"
    )
    sample = config(text, tmp_path).load(SampleParams, ("smtp_", "lmtp_"))
    assert sample.smtp_helo_timeout == 180.0
    assert sample.mynetworks == "::1/128, 10.0.0.0/8"
    assert sample.smtp_tcp_port == "24"
    assert sample.smtp_always_send_ehlo is True


@pytest.mark.parametrize("cls", [UnknownParams, WrongTypeParams])
def test_records_that_do_not_fit_the_declarations(
    cls: type[UnknownParams | WrongTypeParams], tmp_path: Path
) -> None:
    with pytest.raises(TypeError):
        config("", tmp_path).load(cls)


def read(opened: Config, name: str) -> object:
    match name:
        case "smtpd_helo_required":
            return opened.bool(name)
        case "smtpd_timeout":
            return opened.seconds(name)
        case "inet_protocols":
            return opened.text("mynetworks")
        case _:
            return opened.int(name)


@pytest.mark.parametrize(("text", "seconds"), [("5", 5), ("5M", 300), ("5mh", 300), ("5m7", 300)])
def test_what_follows_the_unit_of_a_time_is_not_read(
    text: str, seconds: float, tmp_path: Path
) -> None:
    assert config(f"smtpd_timeout = {text}\n", tmp_path).seconds("smtpd_timeout") == seconds


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("smtpd_helo_required = maybe", "bad boolean configuration: smtpd_helo_required = maybe"),
        ("message_size_limit = 10k", "bad numerical configuration: message_size_limit = 10k"),
        ("smtpd_timeout = 5 m", "parameter smtpd_timeout: bad time value or unit: 5 m"),
        ("smtpd_timeout = m5", "parameter smtpd_timeout: bad time value or unit: m5"),
        ("smtpd_timeout = 5x", "parameter smtpd_timeout: bad time value or unit: 5x"),
        ("default_process_limit = 0", "invalid default_process_limit parameter value 0 < 1"),
        ("mail_owner =", "bad string length 0 < 1: mail_owner = "),
        ("inet_protocols = foo", 'unknown inet_protocols value "foo" in "foo"'),
        ("mynetworks_style = bar", "parameter mynetworks_style: unrecognized value: bar"),
    ],
)
def test_unusable_values(setting: str, complaint: str, tmp_path: Path) -> None:
    opened = config(f"# top\n{setting}\n", tmp_path)
    name = setting.partition(" ")[0]
    with pytest.raises(ConfigError) as caught:
        read(opened, name)
    assert str(caught.value).startswith(complaint)
    if name != "inet_protocols":
        assert f"{tmp_path}/main.cf, line 2: must be" in str(caught.value)


def test_families(tmp_path: Path) -> None:
    opened = config("default_destination_concurrency_limit = 7\nx_time_limit = 5m\n", tmp_path)
    assert opened.family("_destination_concurrency_limit", "smtp") == 7
    assert opened.family("_destination_concurrency_limit", "local") == 2
    assert opened.family("_time_limit", "x") == 300.0
    assert opened.family("_time_limit", "y") == 1000.0
    assert opened.family("_sessions_per_process", "smtpd") == 2000


def test_overrides_and_names(tmp_path: Path) -> None:
    opened = config("own = $mail_name\nbanner = <$own>\n", tmp_path, own="other")
    assert opened.text("banner") == "<other>"
    assert opened.expand("$banner$service_name") == "<other>smtpd"
    assert opened.is_set("own")
    assert not opened.is_set("mail_name")
    assert opened.text("no_such_name") == ""
    assert opened.raw("no_such_name") is None
    child = opened.override((("own", "child"),), service_name="submission")
    assert (child.text("banner"), child.text("service_name")) == ("<child>", "submission")
    assert opened.text("banner") == "<other>"


def test_host_and_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.uname_result(("Linux", "box", "1", "1", "x86_64"))
    monkeypatch.setattr("os.uname", lambda: system)
    assert config("", tmp_path).text("myhostname") == "box.localdomain"
    assert config("mydomain = a.example", tmp_path).text("myhostname") == "box.a.example"
    assert config("myhostname = mx.b.example", tmp_path).text("mydomain") == "b.example"
    assert config("myhostname = mx", tmp_path).text("mydomain") == "localdomain"


def test_warnings(tmp_path: Path) -> None:
    opened = config("foo = 1\nfoo = 2\nfoo = 2\nbar = 3\n", tmp_path)
    path = f"{tmp_path}/main.cf"
    assert opened.warnings() == (f"{path}, line 2: overriding earlier entry: foo=1",)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"open .*/main\.cf: No such file or directory"):
        open_config(str(tmp_path))


def test_malformed_reference_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ExpansionError, match=r"main\.cf, line 1: smtpd_banner: truncated"):
        config("smtpd_banner = ${x\n", tmp_path).text("smtpd_banner")


def test_import_is_cheap() -> None:
    heavy = "dataclasses re typing asyncio ctypes argparse enum"
    code = f"import sys, libmail.config; print([m for m in {heavy.split()!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, check=True)
    assert run.stdout == b"[]\n"
