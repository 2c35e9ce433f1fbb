"""Both ends of a session, our own: at every chunking, with every outcome."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import cffi
import pytest

from libmail.tls import own_sessions
from libmail.tls.authorities import Authorities
from libmail.tls.chains_by_name import ChainsByName
from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import (
    Ask,
    ClientContext,
    ClientSettings,
    ServerContext,
    ServerSettings,
)
from libmail.tls.dane import Tlsa
from libmail.tls.errors import TlsClosed, TlsConfigError, TlsFailed
from libmail.tls.facts import Trust
from libmail.tls.library import FFI
from libmail.tls.negotiation import Hello, NameState
from libmail.tls.observation import dump_lines
from libmail.tls.pem import chains_of, load_chains, pem_objects
from libmail.tls.settings import Protocols, parse_protocols
from libmail.tls.tickets import TicketKey, TicketKeys
from tests.certificates import Authority, Issued, openssl
from tests.unit.libmail.tls.pair import (
    ANY,
    CIPHERS,
    GROUPS,
    TLS_1_2,
    TLS_1_3,
    WITH_ANONYMOUS,
    Answer,
    Pair,
)

SPEC = ClientSpec(ciphers=CIPHERS, protocols=ANY)
NAMED = replace(SPEC, names=("mx.example.com",))
VERSIONS = pytest.mark.parametrize("protocols", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


def server_settings(*issued: Issued, **more: object) -> ServerSettings:
    chains = load_chains([str(one.chain) for one in issued]) if issued else ()
    base = ServerSettings(chains=chains, ciphers=CIPHERS, protocols=ANY, groups=GROUPS)
    return replace(base, **more)  # type: ignore[arg-type]


def trusting(authority: Authority, **more: object) -> ClientContext:
    base = ClientSettings(authorities=Authorities(str(authority.certificate), ""), groups=GROUPS)
    return ClientContext(replace(base, **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.example.com", "mx.example.com", "*.wild.example.com")


@pytest.fixture(scope="module")
def server(issued: Issued) -> ServerContext:
    return ServerContext(server_settings(issued))


@pytest.fixture(scope="module")
def client(authority: Authority) -> ClientContext:
    return trusting(authority)


# -- octets


@VERSIONS
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 100, 1000, 1 << 20])
def test_chunking_is_invisible(
    server: ServerContext, client: ClientContext, protocols: Protocols, chunk: int
) -> None:
    pair = Pair(server, client, replace(NAMED, protocols=protocols), chunk=chunk).shake()
    assert pair.client.trust is Trust.VERIFIED
    assert pair.server.trust is Trust.ANONYMOUS
    assert pair.send(pair.client, b"EHLO x\r\n") == b"EHLO x\r\n"
    assert pair.send(pair.server, b"250 y\r\n" * 300) == b"250 y\r\n" * 300
    pair.client.shutdown()
    pair.server.receive(pair.client.output())
    with pytest.raises(TlsClosed):
        pair.server.read()
    pair.server.shutdown()
    pair.client.receive(pair.server.output())
    with pytest.raises(TlsClosed):
        pair.client.read()


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 65536, 1 << 20])
def test_records_are_full(server: ServerContext, client: ClientContext, size: int) -> None:
    pair = Pair(server, client, SPEC).shake()
    data = os.urandom(size)
    pair.client.write(data)
    wire = pair.client.output()
    records = -(-size // 16384)
    assert size + 22 * records <= len(wire) <= size + 22 * records + (22 if records else 0)
    pair.server.receive(wire)
    assert pair.server.read() == data


def test_data_before_an_end_is_not_lost(server: ServerContext, client: ClientContext) -> None:
    pair = Pair(server, client, SPEC).shake()
    pair.client.write(b"QUIT\r\n")
    pair.client.shutdown()
    pair.server.receive(pair.client.output())
    assert pair.server.read() == b"QUIT\r\n"
    for _ in range(2):
        with pytest.raises(TlsClosed):
            pair.server.read()
    pair.server.write(b"221 Bye\r\n")  # a half-closed session still takes an answer
    pair.client.receive(pair.server.output())
    assert pair.client.read() == b"221 Bye\r\n"


def test_connection_that_is_cut_off(server: ServerContext, client: ClientContext) -> None:
    pair = Pair(server, client, SPEC).shake()
    pair.server.end_of_input()
    with pytest.raises(TlsFailed) as caught:
        pair.server.read()
    assert (caught.value.reason, caught.value.lost) == ("lost connection", True)


def test_input_that_nobody_reads_is_bounded(server: ServerContext) -> None:
    connection = accept(server)
    for _ in range(32):
        connection.receive(bytes(1 << 16))
    with pytest.raises(TlsFailed, match="nobody reads"):
        connection.receive(b"x")


# -- what is no handshake


@pytest.mark.parametrize(
    "data",
    [b"RSET\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\x00\x05hello", b"\x15\x03\x01\x00\x02\x02\x28"],
)
def test_garbage_is_no_handshake(server: ServerContext, data: bytes) -> None:
    connection = accept(server)
    connection.receive(data)
    with pytest.raises(TlsFailed) as caught:
        connection.handshake()
    assert caught.value.reason == "-1"
    assert all(line.startswith("error:") for line in caught.value.problems)
    assert caught.value.problems
    with pytest.raises(TlsFailed):
        connection.handshake()


def test_end_at_every_step(server: ServerContext, client: ClientContext) -> None:
    """A client that breaks off after any number of octets leaves an error, and nothing else."""
    whole = b"".join(Pair(server, client, SPEC).shake().to_server[:1])
    for length in range(0, len(whole), 17):
        pair = Pair(server, client, SPEC)
        pair.server.receive(whole[:length])
        assert pair.server.handshake() is Step.WANT_INPUT
        pair.server.end_of_input()
        with pytest.raises(TlsFailed):
            pair.server.handshake()
        pair.server.close()
        pair.client.close()


def test_no_common_protocol_or_cipher(issued: Issued, client: ClientContext) -> None:
    for more in ({"protocols": TLS_1_2}, {"ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}):
        context = ServerContext(server_settings(issued, **{"protocols": TLS_1_2} | more))
        asked = TLS_1_3 if len(more) and "protocols" in more else TLS_1_2
        with pytest.raises(TlsFailed) as caught:
            Pair(context, client, replace(SPEC, protocols=asked)).shake()
        assert any("SSL routines" in line for line in caught.value.problems)


def test_alert_reaches_the_peer(server: ServerContext) -> None:
    strict = ClientContext(ClientSettings(groups=("X448",)))
    context = ServerContext(replace(server.settings, groups=("X25519",)))
    pair = Pair(context, strict, replace(SPEC, protocols=TLS_1_3))
    with pytest.raises(TlsFailed):
        pair.shake()
    pair.client.receive(pair.server.output())
    with pytest.raises(TlsFailed) as caught:
        pair.client.handshake()
    assert "alert handshake failure" in caught.value.problems[0]


def test_renegotiation_is_refused(
    server: ServerContext, client: ClientContext, issued: Issued
) -> None:
    """A client that asks for another handshake gets none; the session goes on or ends."""
    pair = Pair(server, client, replace(SPEC, protocols=TLS_1_2)).shake()
    hello = connect(client, replace(SPEC, protocols=TLS_1_2))
    hello.handshake()
    pair.server.receive(hello.output())  # not encrypted, so not even heard
    with pytest.raises(TlsFailed):
        pair.server.read()


class KeyUpdates(Protocol):
    """Of the library, what the engine does not use."""

    def SSL_key_update(self, ssl: object, kind: int) -> int: ...  # noqa: N802
    def SSL_do_handshake(self, ssl: object) -> int: ...  # noqa: N802


_EXTRA = cffi.FFI()
_EXTRA.cdef("int SSL_key_update(void *ssl, int kind); int SSL_do_handshake(void *ssl);")
_LIBRARY = cast(KeyUpdates, _EXTRA.dlopen("libssl.so.3"))


def change_keys(connection: Connection, times: int) -> bytes:
    """What a peer sends who changes his keys and wants us to change ours, RFC 8446 §4.6.3."""
    ssl = _EXTRA.cast("void *", int(FFI.cast("uintptr_t", connection._ssl)))
    for _ in range(times):
        assert _LIBRARY.SSL_key_update(ssl, 1) == 1
        assert _LIBRARY.SSL_do_handshake(ssl) == 1
    return connection.output()


def test_peers_may_change_their_keys(server: ServerContext, client: ClientContext) -> None:
    for chunk in (1 << 30, 1):
        pair = Pair(server, client, replace(SPEC, protocols=TLS_1_3), chunk=chunk).shake()
        for _ in range(5):
            pair.server.receive(change_keys(pair.client, 3))
            assert pair.send(pair.client, b"more") == b"more"
            assert pair.send(pair.server, b"yes") == b"yes"


@pytest.mark.parametrize("data", [b"", b"x"])
def test_but_not_all_the_time(server: ServerContext, client: ClientContext, data: bytes) -> None:
    """Each change costs as much as a thousand octets of data."""
    pair = Pair(server, client, replace(SPEC, protocols=TLS_1_3)).shake()

    def flood() -> None:
        for _ in range(50):
            pair.client.write(data)
            pair.server.receive(pair.client.output() + change_keys(pair.client, 50))
            pair.server.read()
            pair.server.output()

    with pytest.raises(TlsFailed, match="without data"):
        flood()
    with pytest.raises(TlsFailed):
        pair.server.read()


# -- who the peer is


def trust_with(
    context: ServerContext, client: ClientContext, spec: ClientSpec
) -> tuple[Trust, str]:
    connection = Pair(context, client, spec).shake().client
    refused = connection.refused
    return connection.trust, refused.text("server", "mx") if refused else ""


@VERSIONS
def test_names(server: ServerContext, client: ClientContext, protocols: Protocols) -> None:
    spec = replace(SPEC, protocols=protocols)
    failed = "server certificate verification failed for mx: num=62:hostname mismatch"
    for names, wide, trust in (
        ((), True, Trust.TRUSTED),
        (("MX.example.com",), True, Trust.VERIFIED),
        ((".example.com",), True, Trust.VERIFIED),
        (("mx.example.org", "mx.example.com"), True, Trust.VERIFIED),
        (("mx.example.org",), True, Trust.TRUSTED),
        (("example.com",), True, Trust.TRUSTED),
        (("a.wild.example.com",), False, Trust.VERIFIED),
        (("a.b.wild.example.com",), True, Trust.VERIFIED),
        (("a.b.wild.example.com",), False, Trust.TRUSTED),
    ):
        told = trust_with(server, client, replace(spec, names=names, wide_wildcards=wide))
        assert told == (trust, failed if names and trust is Trust.TRUSTED else ""), names


@VERSIONS
def test_chains_that_are_not_trusted(
    authority: Authority, client: ClientContext, tmp_path: Path, protocols: Protocols
) -> None:
    name = "mx.example.com"
    stranger = Authority(tmp_path / "s", "Stranger")
    below = Authority(tmp_path / "b", "Below", authority)
    incomplete = below.issue(name, name)
    incomplete.chain.write_bytes(incomplete.key.read_bytes() + incomplete.certificate.read_bytes())
    general = "certificate verification failed for mx: "
    for issued, words in (
        (authority.self_signed(name, name), f"{general}self-signed certificate"),
        (stranger.issue(name, name), f"{general}untrusted issuer /O=Tests/CN=Stranger"),
        (incomplete, f"{general}untrusted issuer /O=Tests/CN=Below"),
        (authority.issue(name, name, days=-1), f"server {general}certificate has expired"),
        (
            authority.issue(name, name, usage="clientAuth"),
            f"{general}not designated for use as a server certificate",
        ),
    ):
        context = ServerContext(server_settings(issued))
        spec = replace(NAMED, protocols=protocols)
        assert trust_with(context, client, spec) == (Trust.UNTRUSTED, words)


def test_wrong_name_does_not_hide_a_wrong_issuer(client: ClientContext, tmp_path: Path) -> None:
    context = ServerContext(server_settings(Authority(tmp_path, "Stranger").issue("other")))
    trust, words = trust_with(context, client, NAMED)
    assert trust is Trust.UNTRUSTED
    assert words.endswith("untrusted issuer /O=Tests/CN=Stranger")


def test_depth(authority: Authority, tmp_path: Path) -> None:
    below = Authority(tmp_path / "b", "Below", authority)
    context = ServerContext(server_settings(below.issue("mx.example.com", "mx.example.com")))
    assert trust_with(context, trusting(authority, verify_depth=2), NAMED)[0] is Trust.VERIFIED
    trust, words = trust_with(context, trusting(authority, verify_depth=1), NAMED)
    assert trust is Trust.UNTRUSTED
    assert words.endswith("for mx: certificate chain longer than limit(1)")


def test_fingerprints(server: ServerContext, issued: Issued) -> None:
    """The certificate is the right one, whoever has signed it, whenever it ends."""
    alone = ClientContext(ClientSettings(groups=GROUPS))
    peer = Pair(server, alone, SPEC).shake().client.peer
    assert peer is not None
    for digest in ("sha1", "sha256", "sha512"):
        for value in (peer.certificate_fingerprint(digest), peer.key_fingerprint(digest)):
            spec = replace(SPEC, fingerprints=frozenset(["AB", value]), digest=digest)
            assert trust_with(server, alone, spec) == (Trust.VERIFIED, "")
    spec = replace(SPEC, fingerprints=frozenset(["AB"]))
    trust, words = trust_with(server, alone, spec)
    assert trust is Trust.UNTRUSTED
    assert "server certificate verification failed for mx: num=65:" in words


def test_anonymous_server(client: ClientContext) -> None:
    settings = replace(server_settings(), ciphers=WITH_ANONYMOUS, protocols=TLS_1_2)
    spec = replace(SPEC, ciphers=WITH_ANONYMOUS, protocols=TLS_1_2)
    connection = Pair(ServerContext(settings), client, spec).shake().client
    assert connection.trust is Trust.ANONYMOUS
    assert connection.peer is None
    assert connection.agreed.cipher.startswith("A")


# -- certificates of clients


@VERSIONS
def test_client_certificates(authority: Authority, issued: Issued, protocols: Protocols) -> None:
    authorities = Authorities(str(authority.certificate), "")
    known = load_chains([str(authority.issue("client.example.com", usage="clientAuth").chain)])
    unknown = load_chains([str(authority.self_signed("other.example.com").chain)])
    servers = load_chains([str(authority.issue("server only", usage="serverAuth").chain)])
    spec = replace(SPEC, protocols=protocols)
    for chains, more, trust in (
        ((), {}, Trust.ANONYMOUS),
        (known, {}, Trust.TRUSTED),
        (unknown, {}, Trust.UNTRUSTED),
        (servers, {}, Trust.UNTRUSTED),
        (servers, {"accept_server_purpose": True}, Trust.TRUSTED),
    ):
        settings = server_settings(issued, authorities=authorities, ask=Ask.YES, **more)
        own = trusting(authority, chains=chains)
        connection = Pair(ServerContext(settings), own, spec).shake().server
        assert connection.trust is trust
        assert (connection.peer is None) == (trust is Trust.ANONYMOUS)
        if chains and protocols is TLS_1_3:
            assert connection.agreed.client is not None
            assert "client-signature ECDSA (prime256v1)" in connection.agreed.text()


def test_client_certificate_that_is_a_must(authority: Authority, issued: Issued) -> None:
    settings = server_settings(issued, ask=Ask.REQUIRE)
    with pytest.raises(TlsFailed) as caught:
        Pair(ServerContext(settings), trusting(authority), SPEC).shake()
    assert "peer did not return a certificate" in caught.value.problems[0]


# -- names that clients ask for


def test_chains_by_name(authority: Authority, issued: Issued, client: ClientContext) -> None:
    context = ServerContext(server_settings(issued, names=True))
    other = load_chains(
        [
            str(authority.issue("b.example.com", "b.example.com", kind=k).chain)
            for k in ("rsa", "ec")
        ]
    )

    def lookup(hello: Hello) -> Answer:
        return (other if hello.name == "b.example.com" else None), b""

    for asked, state, shown in (
        ("", NameState.NONE, "mx.example.com"),
        ("B.example.com", NameState.MATCHED, "b.example.com"),
        ("c.example.com", NameState.UNMATCHED, "mx.example.com"),
    ):
        for chunk in (1, 1 << 20):
            spec = replace(SPEC, server_name=asked, names=(shown,))
            pair = Pair(context, client, spec, lookup=lookup, chunk=chunk).shake()
            assert pair.server.name_state is state
            assert pair.server.name == asked.lower()
            assert pair.client.trust is Trust.VERIFIED
            assert [hello.name for hello in pair.hellos] == ([asked.lower()] if asked else [])


def test_name_is_asked_for_once_with_a_retry(issued: Issued, authority: Authority) -> None:
    """A hello that must be sent again with another key share."""
    context = ServerContext(server_settings(issued, names=True, groups=("prime256v1",)))
    pair = Pair(context, trusting(authority), replace(SPEC, server_name="x", protocols=TLS_1_3))
    pair.shake()
    assert len(pair.hellos) == 1
    assert pair.client.agreed.exchange is not None
    assert pair.client.agreed.exchange.text("key-exchange") == "key-exchange ECDHE (prime256v1)"


def test_names_that_are_invalid(server: ServerContext, client: ClientContext) -> None:
    with pytest.raises(TlsConfigError):
        connect(client, replace(SPEC, server_name="x" * 256))
    with pytest.raises(TlsConfigError):
        connect(client, replace(SPEC, server_name="a\0b"))
    for bad in (b"a\0b", b"\xff\xff\xff", b"a b"):
        hello = connect(client, replace(SPEC, server_name="xyz"))
        hello.handshake()
        connection = accept(ServerContext(replace(server.settings, names=True)))
        connection.receive(hello.output().replace(b"xyz", bad))
        with pytest.raises(TlsFailed) if b"\0" in bad else nullcontext():
            assert connection.handshake() is Step.WANT_INPUT
        assert connection.hello is None
        assert connection.name_state is NameState.INVALID


# -- sessions and tickets


def ticket_keys(now: float, count: int = 1) -> TicketKeys:
    keys = TicketKeys(time.time)
    keys.replace(
        [
            TicketKey(os.urandom(16), os.urandom(32), os.urandom(32), now - 1, now + 100, now + 200)
            for _ in range(count)
        ]
    )
    return keys


def session_of(pair: Pair) -> bytes:
    pair.send(pair.server, b"x")
    saved = pair.client.saved_session()
    assert saved is not None
    return saved.data


@VERSIONS
def test_tickets_are_good_in_another_process(
    issued: Issued, authority: Authority, protocols: Protocols
) -> None:
    keys = ticket_keys(time.time())
    settings = server_settings(issued, tickets=keys)
    client = trusting(authority, cached=True)
    spec = replace(NAMED, protocols=protocols)
    session = session_of(Pair(ServerContext(settings), client, spec).shake())
    again = Pair(ServerContext(settings), client, spec, session=session).shake()
    assert again.client.agreed.resumed
    assert again.server.agreed.resumed
    assert again.client.trust is Trust.VERIFIED
    assert again.client.agreed.established(again.client.trust, "to", "x").startswith(
        "Verified TLS connection reused to x: TLSv1."
    )
    keys.replace(())  # the keys have changed
    full = Pair(ServerContext(settings), client, spec, session=session).shake()
    assert not full.client.agreed.resumed
    assert full.client.trust is Trust.VERIFIED
    full.send(full.server, b"x")
    if protocols is TLS_1_3:
        assert full.client.saved_session() is None  # no ticket without a key


def test_ticket_of_the_key_before_is_renewed(issued: Issued, authority: Authority) -> None:
    keys = ticket_keys(time.time())
    context = ServerContext(server_settings(issued, tickets=keys))
    client = trusting(authority, cached=True)
    old = keys.to_issue()
    assert old is not None
    spec = replace(SPEC, protocols=TLS_1_3)
    session = session_of(Pair(context, client, spec).shake())
    fresh = ticket_keys(time.time()).to_issue()
    assert fresh is not None
    keys.replace([fresh, old])
    pair = Pair(context, client, spec, session=session).shake()
    assert pair.client.agreed.resumed
    renewed = session_of(pair)
    keys.replace([fresh])
    assert Pair(context, client, spec, session=renewed).shake().client.agreed.resumed


def test_clients_of_other_services_are_not_resumed(issued: Issued, authority: Authority) -> None:
    keys = ticket_keys(time.time())
    client = trusting(authority, cached=True)
    one, two = (
        ServerContext(server_settings(issued, tickets=keys, session_context=name))
        for name in (b"smtp", b"submission")
    )
    session = session_of(Pair(one, client, SPEC).shake())
    assert not Pair(two, client, SPEC, session=session).shake().client.agreed.resumed


def test_sessions_in_a_cache(issued: Issued, authority: Authority) -> None:
    """For clients without tickets: the caller keeps the session, and finds it again."""
    context = ServerContext(server_settings(issued, cached=True))
    client = trusting(authority, cached=True, options=1 << 14)
    spec = replace(SPEC, protocols=TLS_1_2)
    first = Pair(context, client, spec).shake()
    kept = first.server.saved_session()
    mine = first.client.saved_session()
    assert kept is not None
    assert mine is not None
    found = Pair(
        context, client, spec, session=mine.data, lookup=lambda _: (None, kept.data)
    ).shake()
    assert [hello.session_id for hello in found.hellos] == [kept.session_id]
    assert found.server.agreed.resumed
    for nothing in (b"", b"garbage", kept.data[:-5]):
        answer: Answer = (None, nothing)
        again = Pair(context, client, spec, session=mine.data, lookup=lambda _: answer)  # noqa: B023
        lost = again.shake()
        assert not lost.server.agreed.resumed


@VERSIONS
def test_own_sessions_are_not_decoded_again(
    issued: Issued, authority: Authority, protocols: Protocols, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often they are resumed, and also if their connection was cut off."""
    monkeypatch.setattr(own_sessions, "decoded_session", lambda _: FFI.NULL)
    context = ServerContext(server_settings(issued, tickets=ticket_keys(time.time())))
    client, spec = trusting(authority, cached=True), replace(NAMED, protocols=protocols)
    ended, cut = Pair(context, client, spec).shake(), Pair(context, client, spec).shake()
    one, other = session_of(ended), session_of(cut)
    ended.client.shutdown()
    for pair in (ended, cut):
        pair.client.close()
    for session in (one, one, other, one):
        again = Pair(context, client, spec, session=session).shake()
        assert again.client.agreed.resumed
        assert again.client.trust is Trust.VERIFIED
        assert again.client.chain_sent == ()
        again.client.shutdown()
        again.client.close()


