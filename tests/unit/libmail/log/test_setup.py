"""Where log lines go: postlogd's socket, the file itself, and what main.cf may name."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from daemons.cleanup.events import MessageId
from libmail.config import Config
from libmail.config.main_cf import parse_main_cf
from libmail.ipc.messages import QueueId
from libmail.log import LOG, Fatal
from libmail.log.setup import maillog_file, open_log, open_maillog


def config(top: Path, more: str = "") -> Config:
    text = f"queue_directory = {top}\nmaillog_file = {top}/maillog\nmaillog_file_prefixes = {top}\n"
    entries, _ = parse_main_cf(text + more, "main.cf")
    return Config("/etc/postfix", entries)


PREFIXES = [
    ("/var/log/maillog", "/var, /dev/stdout", True),
    ("/var", "/var", True),
    ("/var/log/maillog", "/var/", True),
    ("/various/maillog", "/var", False),
    ("/dev/stdout", "/var, /dev/stdout", True),
    ("/etc/passwd", "/var, /dev/stdout", False),
]


@pytest.mark.parametrize(("path", "prefixes", "allowed"), PREFIXES)
def test_maillog_file_prefixes(path: str, prefixes: str, allowed: bool) -> None:
    text = f"maillog_file = {path}\nmaillog_file_prefixes = {prefixes}\n"
    own = Config("/etc/postfix", parse_main_cf(text, "main.cf")[0])
    if allowed:
        assert maillog_file(own) == path
    else:
        with pytest.raises(Fatal, match="does not match any prefix in maillog_file_prefixes"):
            maillog_file(own)


def test_without_postlogd_the_file_is_written(short_tmp: Path) -> None:
    (short_tmp / "public").mkdir()
    open_log(config(short_tmp), "smtpd")
    LOG.info("one")
    open_log(config(short_tmp, "syslog_name = other\n"), "smtpd", may_wait=False)
    LOG.warning("two")
    first, second = (short_tmp / "maillog").read_text().splitlines()
    assert first.endswith(f" postfix/smtpd[{os.getpid()}]: one")
    assert second.endswith(f" other/smtpd[{os.getpid()}]: warning: two")
    assert stat.S_IMODE((short_tmp / "maillog").stat().st_mode) == 0o600


@pytest.mark.parametrize("may_wait", [True, False])
def test_lines_go_to_postlogd(short_tmp: Path, may_wait: bool) -> None:
    (short_tmp / "public").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(short_tmp / "public/postlog"))
        open_log(config(short_tmp), "smtpd", may_wait=may_wait)
        LOG.info("line")
        assert server.recv(1000).decode().endswith("]: line\n")
        open_log(config(short_tmp), "smtpd", may_wait=may_wait, direct=True)
        LOG.info("direct")
    assert (short_tmp / "maillog").read_text().endswith("]: direct\n")


def test_master_does_not_wait_for_postlogd(short_tmp: Path) -> None:
    (short_tmp / "public").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(short_tmp / "public/postlog"))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        open_log(config(short_tmp), "master", may_wait=False)
        for number in range(5000):
            LOG.info(f"line {number} {'x' * 200}")
        assert "line 4999 " in (short_tmp / "maillog").read_text()


def test_json_has_the_same_tag(short_tmp: Path) -> None:
    (short_tmp / "public").mkdir()
    open_log(config(short_tmp, "maillog_format = json\n"), "smtpd", direct=True)
    LOG.info("line")
    assert '"tag": "postfix/smtpd"' in (short_tmp / "maillog").read_text()


def test_json_tells_all_levels_apart(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short_tmp / "public").mkdir()
    open_log(config(short_tmp, "maillog_format = json\n"), "smtpd", direct=True)
    monkeypatch.setattr(LOG, "verbose", 1)
    for say in (LOG.debug, LOG.info, LOG.warning, LOG.error, LOG.fatal, LOG.panic):
        say("te\u202ext")
    lines = [json.loads(line) for line in (short_tmp / "maillog").read_text().splitlines()]
    assert [line["level"] for line in lines] == [
        "debug", "info", "warning", "error", "fatal", "panic",
    ]  # fmt: skip
    assert lines[0]["text"] == "te?xt"


def test_json_fields_are_text(short_tmp: Path) -> None:
    (short_tmp / "public").mkdir()
    open_log(config(short_tmp, "maillog_format = json\n"), "cleanup", direct=True)
    LOG.event(MessageId(QueueId("AB"), "<a\udcff\x1b@b>"))
    (line,) = (short_tmp / "maillog").read_text().splitlines()
    assert json.loads(line)["message_id"] == "<a??@b>"


def test_an_unknown_facility_is_fatal() -> None:
    own = Config("/etc/postfix", parse_main_cf("syslog_facility = nonsense\n", "main.cf")[0])
    with pytest.raises(Fatal, match="unrecognized value: nonsense"):
        open_log(own, "smtpd")


def test_a_log_file_is_never_a_link(short_tmp: Path) -> None:
    (short_tmp / "link").symlink_to(short_tmp / "target")
    with pytest.raises(OSError, match="symbolic links"):
        open_maillog(str(short_tmp / "link"), 0o600)
    with pytest.raises(OSError, match="directory"):
        open_maillog(str(short_tmp), 0o600)
