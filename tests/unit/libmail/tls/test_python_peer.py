"""Python's own ssl module as an independent peer, both directions, over memory BIOs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace

import pytest

from libmail.tls.authorities import Authorities
from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import Ask, ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.errors import TlsClosed
from libmail.tls.facts import Trust
from libmail.tls.pem import load_chains
from tests.certificates import Authority, Issued
from tests.unit.libmail.tls.pair import CIPHERS, GROUPS, TLS_1_2, TLS_1_3

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
PROTOCOLS = {"1.2": TLS_1_2, "1.3": TLS_1_3}


class Theirs:
    """An end of Python's module."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, name: str | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server, server_hostname=name
        )
        self.done = False

    def attempt(self, what: Callable[[], object]) -> object:
        try:
            return what()
        except ssl.SSLWantReadError:
            return None

    def handshake(self) -> None:
        if not self.done:
            try:
                self.object.do_handshake()
                self.done = True
            except ssl.SSLWantReadError:
                pass


def shake(ours: Connection, theirs: Theirs) -> None:
    step = Step.WANT_INPUT
    for _ in range(20):
        theirs.handshake()
        ours.receive(theirs.outgoing.read())
        step = ours.handshake()
        theirs.incoming.write(ours.output())
        if step is Step.DONE and theirs.done:
            break
    assert step is Step.DONE
    theirs.handshake()
    assert theirs.done


def talk(ours: Connection, theirs: Theirs) -> None:
    """Both send, then both close."""
    data = bytes(range(256)) * 300
    ours.write(data)
    theirs.incoming.write(ours.output())
    got = b""
    while (part := theirs.attempt(lambda: theirs.object.read(1 << 16))) is not None:
        assert isinstance(part, bytes)
        got += part
    assert got == data
    theirs.object.write(data)
    ours.receive(theirs.outgoing.read())
    assert ours.read() == data
    theirs.attempt(theirs.object.unwrap)
    ours.receive(theirs.outgoing.read())
    with pytest.raises(TlsClosed):
        ours.read()
    ours.shutdown()
    theirs.incoming.write(ours.output())
    theirs.object.unwrap()


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.example.com", "mx.example.com", kind="rsa")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("certified", [False, True])
def test_our_server(authority: Authority, issued: Issued, version: str, certified: bool) -> None:
    settings = ServerSettings(
        chains=load_chains([str(issued.chain)]),
        authorities=Authorities(str(authority.certificate), ""),
        ciphers=CIPHERS,
        protocols=PROTOCOLS[version],
        groups=GROUPS,
        ask=Ask.YES if certified else Ask.NO,
    )
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    if certified:
        own = authority.issue("client.example.com")
        context.load_cert_chain(own.certificate, own.key)
    theirs = Theirs(context, server=False, name="mx.example.com")
    ours = accept(ServerContext(settings))
    shake(ours, theirs)
    assert ours.agreed.protocol == theirs.object.version() == f"TLSv{version}"
    cipher = theirs.object.cipher()
    assert cipher is not None
    assert (ours.agreed.cipher, ours.agreed.bits) == (cipher[0], cipher[2])
    assert ours.trust is (Trust.TRUSTED if certified else Trust.ANONYMOUS)
    if certified:
        assert ours.peer is not None
        assert ours.peer.common_name == "client.example.com"
    talk(ours, theirs)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("certified", [False, True])
def test_our_client(authority: Authority, issued: Issued, version: str, certified: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    asked: list[str | None] = []
    context.sni_callback = lambda _object, name, _context: asked.append(name)
    settings = ClientSettings(
        authorities=Authorities(str(authority.certificate), ""), groups=GROUPS
    )
    if certified:
        own = authority.issue("client.example.com")
        settings = replace(settings, chains=load_chains([str(own.chain)]))
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    spec = ClientSpec(
        ciphers=CIPHERS,
        protocols=PROTOCOLS[version],
        names=("mx.example.com",),
        server_name="mx.example.com",
    )
    theirs = Theirs(context, server=True)
    ours = connect(ClientContext(settings), spec)
    ours.handshake()
    theirs.incoming.write(ours.output())
    shake(ours, theirs)
    assert ours.trust is Trust.VERIFIED
    assert asked == ["mx.example.com"]
    der = theirs.object.getpeercert(binary_form=True)
    assert (der is not None) is certified
    assert ours.agreed.protocol == theirs.object.version()
    talk(ours, theirs)