def test_own_sessions_are_not_many(issued: Issued, authority: Authority) -> None:
    context = ServerContext(server_settings(issued, tickets=ticket_keys(time.time())))
    client = trusting(authority, cached=True)
    sessions = [session_of(Pair(context, client, SPEC).shake()) for _ in range(60)]
    assert len(set(sessions)) == 60
    assert len(client.own._sessions) == 50
    for session in (sessions[0], sessions[-1]):
        assert Pair(context, client, SPEC, session=session).shake().client.agreed.resumed


def test_session_of_nonsense_is_none(server: ServerContext, client: ClientContext) -> None:
    pair = Pair(server, client, SPEC, session=b"nonsense").shake()
    assert not pair.client.agreed.resumed


def test_cipher_of_tickets(issued: Issued) -> None:
    for name, good in (("aes-256-cbc", True), ("aes-128-cbc", True), ("x", False), ("", True),
                       ("aes-256-gcm", False), ("des-ede3-cbc", False)):  # fmt: skip
        settings = server_settings(issued, tickets=ticket_keys(0), ticket_cipher=name)
        warning = f"tls_session_ticket_cipher: invalid value: {name}; session tickets disabled"
        assert ServerContext(settings).warnings == ([] if good else [warning])


# -- settings


def test_files_of_parameters(issued: Issued, tmp_path: Path) -> None:
    good = tmp_path / "dh"
    good.write_bytes(openssl("dhparam", "-dsaparam", "1024"))
    spec = replace(SPEC, ciphers="DHE-RSA-AES128-SHA", protocols=TLS_1_2)
    assert spec
    for path, warning in (
        ("", ""),
        ("auto", ""),
        (str(good), ""),
        (str(tmp_path / "x"), "error opening DH parameter file"),
        (str(issued.key), "error decoding DH parameters from file"),
    ):
        warnings = ServerContext(server_settings(issued, dh_file=path)).warnings
        assert [warning in line and "compiled-in" in line for line in warnings] == (
            [True] if warning else []
        )


