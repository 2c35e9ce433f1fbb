"""Which peers are logged how much."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from libmail.config import open_config
from libmail.log import LOG
from libmail.tables.table import TableOptions
from libmail.tls.errors import TlsConfigError
from libmail.tls.loglevel import LogLevel, LogLevels, open_loglevels

TABLES = """
    inline:{{mx.a.test=2}, {.b.test=3}, {c.test=4}, {192.0.2=2}, {192.0.2.7=DUNNO},
        {2001:db8=3}, {x.test=loud}}
    pcre:{{/^mx\\.pattern\\.test$$/ 4} {/^\\.pattern/ 3} {/^203\\.0\\.113\\.5$$/ 1}}
"""


def levels(folder: Path, tables: str = TABLES, *more: str) -> LogLevels:
    lines = [f"smtp_tls_loglevel_maps = {' '.join(tables.split())}", *more, ""]
    (folder / "main.cf").write_text("\n".join(lines))
    return open_loglevels(open_config(str(folder)), "smtp_tls_loglevel_maps", "0", TableOptions())


def of(found: LogLevels, name: str, address: str) -> int:
    return asyncio.run(found.of(name, address)).level


@pytest.mark.parametrize(
    ("name", "address", "level"),
    [
        ("mx.a.test", "198.51.100.1", 2),
        ("MX.A.test", "198.51.100.1", 2),
        ("a.test", "198.51.100.1", 0),
        ("mx.mail.b.test", "192.0.2.1", 3),
        ("b.test", "198.51.100.1", 0),
        ("mx.c.test", "198.51.100.1", 0),
        ("unknown", "192.0.2.1", 2),
        ("", "192.0.2.7", 0),
        ("192.0.2.1", "192.0.2.1", 2),
        ("unknown", "2001:db8::1", 3),
        ("unknown", "2001:db8:1:2::", 3),
        ("unknown", "::1", 0),
        ("mx.pattern.test", "198.51.100.1", 4),
        ("other.pattern.test", "203.0.113.5", 1),
        ("mail.test", "/run/socket", 0),
    ],
)
def test_tables(tmp_path: Path, name: str, address: str, level: int) -> None:
    assert of(levels(tmp_path), name, address) == level


def test_parents_without_a_dot(tmp_path: Path) -> None:
    found = levels(tmp_path, TABLES, "parent_domain_matches_subdomains = smtp_tls_loglevel_maps")
    assert of(found, "mx.c.test", "198.51.100.1") == 4
    assert of(found, "mx.mail.b.test", "198.51.100.1") == 0


def test_no_tables(tmp_path: Path) -> None:
    assert of(levels(tmp_path, ""), "mx.a.test", "192.0.2.1") == 0


@pytest.mark.parametrize("tables", [TABLES, "fail:broken"])
def test_trouble_costs_no_session(tmp_path: Path, tables: str) -> None:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtp")
    assert of(levels(tmp_path, tables), "x.test", "198.51.100.1") == 0
    assert any("smtp_tls_loglevel_maps" in line for line in logged)


def test_a_level_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("")
    with pytest.raises(TlsConfigError):
        open_loglevels(open_config(str(tmp_path)), "smtp_tls_loglevel_maps", "loud", TableOptions())
    assert LogLevel(0) == asyncio.run(levels(tmp_path).of("", ""))
