"""check_policy_service: an external policy server decides (SMTPD_POLICY_README).

A list of restrictions names a server as `inet:host:port` or `unix:path`, or in braces with settings
of its own. It is sent the facts as attributes, and answers with an action as in an access table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from libmail.config.declare import INT, STR, TIME, Kind
from libmail.log import Fatal
from libmail.lookup.access import act
from libmail.lookup.check import Check, Rule
from libmail.lookup.context import LookupFailure, Question
from libmail.lookup.facts import END_OF_MESSAGE, Facts, Outcome, Sasl, Subject, Tls
from libmail.lookup.params import RestrictionParams
from libmail.net.endpoint import parse_endpoint
from libmail.smtp.address import xtext_encode
from libmail.tables.braces import split_list, strip_braces
from libmail.tls.facts import Trust

__all__ = [
    "Attributes",
    "PolicyQuestion",
    "PolicySettings",
    "attributes",
    "parse_policy",
    "policy_rule",
]

Attributes = tuple[tuple[str, str], ...]

_SETTINGS: Final[Mapping[str, Kind]] = {
    "default_action": STR(1),
    "max_idle": TIME("s", 1),
    "max_ttl": TIME("s", 1),
    "policy_context": STR(),
    "request_limit": INT(),
    "retry_delay": TIME("s", 1),
    "timeout": TIME("s", 1),
    "try_limit": INT(1),
}
_COUNTING: Final = frozenset({"DATA", "BDAT", END_OF_MESSAGE})
_VOUCHED_FOR: Final = frozenset({Trust.TRUSTED, Trust.VERIFIED})


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """One server. endpoint: as configured. Times in seconds; 0 for request_limit is no limit.

    max_idle, max_ttl: how long a connection is kept without use, and at all.
    """

    endpoint: str
    timeout: float
    max_idle: float
    max_ttl: float
    request_limit: int
    try_limit: int
    retry_delay: float
    default_action: str
    policy_context: str


class PolicyQuestion(Question[str]):
    """The action that a policy server wants. where: its endpoint; key: stage, sender, recipient."""

    __slots__ = ("attributes", "settings")

    def __init__(self, settings: PolicySettings, attributes: Attributes, key: str) -> None:
        super().__init__(settings.endpoint, key)
        self.settings = settings
        self.attributes = attributes


# configuration


def parse_policy(text: str, params: RestrictionParams) -> PolicySettings:
    """A server as a list of restrictions names it. Raises Fatal."""
    try:
        endpoint, given = _given(text)
        parse_endpoint(endpoint)
        values = {
            name: str(kind.parse(f"smtpd_policy_service_{name}", given[name]))
            for name, kind in _SETTINGS.items()
            if name in given
        }
    except ValueError as err:
        raise Fatal(f"check_policy_service {text}: {err}") from err
    get = values.get
    return PolicySettings(
        endpoint,
        timeout=float(get("timeout", params.smtpd_policy_service_timeout)),
        max_idle=float(get("max_idle", params.smtpd_policy_service_max_idle)),
        max_ttl=float(get("max_ttl", params.smtpd_policy_service_max_ttl)),
        request_limit=int(get("request_limit", params.smtpd_policy_service_request_limit)),
        try_limit=int(get("try_limit", params.smtpd_policy_service_try_limit)),
        retry_delay=float(get("retry_delay", params.smtpd_policy_service_retry_delay)),
        default_action=get("default_action", params.smtpd_policy_service_default_action),
        policy_context=get("policy_context", params.smtpd_policy_service_policy_context),
    )


def _given(text: str) -> tuple[str, dict[str, str]]:
    """(endpoint, settings) of a server's text. Raises ValueError."""
    if not text.startswith("{"):
        return text, {}
    words = split_list(strip_braces(text))
    if not words:
        raise ValueError("empty policy service")
    given: dict[str, str] = {}
    for word in words[1:]:
        setting = strip_braces(word) if word.startswith("{") else word
        name, equals, value = setting.partition("=")
        name = name.strip()
        if not equals:
            raise ValueError(f'missing "=" after attribute name: "{setting}"')
        if name not in _SETTINGS:
            raise ValueError(f"unknown attribute name: {name}")
        given[name] = value.strip()
    return words[0], given