def test_groups_that_are_unknown(issued: Issued) -> None:
    context = ServerContext(server_settings(issued, groups=("X25519", "nonsense")))
    assert context.warnings == ['ignoring unknown ECDHE curve "nonsense"']
    context = ServerContext(server_settings(issued, groups=("nonsense",)))
    assert context.warnings[-1] == "none of the configured ECDHE curves are supported"


def test_settings_that_cannot_be(issued: Issued) -> None:
    with pytest.raises(TlsConfigError, match="error setting minimum TLS version to: 0x0305"):
        ServerContext(server_settings(issued, protocols=parse_protocols(">=0305")))
    with pytest.raises(TlsConfigError, match='error setting cipher grade: "nonsense"'):
        ServerContext(server_settings(issued, ciphers="nonsense"))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("!TLSv1.3", "TLSv1.2"),
        (">=TLSv1 <=TLSv1.2", "TLSv1.2"),
        ("TLSv1.1", "TLSv1.1"),
        (">=TLSv1", "TLSv1.3"),
        ("", "TLSv1.3"),
        ("!SSLv2 !SSLv3 !TLSv1 !TLSv1.1", "TLSv1.3"),
    ],
)
def test_versions(issued: Issued, client: ClientContext, text: str, version: str) -> None:
    context = ServerContext(server_settings(issued, protocols=parse_protocols(text)))
    spec = replace(SPEC, protocols=parse_protocols(">=TLSv1"))
    assert Pair(context, client, spec).shake().client.agreed.protocol == version


