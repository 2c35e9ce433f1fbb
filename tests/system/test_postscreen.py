"""postscreen(8) in front of smtpd: who is let in, who is sent away, and what is remembered."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from bench.crowd import GUARDS, crowded, memory_by_program, secured, visit
from bench.crowd import screened as crowd_settings
from tests.certificates import Authority
from tests.system.harness import Instance
from tests.system.processes import PATIENCE, wait_until

MESSAGE = b"Subject: test\r\n\r\nbody\r\n"
USUAL = {
    "postscreen_access_list": "",
    "postscreen_greet_wait": "1s",
    "postscreen_greet_action": "enforce",
    "postscreen_cache_map": "lmdb:$data_directory/screen",
    "smtpd_peername_lookup": "no",
}


@contextmanager
def screened(main: Mapping[str, str] | None = None) -> Iterator[Instance]:
    """A mail system behind postscreen."""
    system = Instance()
    front = f"127.0.0.1:{system.smtp_port}"
    system.configure(
        {**USUAL, **(main or {})},
        [
            f"{front} inet n - n - 1 postscreen",
            "smtpd pass - - n - - smtpd",
            "dnsblog unix - - n - 0 dnsblog",
            "tlsproxy unix - - n - 0 tlsproxy",
        ],
    )
    try:
        system.start()
        yield system
    finally:
        system.stop()


def connect(system: Instance, source: str) -> socket.socket:
    """A connection from an address of this host."""
    return socket.create_connection(
        ("127.0.0.1", system.smtp_port), PATIENCE, source_address=(source, 0)
    )


def client(system: Instance, source: str) -> smtplib.SMTP:
    """A client that waits for the greeting."""
    return smtplib.SMTP(
        "127.0.0.1", system.smtp_port, "client.test", PATIENCE, source_address=(source, 0)
    )


def all_of(sock: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    try:
        while piece := sock.recv(4096):
            found += piece
    except ConnectionResetError:
        pass
    return found


def test_good_client_is_handed_over_and_remembered() -> None:
    with screened() as system:
        for word in ("NEW", "OLD"):
            with client(system, "127.0.1.1") as smtp:
                smtp.sendmail("a@client.test", ["alice@virtual.test"], MESSAGE)
            system.wait_for_log(rf"PASS {word} \[127\.0\.1\.1\]:\d+$")
        system.wait_for_log("status=sent", count=2)
        lines = system.log_lines(r"smtpd\[.*: connect from unknown\[127\.0\.1\.1\]")
        assert len(lines) == 2
        assert not system.log_lines("DISCONNECT")
        listed = system.run("postmap", "-s", f"lmdb:{system.top}/data/screen").stdout
        assert re.search(rb"(?m)^127\.0\.1\.1\t\d{10,};1;1;1;1$", listed), listed
        # a reload begins a new process, which knows as much
        system.run("postfix", "reload")
        with client(system, "127.0.1.1"):
            pass
        system.wait_for_log(r"PASS OLD \[127\.0\.1\.1\]", count=2)


def test_early_talker_is_refused() -> None:
    with screened() as system, connect(system, "127.0.1.2") as bot:
        bot.sendall(b"HELO bot\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@virtual.test>\r\nQUIT\r\n")
        said = all_of(bot)
        assert said.startswith(b"220-mail.test ESMTP")
        assert b"\r\n550 5.5.1 Protocol error\r\n" in said
        assert said.endswith(b"221 2.0.0 Bye\r\n")
        system.wait_for_log(r"PREGREET 66 after \S+ from \[127\.0\.1\.2\]:\d+: HELO bot\\r\\nMAIL")
        system.wait_for_log(r"NOQUEUE: reject: RCPT from \[127\.0\.1\.2\].*550 5\.5\.1 Protocol")
        system.wait_for_log(r"DISCONNECT \[127\.0\.1\.2\]")


def test_an_early_talker_is_not_judged_again_where_that_is_ignored() -> None:
    with screened({"postscreen_greet_action": "ignore"}) as system:
        with connect(system, "127.0.1.2") as sock:
            sock.sendall(b"EHLO c\r\n")
            said = b""
            while b"250 CHUNKING" not in said:
                piece = sock.recv(4096)
                assert piece, said
                said += piece
            sock.sendall(b"QUIT\r\n")
            assert all_of(sock).endswith(b"221 2.0.0 Bye\r\n")
        system.wait_for_log(r"PREGREET 8 after \S+ from \[127\.0\.1\.2\]")
        system.wait_for_log(r"disconnect from unknown\[127\.0\.1\.2\] ehlo=1 quit=1 commands=2")


def test_what_an_early_talker_says_reaches_the_server_where_that_is_ignored() -> None:
    trusting = {"postscreen_greet_action": "ignore", "smtpd_forbid_unauth_pipelining": "no"}
    with screened(trusting) as system:
        with connect(system, "127.0.1.2") as sock:
            sock.sendall(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<bob@virtual.test>\r\nQUIT\r\n")
            assert b"250 2.1.5 Ok" in all_of(sock)
        system.wait_for_log("PREGREET ")
        assert not system.log_lines("PASS NEW")


def test_access_list_and_drop() -> None:
    with screened(
        {
            "postscreen_access_list": "permit_mynetworks, cidr:{{10.0.0.0/8 permit}}",
            "mynetworks": "127.0.1.1, 127.0.0.1",
            "postscreen_greet_action": "drop",
        }
    ) as system:
        with client(system, "127.0.1.1"):
            pass
        system.wait_for_log(r"ALLOWLISTED \[127\.0\.1\.1\]:\d+$")
        with connect(system, "127.0.1.2") as bot:
            bot.sendall(b"EHLO x\r\n")
            assert all_of(bot).endswith(b"521 5.5.1 Protocol error\r\n")
    lists = {"postscreen_access_list": "inline:{ {127.0.1.3=reject} }"}
    with screened({**lists, "postscreen_blacklist_action": "drop"}) as system:
        with connect(system, "127.0.1.3") as sock:
            assert all_of(sock) == b"521 5.3.2 Service currently unavailable\r\n"
        system.wait_for_log(r"DENYLISTED \[127\.0\.1\.3\]:\d+$")


def test_deep_tests() -> None:
    deep = {f"postscreen_{name}_enable": "yes" for name in ("bare_newline", "pipelining")}
    with screened({**deep, "postscreen_non_smtp_command_enable": "yes"}) as system:
        with client(system, "127.0.1.1") as smtp:
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                smtp.sendmail("a@client.test", ["alice@virtual.test"], MESSAGE)
            assert refused.value.recipients["alice@virtual.test"][0] == 450
        system.wait_for_log(r"PASS NEW \[127\.0\.1\.1\]")
        system.wait_for_log(r"DISCONNECT \[127\.0\.1\.1\]")
        with client(system, "127.0.1.1") as smtp:
            smtp.sendmail("a@client.test", ["alice@virtual.test"], MESSAGE)
        system.wait_for_log(r"PASS OLD \[127\.0\.1\.1\]")
        with connect(system, "127.0.1.2") as bot, bot.makefile("rb") as lines:
            assert lines.readline().startswith(b"220-")
            assert lines.readline().startswith(b"220 ")
            bot.sendall(b"GET / HTTP/1.1\r\n")
            assert lines.read() == b"521 5.7.0 Error: I can break rules, too. Goodbye.\r\n"
        system.wait_for_log(r"NON-SMTP COMMAND from \[127\.0\.1\.2\]:\d+ after CONNECT: GET / HTTP")


def test_a_client_that_passes_deep_tests_goes_on_in_the_same_session() -> None:
    deep = {f"postscreen_{name}_enable": "yes" for name in ("bare_newline", "pipelining")}
    settings = {**deep, "postscreen_deep_handover": "yes"}
    with screened(settings) as system:
        with client(system, "127.0.1.1") as smtp:
            refused = smtp.sendmail(
                "a@client.test", ["alice@virtual.test", "nobody@virtual.test"], MESSAGE
            )
            assert refused["nobody@virtual.test"][0] == 550
            smtp.sendmail("a@client.test", ["bob@virtual.test"], MESSAGE)
        system.wait_for_log("status=sent", count=2)
        system.wait_for_log(r"PASS NEW \[127\.0\.1\.1\]")
        counts = "ehlo=1 mail=2 rcpt=2/3 data=2 quit=1 commands=8/9"
        system.wait_for_log(rf"disconnect from unknown\[127\.0\.1\.1\] {counts}$")
        assert not system.log_lines("DISCONNECT|NOQUEUE: reject: RCPT from .127.0.1.1.:")
        with client(system, "127.0.1.1"):
            system.wait_for_log(r"PASS OLD \[127\.0\.1\.1\]")
        # one that fails is kept, and refused, as ever
        with connect(system, "127.0.1.2") as bot, bot.makefile("rb") as lines:
            assert lines.readline().startswith(b"220-")
            assert lines.readline().startswith(b"220 ")
            bot.sendall(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@virtual.test>\r\nQUIT\r\n")
            assert b"\r\n550 5.5.1 Protocol error\r\n" in lines.read()
        system.wait_for_log(r"DISCONNECT \[127\.0\.1\.2\]")


def test_hangup_veto_and_count() -> None:
    settings = {
        "postscreen_allowlist_interfaces": "!127.0.0.1, static:all",
        "postscreen_client_connection_count_limit": "1",
    }
    with screened(settings) as system:
        with connect(system, "127.0.1.4") as first:
            assert first.recv(100).startswith(b"220-")
            with connect(system, "127.0.1.4") as second:
                assert all_of(second) == b"421 4.7.0 Error: too many connections\r\n"
        system.wait_for_log(
            r"HANGUP after \S+ from \[127\.0\.1\.4\]:\d+ in tests before SMTP handshake"
        )
        system.wait_for_log(r"NOQUEUE: reject: CONNECT from .*: too many connections")
        with client(system, "127.0.1.5") as smtp:
            smtp.ehlo()
            smtp.mail("a@client.test")
            assert smtp.rcpt("alice@virtual.test")[0] == 450
        system.wait_for_log(r"ALLOWLIST VETO \[127\.0\.1\.5\]")
        assert not system.log_lines("PASS NEW")


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.9 192.0.2.1 4242 25\r\n", None])
def test_proxy_protocol(header: bytes | None) -> None:
    """Version 1, or 2. The client is who the proxy says, here and in smtpd."""
    if header is None:
        addresses = socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1")
        tail = addresses + (4242).to_bytes(2, "big") + (25).to_bytes(2, "big")
        header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(tail).to_bytes(2, "big") + tail
    with screened({"postscreen_upstream_proxy_protocol": "haproxy"}) as system:
        with connect(system, "127.0.1.1") as sock, sock.makefile("rb") as lines:
            sock.sendall(header[:10])
            sock.sendall(header[10:])
            assert lines.readline().startswith(b"220-")
            assert lines.readline().startswith(b"220 ")
            sock.sendall(b"QUIT\r\n")
        system.wait_for_log(r"CONNECT from \[192\.0\.2\.9\]:4242 to \[192\.0\.2\.1\]:25$")
        system.wait_for_log(r"connect from unknown\[192\.0\.2\.9\]")
        system.allow("haproxy read")
        with connect(system, "127.0.1.1") as sock:
            sock.sendall(b"EHLO \xff\r\n")
            assert all_of(sock) == b"421 4.3.2 No system resources\r\n"
        system.wait_for_log(r"haproxy read: unrecognized protocol header: EHLO \\377\\r\\n")


@pytest.mark.parametrize("deep_handover", ["yes", "no"])
def test_real_clients_beside_a_crowd_of_bots(deep_handover: str, short_tmp: Path) -> None:
    """Bots that talk early, pipeline, speak HTTP, hang, or begin TLS are held off; every real
    client's mail arrives, with the first attempt where it need not come again."""
    crowd, real = 400, 20
    settings = {**secured(short_tmp), "postscreen_deep_handover": deep_handover}
    with (
        screened(crowd_settings(crowd, settings)) as system,
        crowded(system.smtp_port, crowd, tls=True) as bots,
    ):
        system.allow("improper command pipelining|non-SMTP command")
        wait_until(lambda: bots.present >= crowd)
        system.wait_for_log("tlsproxy.*: CONNECT from")
        with ThreadPoolExecutor(real) as pool:
            visits = list(pool.map(partial(visit, system.smtp_port), range(real)))
        memory = memory_by_program(system)
        assert memory["postscreen"]
        assert memory["tlsproxy"]
        assert sum(memory[name] for name in GUARDS) < 80_000_000
        if deep_handover == "yes":
            assert sum(visit.attempts for visit in visits) == real
        system.wait_for_log("status=sent", count=real)
        system.wait_for_log(r"PASS NEW \[127\.0\.3\.", count=real)
        for line in ("PREGREET", "COMMAND PIPELINING", "NON-SMTP COMMAND"):
            system.wait_for_log(line)
        assert len(system.maildir("alice")) == real
        assert not system.log_lines("to=<bob@virtual.test>.*status=sent")


