"""What an address is about once the domains of this machine are taken off it.

"user%other@here" and "other!user@here" are mail for another domain, and "user@here" is mail for a
user of ours: an address is taken apart until a domain is somebody else's, or none is left. Source:
trivial-rewrite(8), and the parameters that it names.
"""

import re
from typing import Final, NamedTuple

from libmail.dns.hostname import hostaddr_problem
from libmail.lookup.address_forms import domain_at, is_special, operators, strip_route
from libmail.lookup.context import Lookups
from libmail.lookup.destination import literal_address
from libmail.lookup.rewriting import Rewriter
from libmail.lookup.routing_params import ResolveParams
from libmail.message.tokens import Token, internal, tokenize
from libmail.text.quoting import PLAIN_DOT_ATOM, quote_local

__all__ = ["AddressParser", "Parsed"]

# RFC 1123 §2.1, and the underscore that hosts have in spite of it.
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.A)
_MAX_DOMAIN: Final = 255
# Most addresses: no operator but the @, no leading hyphen, nothing to quote, and a host name with
# a letter in its last label.  There is one way to read them, whatever the parameters say.
_PLAIN: Final = re.compile(
    rf"((?!-){PLAIN_DOT_ATOM})@((?:{_LABEL.pattern}\.)+(?=[0-9_-]*[A-Za-z]){_LABEL.pattern})",
    re.A,
)
_NUMERIC: Final = re.compile(r"[0-9.]+", re.A)
_MAX_STRIPS: Final = 100  # local domains taken off one address: user%a%b@c@d ...


class Parsed(NamedTuple):
    """An address without the domains that are this machine's.

    local: the domain is one of this machine's. bad: the address cannot be used. implied: there
    was no domain.
    """

    user: str
    domain: str
    local: bool
    routed: bool
    bad: bool = False
    implied: bool = False

    @property
    def address(self) -> str:
        """Internal form."""
        return f"{self.user}@{self.domain}"


def _is_routing(token: Token) -> bool:
    """Whatever allow_percent_hack and swap_bangpath say here: the next host may see it so."""
    return any(is_special(token, char) for char in "@%!")


class AddressParser:
    """Takes an address apart. warnings: what is to be logged."""

    __slots__ = ("_lookups", "_params", "_rewriter", "warnings")

    def __init__(self, params: ResolveParams, rewriter: Rewriter, lookups: Lookups) -> None:
        self._params = params
        self._rewriter = rewriter
        self._lookups = lookups
        self.warnings: list[str] = []

    async def parse(self, address: str) -> Parsed:
        """An address in internal form. Raises LookupFailure."""
        params = self._params
        if not address:
            return Parsed(
                params.empty_address_recipient, params.myhostname, True, False, implied=True
            )
        plain = _PLAIN.fullmatch(address)
        if (
            plain is not None
            and len(plain[2]) <= _MAX_DOMAIN
            and not await self._lookups.in_list("mydestination", plain[2])
        ):
            return Parsed(plain[1], plain[2], False, False)
        return await self._parse_forms(address)

    async def _parse_forms(self, address: str) -> Parsed:
        """An address of any form: take off the domains that are ours, and see what is inside."""
        params = self._params
        if params.resolve_dequoted_address:
            tokens = strip_route(operators(address))
        else:
            tokens = strip_route(tokenize(quote_local(address)))
        saved: str | None = None
        for _ in range(_MAX_STRIPS):
            at = domain_at(tokens)
            if at >= 0:
                domain = _without_dot(internal(tokens[at + 1 :]))
                full = self._literal(domain)
                if domain and not await self._lookups.in_list("mydestination", full):
                    return self._elsewhere(tokens[:at], full)
                saved, tokens = domain, tokens[:at]
            form = self._rewriter.routed(tokens)
            if form is None:
                return self._here(address, tokens, saved)
            tokens = form
        return Parsed(address, "", False, False, bad=True)

    def _elsewhere(self, local_part: list[Token], domain: str) -> Parsed:
        routed = any(_is_routing(token) for token in local_part)
        return self._checked(Parsed(internal(local_part), domain, False, routed))

    def _here(self, address: str, tokens: list[Token], domain: str | None) -> Parsed:
        """domain: the last one that was taken off; None: there was none, "": it was empty."""
        if domain == "" and not self._params.resolve_null_domain:
            return Parsed(address, "", False, False, bad=True)
        user = internal(tokens) or self._params.empty_address_recipient
        whole = domain or self._params.myhostname
        routed = any(_is_routing(token) for token in tokens)  # which nobody here follows
        return self._checked(Parsed(user, whole, True, routed, implied=not domain))

    def _literal(self, domain: str) -> str:
        """An address without brackets gets them if resolve_numeric_domain says so."""
        if self._params.resolve_numeric_domain and literal_address(f"[{domain}]"):
            return f"[{domain}]"
        return domain

    def _checked(self, parsed: Parsed) -> Parsed:
        bad = parsed.user.startswith("-") and not self._params.allow_min_user
        if not bad and not parsed.local:
            bad = not self._valid_domain(parsed.domain)
        return parsed._replace(bad=True) if bad else parsed

    def _valid_domain(self, domain: str) -> bool:
        if domain.startswith("["):
            return self._valid_literal(domain)
        if len(domain) > _MAX_DOMAIN or _NUMERIC.fullmatch(domain):
            return False
        if not domain.isascii():
            if not self._params.smtputf8_enable:
                return False
            try:
                domain = domain.encode("idna").decode("ascii")
            except UnicodeError:
                return False
        return all(_LABEL.fullmatch(label) for label in domain.split("."))

    def _valid_literal(self, domain: str) -> bool:
        if not domain.endswith("]"):
            return False
        ipv6 = domain[1:6].lower() == "ipv6:"
        problem = hostaddr_problem(domain[6 if ipv6 else 1 : -1], ipv6=ipv6)
        if problem:
            self.warnings.append(problem)
        return not problem


def _without_dot(domain: str) -> str:
    """Without the dot at its end; what has two, or nothing else, is no domain, and stays so."""
    if domain.endswith(".") and not domain.endswith("..") and domain != ".":
        return domain[:-1]
    return domain