def test_server_preference(issued: Issued, client: ClientContext) -> None:
    one, two = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
    spec = replace(SPEC, ciphers=f"{one}:{two}", protocols=TLS_1_2)
    for preempt, chosen in ((False, one), (True, two)):
        settings = server_settings(issued, ciphers=f"{two}:{one}", preempt=preempt)
        assert Pair(ServerContext(settings), client, spec).shake().client.agreed.cipher == chosen


def test_directory_of_authorities(
    authority: Authority, server: ServerContext, tmp_path: Path
) -> None:
    """CApath: read as a whole, so that it works in a jail; bad files in it do not matter."""
    (tmp_path / "bad").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "12345678.0").symlink_to("bad")
    (tmp_path / "12345678.1").symlink_to("gone")
    (tmp_path / "ca.pem").write_bytes(authority.certificate.read_bytes())
    other = Authority(tmp_path / "other")  # of the same name, hence the same hash
    (tmp_path / "other.pem").write_bytes(other.certificate.read_bytes())
    openssl("rehash", str(tmp_path))
    settings = ClientSettings(authorities=Authorities("", str(tmp_path)), groups=GROUPS)
    for path in tmp_path.iterdir():
        if not path.is_dir():
            path.unlink()
    client = ClientContext(settings)
    for _ in range(2):
        assert trust_with(server, client, NAMED) == (Trust.VERIFIED, "")
    context = ServerContext(server_settings(other.issue("mx.example.com", "mx.example.com")))
    assert trust_with(context, client, NAMED) == (Trust.VERIFIED, "")