def policy_rule(settings: PolicySettings) -> Rule:
    """The restriction that asks this server."""
    rule = partial(_check_policy, settings)
    return Rule(f"check_policy_service {settings.endpoint}", rule, settings.endpoint)


async def _check_policy(
    settings: PolicySettings, check: Check, subject: Subject, server: str
) -> Outcome:
    told = attributes(check.facts, check.params, settings.policy_context)
    mail = check.facts.mail
    key = f"{check.facts.where} {mail.sender or ''} {mail.recipient or ''}"
    try:
        action = await check.lookups.ask(PolicyQuestion(settings, told, key))
    except LookupFailure:  # of a recording; a live server without an answer has a default
        return check.reject_config()
    check.verdict.decided_by = server
    return await act(check, subject, server, action)


# attributes


def attributes(facts: Facts, params: RestrictionParams, context: str) -> Attributes:
    """The attributes of a request, in the order of Postfix."""
    return (
        ("request", "smtpd_access_policy"),
        ("protocol_state", "DATA" if facts.where == "BDAT" else facts.where),
        ("protocol_name", facts.protocol),
        *_of_client(facts),
        *_of_mail(facts),
        ("stress", params.stress),
        *(_of_sasl(facts.sasl) if facts.sasl or params.smtpd_sasl_auth_enable else ()),
        *_of_tls(facts.tls),
        ("policy_context", context),
        ("compatibility_level", params.compatibility_level),
        ("mail_version", params.mail_version),
    )


def _of_client(facts: Facts) -> Attributes:
    client = facts.client
    return (
        ("client_address", client.address),
        ("client_name", client.name),
        ("client_port", client.port),
        ("reverse_client_name", client.reverse_name),
        ("server_address", client.server_address),
        ("server_port", client.server_port),
        ("helo_name", facts.helo_name),
    )


def _of_mail(facts: Facts) -> Attributes:
    mail = facts.mail
    site = facts.where == "ETRN"  # then the facts have its argument in place of a recipient
    return (
        ("sender", mail.sender or ""),
        ("recipient", "" if site else mail.recipient or ""),
        ("recipient_count", str(mail.recipient_count if facts.where in _COUNTING else 0)),
        ("queue_id", mail.queue_id),
        ("instance", mail.instance),
        ("size", str(mail.size)),
        ("etrn_domain", (mail.recipient or "") if site else ""),
    )


def _of_sasl(sasl: Sasl | None) -> Attributes:
    return (
        ("sasl_method", "" if sasl is None else sasl.method),
        ("sasl_username", "" if sasl is None else sasl.username),
        ("sasl_sender", "" if sasl is None else sasl.sender),
    )


def _of_tls(tls: Tls | None) -> Attributes:
    """Names of a certificate, encoded as xtext, count only if an authority vouches for it."""
    named = tls is not None and tls.trust in _VOUCHED_FOR
    return (
        ("ccert_subject", xtext_encode(tls.subject) if tls is not None and named else ""),
        ("ccert_issuer", xtext_encode(tls.issuer) if tls is not None and named else ""),
        ("ccert_fingerprint", "" if tls is None else tls.fingerprint),
        ("ccert_pubkey_fingerprint", "" if tls is None else tls.key),
        ("encryption_protocol", "" if tls is None else tls.agreed.protocol),
        ("encryption_cipher", "" if tls is None else tls.agreed.cipher),
        ("encryption_keysize", "0" if tls is None else str(tls.agreed.bits)),
        ("tls_sni", "" if tls is None else tls.sni),
    )