SECURE = {
    "smtpd_tls_security_level": "may",
    "smtpd_tls_loglevel": "1",
    "postscreen_bare_newline_enable": "yes",
}


def certified(folder: Path) -> dict[str, str]:
    """Settings with a certificate."""
    chain = Authority(folder / "ca").issue("mail.test").chain
    chain.chmod(0o644)
    return {**SECURE, "smtpd_tls_chain_files": str(chain)}


def insecure() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_tls_through_tlsproxy(short_tmp: Path) -> None:
    with screened(certified(short_tmp)) as system:
        for code in (450, 250):  # then it has passed, and smtpd shakes hands itself
            with client(system, "127.0.1.1") as smtp:
                smtp.starttls(context=insecure())
                smtp.ehlo()
                assert not smtp.has_extn("starttls")
                smtp.mail("a@client.test")
                assert smtp.rcpt("alice@virtual.test")[0] == code
        who = r"\[127\.0\.1\.1\]:\d+"
        for line in (rf"CONNECT from {who}", rf"DISCONNECT {who}"):
            system.wait_for_log(rf"tlsproxy\[.*: {line}$")
        system.wait_for_log(
            rf"tlsproxy\[.*: Anonymous TLS connection established from {who}: TLSv1"
        )
        system.wait_for_log(r"smtpd\[.*: Anonymous TLS connection established from unknown\[127")
        system.wait_for_log(rf"PASS NEW {who}")


