"""Mail that must not travel in the clear waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from libmail.agents.delivery import Deferred, Sent
from tests.unit.daemons.smtp.bench import Bench, Server
from tests.unit.daemons.smtp.test_walk import one


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"smtp_tls_security_level": "may"}, True),
        ({"smtp_tls_security_level": "dane"}, True),
        ({"smtp_tls_security_level": "none", "smtp_enforce_tls": "yes"}, True),
        ({"smtp_tls_security_level": "encrypt"}, False),
        ({"smtp_tls_security_level": "dane-only"}, False),
        ({"smtp_tls_security_level": "secure"}, False),
        ({"smtp_tls_security_level": "misspelt"}, False),
        ({"smtp_tls_security_level": "", "smtp_enforce_tls": "yes"}, False),
    ],
)
def test_level(tmp_path: Path, settings: dict[str, Any], sent: bool) -> None:
    server = Server()
    outcome = one(Bench(tmp_path, **settings), server)
    assert isinstance(outcome, Sent if sent else Deferred)
    assert bool(server.sessions) == sent
    if isinstance(outcome, Deferred):
        assert (outcome.dsn, outcome.relay) == ("4.7.5", "none")
        assert outcome.reason == "TLS is required, but our TLS engine is unavailable"


@pytest.mark.parametrize(
    ("maps", "sent"),
    [
        ("static:{encrypt protocols=>=TLSv1.2}", False),
        ("static:{secure, match=x}", False),
        ("static:may", True),
        ("inline:{{example.org = encrypt}}", True),
        ("fail:1", False),
    ],
)
def test_policy_maps(tmp_path: Path, maps: str, sent: bool) -> None:
    outcome = one(Bench(tmp_path, smtp_tls_policy_maps=maps), Server())
    assert isinstance(outcome, Sent if sent else Deferred)


def test_policy_overrides_level(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "smtp_tls_policy_maps": "static:none",
        "smtp_tls_security_level": "encrypt",
    }
    assert isinstance(one(Bench(tmp_path, **settings), Server()), Sent)


def test_lmtp(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lmtp=True, lmtp_tls_security_level="encrypt")
    assert isinstance(one(bench, Server(lmtp=True)), Deferred)
