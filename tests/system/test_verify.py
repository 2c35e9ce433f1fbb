"""verify(8) in a running system: probes, their routes, and what is left of them."""

from __future__ import annotations

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import wait_until


def answer(system: MailSystem, recipient: str) -> str:
    """What RCPT is answered."""
    with system.smtp() as client:
        client.ehlo()
        client.mail("a@remote.test")
        code, text = client.rcpt(recipient)
        return f"{code} {text.decode()}"


def test_local_and_virtual_addresses(make_system: MakeSystem) -> None:
    system = make_system(
        main={
            "smtpd_recipient_restrictions": "reject_unverified_recipient",
            "smtpd_reject_unlisted_recipient": "no",
            "unverified_recipient_reject_code": "550",
            "address_verify_poll_delay": "1s",
            "address_verify_poll_count": "60",
            "address_verify_map": "lmdb:$data_directory/verify_cache",
            "address_verify_transport_maps": "inline:{ {probed.test=error:5.1.9 not this one} }",
        }
    )
    system.start()
    me, nobody = f"{system.user.pw_name}@{system.name}", f"no-such-user@{system.name}"
    assert answer(system, me) == "250 2.1.5 Ok"
    assert answer(system, nobody).startswith(
        f"550 5.1.1 <{nobody}>: Recipient address rejected: undeliverable address: unknown user:"
    )
    assert answer(system, f"double-bounce@{system.name}") == "250 2.1.5 Ok"
    # Routed apart from mail, which would be discarded here.
    assert "undeliverable address: not this one" in answer(system, "x@probed.test")
    system.wait_for_queue_empty()
    assert not system.mailbox.exists()
    outcome = r"status=(un)?deliverable"
    wait_until(lambda: len(system.log_lines(outcome)) >= 4)  # lines come in batches
    probes = system.log_lines(outcome)
    assert len(probes) == 4
    assert not list((system.queue_directory / "trace").rglob("*[0-9A-F]"))
    # Results outlive the system.
    system.halt()
    system.start()
    assert answer(system, me) == "250 2.1.5 Ok"
    assert "unknown user:" in answer(system, nobody)
    assert system.log_lines(outcome) == probes
