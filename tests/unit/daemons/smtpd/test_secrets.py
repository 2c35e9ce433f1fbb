"""What clients say in confidence reaches neither the postmaster nor the log."""

import asyncio
from pathlib import Path

import pytest

from daemons.smtpd.secrets import masked
from tests.unit.daemons.smtpd.fakes import running

LINES = {
    b"NOOP": b"NOOP",
    b"AUTH PLAIN AGEAYg==": b"AUTH PLAIN <masked>",
    b"auth\tplain   AGEAYg==": b"auth\tplain   <masked>",
    b"AUTH LOGIN": b"AUTH LOGIN",
    b" AUTH CRAM-MD5 x y z": b" AUTH CRAM-MD5 <masked>",
    b"AUTHOR PLAIN x": b"AUTHOR PLAIN x",
    b"EHLO x\r\nAUTH PLAIN AGEAYg==\r\nQUIT": b"EHLO x\r\nAUTH PLAIN <masked>\r\nQUIT",
}


@pytest.mark.parametrize(("line", "shown"), LINES.items())
def test_masked(line: bytes, shown: bytes) -> None:
    assert masked(line, after_secret=False)[1] == shown


def test_the_rest_of_an_exchange() -> None:
    assert masked(b"AUTH LOGIN", after_secret=False)[0]
    assert masked(b"c2VjcmV0", after_secret=True) == (True, b"<masked>")
    assert masked(b"c2VjcmV0", after_secret=False) == (False, b"c2VjcmV0")
    assert masked(b"MAIL FROM:<>", after_secret=True) == (False, b"MAIL FROM:<>")
    assert masked(b"QUIT", after_secret=True) == (False, b"QUIT")


def test_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = """
notify_classes = protocol
smtpd_command_filter = inline:{{AUTH PLAIN secret1=AUTH PLAIN secret2}}
"""

    async def run() -> None:
        async with running(tmp_path, settings) as instance:
            reader, writer = await instance.connect()
            for line in (
                "AUTH PLAIN secret1", "AUTH PLAIN secret3", "AUTH LOGIN", "secret4", "secret5",
                "QUIT",
            ):  # fmt: skip
                await asyncio.wait_for(reader.readline(), 60)
                writer.write(f"{line}\r\n".encode())
            assert await asyncio.wait_for(reader.readline(), 60)
            writer.close()
            async with asyncio.timeout(60):
                await instance.runtime.session_over.wait()
            (message,) = instance.mail.messages
            assert b"AUTH LOGIN" in message.content
            assert b"secret" not in message.content
            assert not [line for line in instance.mail.log if "secret" in line]

    asyncio.run(run())