def test_authorities_that_are_absent(issued: Issued, tmp_path: Path) -> None:
    for file, directory, words in (
        (str(tmp_path / "x"), "", 'CAfile="/.*/x": .*No such file'),
        (str(issued.key), "", "no certificate in it"),
        ("", str(tmp_path / "x"), 'CApath="/.*/x": No such file'),
    ):
        with pytest.raises(
            TlsConfigError, match="^cannot load Certification Authority data.*" + words
        ):
            Authorities(file, directory)


def test_handshake_can_be_watched(server: ServerContext, client: ClientContext) -> None:
    """Loglevel 2."""
    pair = Pair(server, client, NAMED)
    lines: list[str] = []
    told: list[str] = []
    pair.server.watch(lines.append, "h[1]")
    pair.client.watch(told.append, "mx[2]:25")
    pair.shake()
    assert lines[:3] == [
        "setting up TLS connection from h[1]",
        f'h[1]: TLS cipher list "{CIPHERS}"',
        "SSL_accept:before SSL initialization",
    ]
    assert "SSL_accept:SSLv3/TLS write server hello" in lines
    assert told[0] == "setting up TLS connection to mx[2]:25"
    assert "mx[2]:25: depth=1 verify=1 subject=/O=Tests/CN=Test CA" in told
    assert "mx[2]:25: depth=0 verify=1 subject=/CN=mx.example.com" in told
    line = pair.client.peer_line("mx[2]:25", "sha256")
    assert line.startswith("mx[2]:25: subject_CN=mx.example.com, issuer_CN=Test CA, fingerprint=")
    assert ", pkey_fingerprint=" in line
    assert pair.server.peer_line("h[1]", "sha256") == ""


