"""The mail proxy of nginx before smtpd, which hears of clients and logins by XCLIENT."""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, need_tool
from tests.system.servers import Server

MESSAGE = b"Subject: through nginx\r\n\r\nbody\r\n"
CONFIG = """\
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off;
pid {top}/pid;
error_log stderr warn;
events {{ worker_connections 100; }}
mail {{
  server_name proxy.test;
  auth_http 127.0.0.1:{judge}/;
  xclient on;
  smtp_capabilities SIZE 8BITMIME;
  server {{
    listen 127.0.0.1:{port};
    protocol smtp;
    smtp_auth plain login none;
  }}
}}
"""


class Judge:
    """Says to nginx who may log in, and where the mail system is. asked: with which headers."""

    def __init__(self, target: int) -> None:
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = dict(self.headers.items())
                asked.append(headers)
                good = headers["Auth-Method"] == "none" or headers["Auth-Pass"] == "secret"
                self.send_response(200)
                self.send_header("Auth-Status", "OK" if good else "Invalid login or password")
                self.send_header("Auth-Server", "127.0.0.1")
                self.send_header("Auth-Port", str(target))
                self.end_headers()

            def log_request(self, code: object = "-", size: object = "-") -> None:
                """Not wanted."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    asked: list[dict[str, str]]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Nginx(Server):
    """nginx. judge: whom it asks."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        super().__init__()

    def certify(self, name: str) -> Path:
        """It needs none."""
        return self.top / name

    def prepare(self) -> None:
        """Its configuration, and a place for what it writes."""
        text = CONFIG.format(top=self.top, port=self.port, judge=self.judge.port)
        (self.top / "nginx.conf").write_text(text)

    def command(self) -> Sequence[str]:
        return [need_tool("nginx"), "-p", str(self.top), "-c", "nginx.conf", "-e", "stderr"]


@pytest.fixture
def system(make_system: MakeSystem) -> MailSystem:
    """Believes its proxy, and lets those relay who have logged in there."""
    made = make_system(
        main={
            "smtpd_authorized_xclient_hosts": "127.0.0.1",
            "mynetworks": "",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
            "smtpd_sasl_auth_enable": "yes",  # else a login does not count
            "smtpd_sasl_type": "table",
            "smtpd_sasl_path": "inline:{ {nobody=*} }",
            "relay_transport": "discard:",
            "default_transport": "discard:",
        }
    )
    made.start()
    return made


@pytest.fixture
def nginx(system: MailSystem) -> Iterator[Nginx]:
    judge = Judge(system.smtp_port)
    try:
        proxy = Nginx(judge)
        try:
            yield proxy
        finally:
            proxy.close()
    finally:
        judge.close()


def client(nginx: Nginx, source: str) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", nginx.port, "c.test", 120, source_address=(source, 0))


def test_who_the_client_is_comes_by_xclient(system: MailSystem, nginx: Nginx) -> None:
    for number in range(3):
        with client(nginx, f"127.0.2.{number + 1}") as smtp:
            smtp.sendmail("a@client.test", ["alice@virtual.test"], MESSAGE)
    system.wait_for_log("status=sent", count=3)
    for number in range(3):
        shown = rf"\[127\.0\.2\.{number + 1}\]"
        assert len(system.log_lines(rf"smtpd\[.*: client=[^ ]*{shown}$")) == 1
    with client(nginx, "127.0.2.1") as smtp, pytest.raises(smtplib.SMTPRecipientsRefused) as no:
        smtp.sendmail("a@client.test", ["x@elsewhere.test"], MESSAGE)
    assert no.value.recipients["x@elsewhere.test"][0] == 554
    system.wait_for_log(r"NOQUEUE: reject: RCPT from [^ ]*\[127\.0\.2\.1\]: 554 5\.7\.1 .* helo=<c")


def test_who_has_logged_in_at_the_proxy_may_relay(system: MailSystem, nginx: Nginx) -> None:
    refused = (smtplib.SMTPAuthenticationError, smtplib.SMTPServerDisconnected)
    with client(nginx, "127.0.2.9") as smtp, pytest.raises(refused):
        smtp.login("anna", "wrong")
    with client(nginx, "127.0.2.9") as smtp:
        smtp.login("anna", "secret")
        smtp.sendmail("a@client.test", ["x@elsewhere.test"], MESSAGE)
    system.wait_for_log("status=sent")
    system.wait_for_log(r"client=[^ ]*\[127\.0\.2\.9\], sasl_method=XCLIENT, sasl_username=anna$")
    assert {headers["Auth-User"] for headers in nginx.judge.asked} == {"anna"}
