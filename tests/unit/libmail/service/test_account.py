"""Who the services that face the network are."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from libmail.config import Config
from libmail.log import Fatal
from libmail.privileges import Identity, Jail
from libmail.service import account
from libmail.service.account import network_account
from libmail.service.skeleton import Launch, Runtime, Startup

OWNER = Identity("owner", 100, 101, (101, 7))
ACCOUNTS = {
    "net": Identity("net", 200, 201, (201, 7)),
    "alias": Identity("alias", 100, 201, (201,)),
    "toor": Identity("toor", 0, 0, (0,)),
}


def config(name: str) -> Config:
    return Config("/etc/postfix").override([("mail_network_user", name)])


@pytest.fixture(autouse=True)
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "identity_of", lambda name: ACCOUNTS[name])


def test_it_has_the_group_of_mail_owner_and_all_groups() -> None:
    found = network_account(config("net"), OWNER, privileged=True)
    assert found == Identity("net", 200, 101, (101, 7, 201))


@pytest.mark.parametrize("name", ["alias", "unknown"])
def test_mail_owner_stands_in(name: str) -> None:
    assert network_account(config(name), OWNER, privileged=True) is OWNER


def test_without_root_nobody_else_can_be_become() -> None:
    assert network_account(config("net"), OWNER, privileged=False) is OWNER


def test_never_root() -> None:
    with pytest.raises(Fatal, match="mail_network_user: user toor has privileged user ID 0"):
        network_account(config("toor"), OWNER, privileged=True)


def test_who_is_believed() -> None:
    asyncio.run(_who_is_believed())


async def _who_is_believed() -> None:
    with socket.socket() as status:
        launch = Launch(
            listeners=(), status=status, generation=1, capacity=1, max_use=0, max_idle=0.0,
            jail=Jail(None, None, no_new_privs=True), owner=100, network=200,
        )  # fmt: skip
        startup = Startup(config("net"), "test", ())
        other = Runtime(startup, launch)
        assert other.trusted == {0, 100, os.geteuid()}
        assert other.network == {200}
        ours = Runtime(startup, replace(launch, network=os.geteuid(), owner=100))
        assert (ours.trusted | ours.network) == {0, 100, os.geteuid()}
        alone = Runtime(startup, replace(launch, network=100))
        assert alone.network == frozenset()