@pytest.mark.parametrize("after", [False, True])
def test_octets_can_be_shown(server: ServerContext, client: ClientContext, after: bool) -> None:
    """Loglevels 3 and 4: what goes over the network, and never what is said within TLS."""
    pair = Pair(server, client, SPEC)
    lines: list[str] = []
    pair.server.dump(lines.append, "h[1]", after=after)
    pair.shake()
    pair.send(pair.client, b"secret of a user")
    pair.send(pair.server, b"secret of a user")
    count = len(lines)
    pair.send(pair.client, b"secret of a user")
    pair.send(pair.server, b"secret of a user")
    assert (len(lines) > count) is after
    assert re.fullmatch(r"read from h\[1\] \((\d+) bytes => \1 \(0x[0-9A-F]+\)\)", lines[0])
    assert lines[1].startswith("0000 16 03 01 ")
    assert any(line.startswith("write to h[1] (") for line in lines)
    assert not any("secret" in line for line in lines)


@pytest.mark.parametrize(("data", "lines"), [
    (b"", []),
    (b"abc", ["0000 61 62 63                                         abc"]),
    (b"0123456789\xff\n", ["0000 30 31 32 33 34 35 36 37|38 39 ff 0a              01234567 89.."]),
    (b"x" * 16 + b"a\0 ", [
        "0000 78 78 78 78 78 78 78 78|78 78 78 78 78 78 78 78  xxxxxxxx xxxxxxxx",
        "0010 61                                               a",
        "0011 - <SPACES/NULLS>"]),
])  # fmt: skip
def test_rows_of_octets(data: bytes, lines: list[str]) -> None:
    assert list(dump_lines(data)) == lines


