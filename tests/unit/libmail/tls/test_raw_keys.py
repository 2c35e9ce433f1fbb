"""Raw public keys (RFC 7250), where the library has them; elsewhere certificates, and a warning."""

from __future__ import annotations

import hashlib

import pytest

from libmail.tls.client_spec import ClientSpec
from libmail.tls.context import Ask, ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.dane import Tlsa
from libmail.tls.facts import Trust
from libmail.tls.library import at_least
from libmail.tls.pem import load_chains
from tests.certificates import Authority
from tests.unit.libmail.tls.pair import ANY, CIPHERS, GROUPS, Pair


@pytest.mark.parametrize("raw", [False, True])
def test_keys_of_both_ends(authority: Authority, raw: bool) -> None:
    issued = authority.issue("mx.example.com")
    own = authority.issue("client.example.com")
    server = ServerContext(
        ServerSettings(
            chains=load_chains([str(issued.chain)]),
            ciphers=CIPHERS,
            protocols=ANY,
            groups=GROUPS,
            ask=Ask.YES,
            raw_keys=raw,
        )
    )
    client = ClientContext(
        ClientSettings(chains=load_chains([str(own.chain)]), groups=GROUPS, raw_keys=raw)
    )
    used = raw and at_least(3, 2)
    warned = ["raw public keys need OpenSSL 3.2: using certificates only"]
    assert server.warnings == client.warnings == (warned if raw and not used else [])
    digest = hashlib.sha256(issued.public_key()).digest()
    for data, trust in ((digest, Trust.VERIFIED), (digest[::-1], Trust.UNTRUSTED)):
        spec = ClientSpec(
            ciphers=CIPHERS,
            protocols=ANY,
            tlsa=(Tlsa(3, 1, 1, data),),
            base_domain="mx.example.com",
            raw_keys=raw,
        )
        pair = Pair(server, client, spec).shake()
        assert pair.client.trust is trust
        seen = pair.client.peer
        assert seen is not None
        assert (seen.certificate is None) is used
        assert seen.key_fingerprint("sha256") == digest.hex(":").upper()
        theirs = pair.server.peer
        assert theirs is not None
        assert pair.server.trust is Trust.UNTRUSTED
        assert (theirs.common_name, theirs.certificate_fingerprint("sha256") == "") == (
            ("", True) if used else ("client.example.com", False)
        )