DEEP = {
    "postscreen_bare_newline_enable": "yes",
    "postscreen_deep_handover": "yes",
    "smtpd_tls_received_header": "yes",
}


def test_a_session_within_tls_goes_on(short_tmp: Path) -> None:
    """What tlsproxy has agreed upon, and the certificate that it has seen, count in smtpd."""
    authority = Authority(short_tmp / "clients")
    issued = authority.issue("client.test")
    context = insecure()
    context.load_cert_chain(issued.certificate, issued.key)
    authority.certificate.chmod(0o644)
    settings = {
        **certified(short_tmp),
        **DEEP,
        "smtpd_tls_CAfile": str(authority.certificate),
        "smtpd_tls_ask_ccert": "yes",
        "smtpd_sender_restrictions": "check_ccert_access "
        "pcre:{{/^([0-9A-F]{2}:){15,}/ prepend X-Known: yes}}",
    }
    with screened(settings) as system:
        with client(system, "127.0.1.1") as smtp:
            smtp.starttls(context=context)
            for subject in (b"first", b"second"):
                smtp.sendmail("a@client.test", ["alice@virtual.test"], b"Subject: " + subject)
            assert isinstance(smtp.sock, ssl.SSLSocket)
            cipher, protocol, _ = smtp.sock.cipher() or ("", "", 0)
        system.wait_for_log("status=sent", count=2)
        counts = r"ehlo=1 starttls=1 mail=2 rcpt=2 data=2 quit=1 commands=9$"
        system.wait_for_log(rf"smtpd\[.*: disconnect from unknown\[127\.0\.1\.1\] {counts}")
        system.wait_for_log(r"tlsproxy\[.*: DISCONNECT \[127\.0\.1\.1\]")
        for message in system.maildir("alice"):
            text = b" ".join(message.split())
            assert f"(using {protocol} with cipher {cipher} (".encode() in text
            assert b'(Client CN "client.test", Issuer "Test CA" (verified OK))' in text
            assert b"with ESMTPS id" in text
            assert b"X-Known: yes" in text