def test_failure_can_be_watched(server: ServerContext) -> None:
    lines: list[str] = []
    connection = accept(server)
    connection.watch(lines.append, "h[1]")
    connection.receive(b"RSET\r\nRSET\r\n")
    with pytest.raises(TlsFailed):
        connection.handshake()
    assert lines[-1].startswith("SSL_accept:error in ")


def test_library_is_safe_after_a_fork(server: ServerContext, client: ClientContext) -> None:
    """Two children of one process do not use the same random numbers."""
    reads = []
    for _ in range(2):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            connection = connect(client, SPEC)
            connection.handshake()
            os.write(write, connection.output())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            reads.append(pipe.read())
        assert os.waitpid(pid, 0)[1] == 0
    assert len(reads[0]) > 200
    assert reads[0] != reads[1]
    Pair(server, client, SPEC).shake()


def test_handshake_can_be_traced(server: ServerContext, client: ClientContext) -> None:
    for of_server in (True, False):
        pair = Pair(server, client, replace(SPEC, server_name="mx.example.com"))
        traced = pair.server if of_server else pair.client
        traced.trace(100_000)
        pair.shake()
        told = traced.traced()
        assert b"ClientHello" in told
        assert b"Finished" in told
        pair.send(pair.client, b"secret of a user")
        pair.send(pair.server, b"secret of a user")
        assert traced.traced() == b""


def test_trace_is_bounded(server: ServerContext, client: ClientContext) -> None:
    pair = Pair(server, client, SPEC, chunk=1)
    pair.server.trace(500)
    pair.shake()
    assert len(pair.server.traced()) == 500
    assert pair.server.traced() == b""


