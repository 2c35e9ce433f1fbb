"""Fast flush: what was deferred for a site is delivered when ETRN or postqueue -s asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.harness import Instance, free_port
from tests.system.sink import PythonSink

MESSAGE = b"Subject: test\r\n\r\nbody\r\n"


@pytest.fixture
def system() -> Iterator[Instance]:
    """With a transport that waits for a request; site.test and other.test may be asked for."""
    system = Instance(
        main={"fast_flush_domains": "site.test, other.test", "defer_transports": "later"},
        master=["later unix - - n - - smtp"],
    )
    try:
        yield system
    finally:
        system.stop()


def etrn(system: Instance, site: str) -> tuple[int, bytes]:
    with system.smtp() as client:
        client.ehlo()
        return client.docmd("ETRN", site)


def send_and_wait(system: Instance, domain: str, count: int) -> None:
    system.send("a@mail.test", [f"b@{domain}"], MESSAGE)
    system.wait_for_log(r"status=deferred \(deferred transport\)", count=count)
    system.wait_for_deferred(count)


def test_only_the_mail_of_the_site_is_delivered(system: Instance) -> None:
    port = free_port()
    for domain in ("site.test", "other.test"):
        system.route(domain, f"later:[127.0.0.1]:{port}")
    system.start()
    for count, domain in enumerate(("site.test", "other.test", "site.test"), 1):
        send_and_wait(system, domain, count)
    with PythonSink(port) as sink:
        assert etrn(system, "SITE.test") == (250, b"Queuing started")
        system.wait_for_deferred(1)
        assert len(sink.messages) == 2
        assert etrn(system, "elsewhere.test") == (459, b"<elsewhere.test>: service unavailable")
        done = system.run("postqueue", "-s", "other.test")
        assert (done.returncode, done.stderr) == (0, b"")
        system.wait_for_queue_empty()
        assert len(sink.messages) == 3
    system.allow("reject: ETRN elsewhere.test")


def test_what_was_deferred_again_can_be_asked_for_again(system: Instance) -> None:
    port = free_port()
    system.route("site.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    system.send("a@mail.test", ["b@site.test", "c@site.test"], MESSAGE)
    system.wait_for_log("status=deferred", count=2)
    system.wait_for_deferred(1)
    assert etrn(system, "site.test")[0] == 250  # although the destination was found dead
    system.wait_for_log("status=deferred", count=4)
    system.wait_for_deferred(1)
    with PythonSink(port) as sink:
        assert system.run("sendmail", "-qRsite.test").returncode == 0
        system.wait_for_queue_empty()
        assert len(sink.messages) == 1


def test_refusals_of_the_command(system: Instance) -> None:
    system.start()
    done = system.run("postqueue", "-s", "elsewhere.test")
    assert done.returncode == 69
    text = b'postqueue: fatal: Flush service is not configured for destination "elsewhere.test"\n'
    assert done.stderr == text
    system.allow("Flush service is not configured")


def test_without_the_service_mail_is_deferred_all_the_same(system: Instance) -> None:
    system.configure({}, ["-flush/unix"])
    system.route("site.test", f"later:[127.0.0.1]:{free_port()}")
    system.allow("public/flush")
    system.start()
    send_and_wait(system, "site.test", 1)
    assert etrn(system, "site.test") == (458, b"Unable to queue messages")
    system.wait_for_log("unable to talk to fast flush service")