def test_a_session_within_tls_that_smtpd_would_not_have_begun(short_tmp: Path) -> None:
    """It asks for certificates, tlsproxy does not: the client comes again, and shakes hands."""
    with screened({**certified(short_tmp), **DEEP}) as system:
        system.configure({}, ["smtpd pass - - n - - smtpd -o smtpd_tls_ask_ccert=yes"])
        assert system.run("postfix", "reload").returncode == 0
        system.wait_for_log("reload")
        answers = []
        for _ in range(2):
            with client(system, "127.0.1.1") as smtp:
                smtp.starttls(context=insecure())
                smtp.ehlo()
                smtp.mail("a@client.test")
                answers.append(smtp.rcpt("alice@virtual.test")[0])
        assert answers == [421, 250]
        system.wait_for_log("cannot go on in the TLS session of tlsproxy: other settings")


def test_many_handshakes_that_never_go_on(short_tmp: Path) -> None:
    """They are bounded in number and memory, and others get theirs."""
    crowd = 400
    limits = {
        "postscreen_pre_queue_limit": "10000",
        "postscreen_client_connection_count_limit": "0",
    }
    with screened({**certified(short_tmp), **limits}) as system, ExitStack() as stack:
        bots = [
            stack.enter_context(connect(system, f"127.0.2.{number % 200 + 1}"))
            for number in range(crowd)
        ]
        for number, bot in enumerate(bots):
            lines = stack.enter_context(bot.makefile("rb"))
            assert [lines.readline()[:4] for _ in range(2)] == [b"220-", b"220 "]
            bot.sendall(b"STARTTLS\r\n")
            assert lines.readline() == b"220 2.0.0 Ready to start TLS\r\n"
            if number % 2:
                bot.sendall(b"\x16\x03\x01\x02\x00\x01")
        with client(system, "127.0.1.1") as smtp:
            smtp.starttls(context=insecure())
            smtp.ehlo()
            smtp.mail("a@client.test")
            assert smtp.rcpt("alice@virtual.test")[0] == 450
        assert memory_by_program(system)["tlsproxy"] < 100_000_000
        stack.close()
        system.wait_for_log("TLS handshake failed for service=smtpd peer=", count=crowd)
        system.wait_for_log(r"tlsproxy\[.*DISCONNECT", count=crowd + 1)
        system.wait_for_log(r"HANGUP after \S+ from \[127\.0\.2\.", count=crowd)
        system.wait_for_log(r"postscreen\[.*DISCONNECT", count=crowd + 1)