def test_chains_of_tables(authority: Authority) -> None:
    """tls_server_sni_maps: a name, or a parent domain with a dot; values of postmap -F."""
    issued = authority.issue("mx.example.com")
    values = {
        "mx.example.com": base64.b64encode(issued.chain.read_bytes()).decode(),
        ".example.org": base64.b64encode(issued.chain.read_bytes()).decode(),
        "bad.example.com": base64.b64encode(issued.certificate.read_bytes()).decode(),
    }

    async def find(key: str) -> str | None:
        return values.get(key)

    async def talk() -> None:
        by_name = ChainsByName(find)
        first = await by_name.chains("mx.example.com")
        assert first is not None
        assert first[0].certificate.der() == issued.der()
        assert await by_name.chains("a.b.example.org") is first
        assert await by_name.chains("example.org") is None
        assert await by_name.chains("") is None
        with pytest.raises(TlsConfigError, match=r"SNI data for bad.example.com: .*key not first"):
            await by_name.chains("bad.example.com")

    asyncio.run(talk())


def test_nothing_is_touched_after_close(server: ServerContext, client: ClientContext) -> None:
    pair = Pair(server, client, SPEC).shake()
    connection = pair.server
    connection.close()
    connection.close()
    connection.shutdown()
    for action in (
        connection.handshake,
        connection.read,
        connection.output,
        connection.end_of_input,
        lambda: connection.receive(b"x"),
        lambda: connection.write(b"x"),
        lambda: connection.agreed,
        lambda: connection.peer,
        lambda: connection.trust,
        lambda: connection.dane_match,
    ):
        with pytest.raises(TlsFailed):
            action()


@VERSIONS
def test_huge_chains_are_refused(
    authority: Authority, issued: Issued, protocols: Protocols
) -> None:
    """By both ends, before they are parsed."""
    many = [issued.key.read_bytes(), *[issued.certificate.read_bytes()] * 400]
    chains = chains_of(pem_objects(b"".join(many), "x"), "x")
    huge = ServerContext(replace(server_settings(issued), chains=chains))
    normal = trusting(authority)
    with pytest.raises(TlsFailed) as caught:
        Pair(huge, normal, replace(SPEC, protocols=protocols)).shake()
    assert "excessive message size" in caught.value.problems[0]
    asking = ServerContext(server_settings(issued, ask=Ask.YES))
    with pytest.raises(TlsFailed) as caught:
        Pair(asking, trusting(authority, chains=chains), replace(SPEC, protocols=protocols)).shake()
    assert "excessive message size" in caught.value.problems[0]


@VERSIONS
def test_peer_is_known_again_when_resumed(
    issued: Issued, authority: Authority, protocols: Protocols
) -> None:
    """Fingerprints and TLSA records with a session that is not verified again."""
    context = ServerContext(server_settings(issued, tickets=ticket_keys(time.time())))
    client = ClientContext(ClientSettings(groups=GROUPS, cached=True))
    digest = hashlib.sha256(issued.public_key())
    for more in (
        {"fingerprints": frozenset([digest.digest().hex(":").upper()])},
        {"tlsa": (Tlsa(3, 1, 1, digest.digest()),), "base_domain": "mx.example.com"},
    ):
        spec = replace(SPEC, protocols=protocols, **more)
        first = Pair(context, client, spec).shake()
        assert first.client.trust is Trust.VERIFIED
        again = Pair(context, client, spec, session=session_of(first)).shake()
        assert again.client.agreed.resumed
        assert again.client.trust is Trust.VERIFIED


@VERSIONS
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_channel_bindings(authority: Authority, protocols: Protocols, kind: str) -> None:
    """Both ends know the same, of this session and no other, or of this certificate."""
    certified = authority.issue(
        "mx.example.com", "mx.example.com", kind=kind, label=f"bound-{kind}"
    )
    keys = ticket_keys(time.time())
    context = ServerContext(server_settings(certified, tickets=keys))
    client, spec = trusting(authority, cached=True), replace(SPEC, protocols=protocols)
    first = Pair(context, client, spec).shake()
    session = session_of(first)
    found, second = first.server.bindings(), Pair(context, client, spec).shake().client.bindings()
    assert found == first.client.bindings()
    end_point = hashlib.sha256(certified.der()).digest()  # the authority signs with SHA-256
    assert found["tls-server-end-point"] == second["tls-server-end-point"] == end_point
    assert ("tls-exporter" in found) == (protocols == TLS_1_3)
    resumed = Pair(context, client, spec, session=session).shake()
    assert resumed.client.agreed.resumed
    again = resumed.server.bindings()
    assert again == resumed.client.bindings()
    assert "tls-server-end-point" not in again
    if protocols == TLS_1_3:
        exported = {one["tls-exporter"] for one in (found, second, again)}
        assert {len(one) for one in exported} == {32}
        assert len(exported) == 3
