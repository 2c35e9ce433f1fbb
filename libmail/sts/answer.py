"""What an MTA-STS policy means for the client, as an entry of smtp_tls_policy_maps.

The words are those that plug-ins of Postfix give, and one more, `policy_mode`: by it the client
knows that DANE goes first (RFC 8461 §2), and what is to be reported, and not enforced.
"""

from __future__ import annotations

from libmail.sts.policy import Mode, Policy

__all__ = ["entry_of", "entry_without"]


def entry_of(domain: str, policy: Policy) -> str | None:
    """The entry for a domain; None where its policy is that there is none."""
    if policy.mode is Mode.NONE:
        return None
    match = ":".join(pattern.removeprefix("*") for pattern in policy.mx)
    words = [f"secure match={match} servername=hostname {_named(domain, policy.mode)}"]
    words += [f"mx_host_pattern={pattern}" for pattern in policy.mx]
    words += [f"{{ policy_string = {line} }}" for line in policy.lines]
    return " ".join(words)


def entry_without(domain: str, failure: str) -> str:
    """The entry for a domain whose policy cannot be had: nothing is enforced, RFC 8461 §3.3.

    failure: for reports, "sts-policy-invalid" or one of its sisters (RFC 8460 §4.3.2.1).
    """
    return f"secure {_named(domain, Mode.TESTING)} policy_failure={failure}"


def _named(domain: str, mode: Mode) -> str:
    return f"policy_type=sts policy_domain={domain} policy_mode={mode.value}"
