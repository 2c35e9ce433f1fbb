"""HAProxy before smtpd and postscreen: both hear of the clients themselves, by PROXY v1 and v2."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import free_port, need_tool
from tests.system.servers import Server

MESSAGE = b"Subject: through a proxy\r\n\r\nbody\r\n"
CONFIG = """\
global
  maxconn 100
defaults
  mode tcp
  timeout connect 60s
  timeout client 60s
  timeout server 60s
"""
PROXY = """\
listen {name}
  bind 127.0.0.1:{port}
  server mail 127.0.0.1:{target} {how} check inter 500
"""


class Haproxy(Server):
    """HAProxy with two doors to one server: for PROXY v1 (port) and v2 (second)."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.second = free_port()
        super().__init__()

    def certify(self, name: str) -> Path:
        """It needs none."""
        return self.top / name

    def prepare(self) -> None:
        """Both doors, with health checks."""
        doors = (("v1", self.port, "send-proxy"), ("v2", self.second, "send-proxy-v2"))
        text = "".join(
            PROXY.format(name=name, port=port, target=self.target, how=f"{how} check-{how}")
            for name, port, how in doors
        ).replace(" check-send-proxy-v2", " check-send-proxy")
        (self.top / "haproxy.cfg").write_text(CONFIG + text)

    def command(self) -> Sequence[str]:
        return [need_tool("haproxy"), "-db", "-f", str(self.top / "haproxy.cfg")]


@pytest.fixture(params=["smtpd", "postscreen"])
def front(request: pytest.FixtureRequest, make_system: MakeSystem) -> Iterator[Haproxy]:
    """HAProxy in front of a mail system."""
    service = str(request.param)
    system = make_system(main={f"{service}_upstream_proxy_protocol": "haproxy"})
    if service == "postscreen":
        system.configure(
            {"postscreen_access_list": "", "postscreen_greet_wait": "1s"},
            [
                f"127.0.0.1:{system.smtp_port} inet n - n - 1 postscreen",
                "smtpd pass - - n - - smtpd -o smtpd_upstream_proxy_protocol=",
                "dnsblog unix - - n - 0 dnsblog",
            ],
        )
    system.start()
    proxy = Haproxy(system.smtp_port)
    try:
        yield proxy
        system.wait_for_log("status=sent", count=2)
        for client in ("127.0.1.1", "127.0.1.2"):
            escaped = client.replace(".", r"\.")
            assert system.log_lines(rf"smtpd\[.*: client=[^ ]*\[{escaped}\]")
    finally:
        proxy.close()


def test_clients_are_seen(front: Haproxy) -> None:
    for port, source in ((front.port, "127.0.1.1"), (front.second, "127.0.1.2")):
        with smtplib.SMTP(
            "127.0.0.1", port, "client.test", 120, source_address=(source, 0)
        ) as client:
            client.sendmail("a@client.test", ["alice@virtual.test"], MESSAGE)
