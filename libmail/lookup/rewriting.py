"""Rewriting an address to standard form, user@fully.qualified.domain."""

from typing import Final

from libmail.lookup.address_forms import domain_at, is_special, strip_route, to_domain_form
from libmail.lookup.routing_params import RewriteParams
from libmail.message.tokens import Kind, Token, internal, tokenize

__all__ = ["LOCAL", "REMOTE", "Rewriter"]

LOCAL: Final = "local"
REMOTE: Final = "remote"


class Rewriter:
    """Completes addresses; see trivial-rewrite(8), "rewrite"."""

    def __init__(self, params: RewriteParams) -> None:
        self._params = params

    def rewrite(self, context: str, address: str) -> str:
        """The standard form, internal, of an address in external form.

        context: LOCAL appends our domain to an incomplete address, REMOTE that of
        remote_header_rewrite_domain. The null address stays what it is.
        """
        params = self._params
        tokens = [token for token in tokenize(address) if token.kind is not Kind.COMMENT]
        tokens = strip_route(tokens)
        if not tokens:
            return ""
        if context == REMOTE:
            origin = params.remote_header_rewrite_domain
            domain = origin
        else:
            origin, domain = params.myorigin, params.mydomain
        if domain_at(tokens) < 0:
            tokens = self._add_domain(tokens, origin)
        elif is_special(tokens[-1], ".") and not (
            is_special(tokens[-2], ".") or is_special(tokens[-2], "@")
        ):
            return internal(tokens[:-1])
        return internal(self._complete_domain(tokens, domain))

    def routed(self, tokens: list[Token]) -> list[Token] | None:
        """What is left of an address without its domain, as an address with a domain of its own.

        a@host, a%host and host!a become a@host.domain; None if it is the name of a user.
        """
        params = self._params
        if domain_at(tokens) < 0:
            form = to_domain_form(
                tokens, bang=params.swap_bangpath, percent=params.allow_percent_hack
            )
            if form is None:
                return None
            tokens = form
        return self._complete_domain(tokens, params.mydomain)

    def _add_domain(self, tokens: list[Token], origin: str) -> list[Token]:
        params = self._params
        form = to_domain_form(tokens, bang=params.swap_bangpath, percent=params.allow_percent_hack)
        if form is not None:
            return form
        if params.append_at_myorigin and origin:
            return [*tokens, Token(Kind.SPECIAL, "@"), *tokenize(origin)]
        return tokens

    def _complete_domain(self, tokens: list[Token], domain: str) -> list[Token]:
        """Add the parent domain to a domain of one label."""
        at = domain_at(tokens)
        labels = tokens[at + 1 :]
        if (
            self._params.append_dot_mydomain
            and domain
            and at >= 0
            and labels
            and not any(_dotted(label) for label in labels)
        ):
            return [*tokens, Token(Kind.SPECIAL, "."), *tokenize(domain)]
        return tokens


def _dotted(label: Token) -> bool:
    """Whether it makes a domain complete: a dot, or a literal."""
    if label.kind is Kind.ATOM:
        return "." in label.text or label.text.startswith("[")
    return label.kind is Kind.LITERAL or is_special(label, ".")
