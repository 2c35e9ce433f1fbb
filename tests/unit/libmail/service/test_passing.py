"""Clients that come from other programs: what is none is refused, and no descriptor stays open."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket

import pytest

from libmail.ipc.messages import CODEC, PassedClient
from libmail.log import LOG
from libmail.net.ends import Ends
from libmail.service.passing import Passed, receive_client

GOOD = PassedClient("192.0.2.1", "1025", "2001:db8::1", "25", ("EHLO c.test", "MAIL FROM:<>"))


def received(message: bytes, descriptors: list[int]) -> Passed | None:
    async def main() -> Passed | None:
        ours, theirs = socket.socketpair()
        with theirs:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            theirs.sendmsg([message], rights if descriptors else [])
            theirs.shutdown(socket.SHUT_WR)
            return await receive_client(ours, {os.geteuid()}, "smtpd")

    return asyncio.run(main())


@pytest.fixture
def warnings() -> list[str]:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtpd")
    return logged


def test_a_client_is_taken_over() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        passed = received(CODEC.encode(GOOD), [theirs.fileno()])
        assert passed is not None
        with contextlib.closing(passed.sock):
            passed.sock.send(b"220")
            assert ours.recv(3) == b"220"
        assert passed.ends == Ends("192.0.2.1", "1025", "2001:db8::1", "25")
        assert passed.said == ("EHLO c.test", "MAIL FROM:<>")


@pytest.mark.parametrize(
    "message",
    [
        GOOD._replace(client_address="x" * 5000),
        GOOD._replace(server_address="unknown"),
        GOOD._replace(client_port="-1"),
        GOOD._replace(server_port="123456"),
    ],
)
def test_ends_that_are_none(message: PassedClient, warnings: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert received(CODEC.encode(message), [theirs.fileno()]) is None
        assert ours.recv(1) == b""  # nobody holds its other end
    (warning,) = warnings
    assert warning.startswith("warning: smtpd: no client was handed over: no ")


@pytest.mark.parametrize("number", [0, 1, 16, 200])
def test_descriptors_that_are_none(number: int, warnings: list[str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null", "rb") as null:
        assert received(CODEC.encode(GOOD), [null.fileno()] * number) is None
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(warnings) == 1
