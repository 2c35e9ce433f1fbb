"""Caches of verify and postscreen in memcached: alone, behind proxymap, with a file behind it."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.servers import Memcached

KINDS = ("memcache:", "proxy:memcache:")


@pytest.fixture
def memcached() -> Iterator[Memcached]:
    server = Memcached()
    yield server
    server.close()


def client_file(system: MailSystem, memcached: Memcached, *, backup: bool) -> str:
    path = system.top / "etc/cache"
    behind = [f"backup = lmdb:{system.top}/data/cache"] if backup else []
    path.write_text(memcached.client_file("key_format = test:%s", *behind))
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backup", [False, True])
def test_verify(make_system: MakeSystem, memcached: Memcached, kind: str, backup: bool) -> None:
    system = make_system(
        main={
            "smtpd_recipient_restrictions": "reject_unverified_recipient",
            "address_verify_poll_delay": "1s",
            "address_verify_poll_count": "60",
        }
    )
    spec = kind + client_file(system, memcached, backup=backup)
    system.configure({"address_verify_map": spec})
    system.start()
    me = f"{system.user.pw_name}@{system.name}"
    for _ in range(2):
        with system.smtp() as client:
            client.ehlo()
            client.mail("a@remote.test")
            assert client.rcpt(me)[0] == 250
        system.halt()
        system.start()
    assert len(system.log_lines("status=deliverable")) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backup", [False, True])
def test_postscreen(make_system: MakeSystem, memcached: Memcached, kind: str, backup: bool) -> None:
    system = make_system()
    spec = kind + client_file(system, memcached, backup=backup)
    system.configure(
        {
            "postscreen_cache_map": spec,
            "postscreen_access_list": "",
            "postscreen_greet_wait": "1s",
            "postscreen_greet_action": "enforce",
        },
        [
            f"127.0.0.1:{system.smtp_port} inet n - n - 1 postscreen",
            "smtpd pass - - n - - smtpd",
            "dnsblog unix - - n - 0 dnsblog",
        ],
    )
    system.start()
    for word in ("NEW", "OLD"):
        with smtplib.SMTP("127.0.0.1", system.smtp_port, timeout=120) as client:
            client.noop()
        system.wait_for_log(f"PASS {word} ")
        system.halt()
        system.start()
