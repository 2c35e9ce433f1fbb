"""A cleanup without processes around it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from daemons.cleanup.mapping import AddressMapper, MappingTables
from daemons.cleanup.params import HeaderParams, MappingParams
from libmail.lookup.destination import LocalDomains
from libmail.lookup.rewriting import Rewriter
from libmail.lookup.routing_params import RewriteParams
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions

MakeMapper = Callable[..., AddressMapper]

_CLASSES = ("envelope_sender", "envelope_recipient", "header_sender", "header_recipient")
MAPPING = MappingParams(
    myorigin="example.test",
    mydestination=("example.test",),
    inet_interfaces=("127.0.0.1",),
    inet_protocols=("ipv4",),
    proxy_interfaces=(),
    recipient_delimiter="+",
    propagate_unmatched_extensions=("canonical", "virtual"),
    canonical_maps=(),
    canonical_classes=_CLASSES,
    sender_canonical_maps=(),
    sender_canonical_classes=("envelope_sender", "header_sender"),
    recipient_canonical_maps=(),
    recipient_canonical_classes=("envelope_recipient", "header_recipient"),
    masquerade_domains=(),
    masquerade_classes=("envelope_sender", "header_sender", "header_recipient"),
    masquerade_exceptions=(),
    virtual_alias_maps=(),
    virtual_alias_expansion_limit=1000,
    virtual_alias_recursion_limit=1000,
    virtual_alias_address_length_limit=1000,
    smtputf8_enable=True,
)
HEADERS = HeaderParams(
    myhostname="mail.example.test",
    always_add_missing_headers=False,
    undisclosed_recipients_header="",
    header_from_format="standard",
    full_name_encoding_charset="utf-8",
    message_drop_headers=("bcc", "content-length", "resent-bcc", "return-path"),
    header_size_limit=300,
    header_address_token_limit=10240,
    hopcount_limit=50,
    non_empty_end_of_header_action="fix_quietly",
)
REWRITE = RewriteParams("example.test", "example.test", "domain.invalid", True, True, True, True)


class LocalRewriter:
    """Answers like trivial-rewrite(8), and counts."""

    def __init__(self) -> None:
        self._rewriter = Rewriter(REWRITE)
        self.asked = 0

    async def rewrite(self, context: str, address: str) -> str:
        self.asked += 1
        return self._rewriter.rewrite(context, address)


class Silent:
    def warning(self, text: str) -> None:
        pass

    error = warning


def mapper_maker(rewriter: LocalRewriter) -> MakeMapper:
    def make(**changes: object) -> AddressMapper:
        params = replace(MAPPING, **changes)  # type: ignore[arg-type]
        options = TableOptions(log=Silent())

        def maps(name: str) -> Maps:
            return Maps(name, getattr(params, name), options)

        tables = MappingTables(
            LocalDomains(StringList("mydestination", params.mydestination, options), ()),
            maps("canonical_maps"),
            maps("sender_canonical_maps"),
            maps("recipient_canonical_maps"),
            StringList("masquerade_exceptions", params.masquerade_exceptions, options),
            maps("virtual_alias_maps"),
        )
        return AddressMapper(params, tables, rewriter)

    return make


@pytest.fixture
def rewriter() -> LocalRewriter:
    return LocalRewriter()


@pytest.fixture
def make_mapper(rewriter: LocalRewriter) -> MakeMapper:
    return mapper_maker(rewriter)
