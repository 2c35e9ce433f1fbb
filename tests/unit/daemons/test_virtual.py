"""virtual(8): mailboxes that tables name, and mistakes in the configuration, which wait."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from daemons.virtual import MailboxDelivery, prepare
from libmail.agents.delivery import Bounced, Deferred, Outcome, Sent
from libmail.config import open_config
from libmail.service.skeleton import Startup
from tests.unit.daemons.smtp.bench import Bench, RecordedDelivery

MAILBOXES = "inline:{ {a@v.test=a/}, {b@v.test=b}, {up@v.test=../b} }"


def outcomes(folder: Path, *recipients: str, **settings: str) -> dict[str, Outcome]:
    bench = Bench(folder)
    values = {
        "myhostname": "mail.test",
        "virtual_mailbox_maps": MAILBOXES,
        "virtual_mailbox_base": f"{folder}/vmail",
        "virtual_uid_maps": f"static:{os.getuid()}",
        "virtual_gid_maps": f"static:{os.getgid() or 1}",
        "virtual_minimum_uid": "1",
        **settings,
    }
    (folder / "main.cf").write_text("".join(f"{n} = {v}\n" for n, v in values.items()))
    prepared = prepare(Startup(open_config(str(folder)), "virtual", ()))
    delivery = bench.delivery("v.test", recipients)
    assert isinstance(delivery, RecordedDelivery)

    async def deliver() -> None:
        await MailboxDelivery(prepared).deliver(delivery)

    with delivery.file:
        asyncio.run(deliver())
    return delivery.outcomes


@pytest.mark.skipif(os.getuid() == 0, reason="root is below virtual_minimum_uid")
def test_delivery(tmp_path: Path) -> None:
    (tmp_path / "vmail").mkdir()
    found = outcomes(tmp_path, "a@v.test", "B@V.test", "c@v.test")
    assert [type(one) for one in found.values()] == [Sent, Sent, Bounced]
    (message,) = (tmp_path / "vmail/a/new").iterdir()
    assert b"\nDelivered-To: a@v.test\n" in message.read_bytes()
    assert (tmp_path / "vmail/b").read_bytes().startswith(b"From a@example.org  ")


@pytest.mark.parametrize(
    ("settings", "dsn"),
    [
        ({"virtual_mailbox_base": ""}, "4.3.5"),
        ({"virtual_mailbox_base": "vmail"}, "4.3.5"),
        ({"virtual_mailbox_maps": "fail:x"}, "4.3.5"),
        ({"virtual_uid_maps": ""}, "4.3.5"),
        ({"virtual_uid_maps": "static:nobody"}, "4.3.5"),
        ({"virtual_uid_maps": "static:0"}, "4.3.5"),
        ({"virtual_uid_maps": f"static:{2**32 - 1}"}, "4.3.5"),  # setresuid(2): as it is, so root
        ({"virtual_uid_maps": f"static:{2**32}"}, "4.3.5"),  # 0, where an id has 32 bits
        ({"virtual_gid_maps": f"static:{'9' * 5000}"}, "4.3.5"),
        ({"virtual_gid_maps": "fail:x"}, "4.3.5"),
    ],
)
@pytest.mark.parametrize("recipient", ["a@v.test", "b@v.test"])
def test_mistakes_wait(tmp_path: Path, settings: dict[str, str], dsn: str, recipient: str) -> None:
    outcome = outcomes(tmp_path, recipient, **settings)[recipient]
    assert isinstance(outcome, Deferred)
    assert (outcome.dsn, outcome.reason) == (dsn, "mail system configuration error")
    assert not (tmp_path / "vmail").exists()
    assert sorted(os.listdir(tmp_path)) == ["active", "main.cf"]
