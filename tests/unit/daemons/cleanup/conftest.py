"""A cleanup without processes around it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from daemons.cleanup.inspection import Inspector
from daemons.cleanup.mapping import AddressMapper, MappingTables
from daemons.cleanup.milters import MilterSelection
from daemons.cleanup.params import HeaderParams, InspectionParams, MappingParams
from daemons.cleanup.raw import RawParams, RawRules
from libmail.clients.milters import MilterParams, Milters
from libmail.lookup.content_checks import CheckTables
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
    requiretls_enable=True,
    requiretls_esmtp_header=True,
    tls_required_enable=True,
)
INSPECTION = InspectionParams(
    header_checks=(),
    mime_header_checks=(),
    nested_header_checks=(),
    body_checks=(),
    milter_header_checks=(),
    body_checks_size_limit=51200,
    header_size_limit=300,
    line_length_limit=2048,
    disable_mime_input_processing=False,
    mime_boundary_length_limit=2048,
    mime_nesting_limit=100,
    strict_7bit_headers=False,
    strict_8bitmime=False,
    strict_8bitmime_body=False,
    strict_mime_encoding_domain=False,
    smtputf8_enable=True,
)
REWRITE = RewriteParams("example.test", "example.test", "domain.invalid", True, True, True, True)


def make_inspector(
    header: str = "", body: str = "", *, mime: str = "", nested: str = "",
    table: str = "pcre:{{ {} }}", **changes: object,
) -> Inspector:  # fmt: skip
    """header, body: rules of pcre tables, each in braces. table: around them."""

    def maps(title: str, rules: str) -> Maps:
        return Maps(title, table.format(rules) if rules else "")

    tables = CheckTables(
        maps("header_checks", header),
        maps("mime_header_checks", mime or header),
        maps("nested_header_checks", nested or header),
        maps("body_checks", body),
    )
    return Inspector(replace(INSPECTION, **changes), tables)  # type: ignore[arg-type]


RAW = RawParams(
    cleanup_replace_stray_cr_lf=True,
    disable_mime_input_processing=False,
    force_mime_input_conversion=False,
    header_size_limit=300,
    message_reject_characters="",
    message_strip_characters="",
)


def make_raw(**changes: object) -> RawRules:
    """The rules for content as it comes."""
    params = replace(RAW, **changes)  # type: ignore[arg-type]
    return RawRules(params, make_inspector().limits)


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


FILTERS = MilterSelection(
    Milters(
        MilterParams(
            mail_name="Postfix",
            mail_version="3.12",
            milter_command_timeout=30.0,
            milter_connect_macros="j",
            milter_connect_timeout=30.0,
            milter_content_timeout=300.0,
            milter_data_macros="i",
            milter_default_action="tempfail",
            milter_end_of_data_macros="i",
            milter_end_of_header_macros="i",
            milter_helo_macros="",
            milter_macro_daemon_name="mail.example.test",
            milter_macro_defaults=(),
            milter_macro_v="Postfix 3.12",
            milter_mail_macros="i {mail_addr}",
            milter_protocol="6",
            milter_rcpt_macros="i {rcpt_addr}",
            milter_unknown_command_macros="",
            myhostname="mail.example.test",
        )
    ),
    (),
)
