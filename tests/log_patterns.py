"""What tools that read the log look for, by the tool: pflogsumm, fail2ban, exporters, logwatch.

The expressions are ours, after those of the tools; they match lines without time, host and tag. A
NUL stands for text that a line does not have of itself.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["KNOWN", "known_to"]

_ID: Final = r"(?:\w+|\0)"

# (tools, what they look for)
KNOWN: Final = (
    ("pflogsumm, postfix_exporter: connections", r"^(?:dis)?connect from "),
    ("pflogsumm, postfix_exporter: a message begins", rf"^{_ID}: client="),
    ("postfix_exporter: authenticated sessions", r"sasl_method="),
    ("pflogsumm: submissions", rf"^{_ID}: (?:sender|uid)="),
    ("pflogsumm, logwatch: Message-Id", rf"^{_ID}: (?:resent-)?message-id="),
    ("pflogsumm, postfix_exporter: queue", r"from=<.*>, size=.*, nrcpt="),
    ("postfix_exporter: expiry", r"status=.*returned to sender"),
    ("pflogsumm, postfix_exporter: deliveries", r"\bto=<.*status="),
    ("postfix_exporter: removal", rf"^{_ID}: removed\b"),
    ("logwatch: notifications", r": (?:sender|postmaster|\0) .* notification: "),
    (
        "pflogsumm, fail2ban, postfix_exporter: policy",
        rf"^(?:{_ID}: )?(?:milter-)?(?:reject|hold|discard|redirect|filter|prepend|replace|strip|"
        rf"reject_warning|bcc|delay|permit)(?:: |_)",
    ),
    ("pflogsumm: warnings about content", rf"^{_ID}: (?:warning|info): (?:header|body)\b"),
    (
        "fail2ban, postfix_exporter: ends of sessions",
        r"(?:lost connection|timeout|too many errors) after ",
    ),
    ("fail2ban: pipelining", r"improper command pipelining after "),
    ("pflogsumm, postfix_exporter: servers", r"^connect to .*\["),
    ("pflogsumm: replies of servers", r"^\0: host .* said: "),
    ("postfix_exporter: TLS", r"TLS connection (?:established|reused) (?:from|to) "),
    ("postfix_exporter: names", r"hostname .* does not resolve to address "),
    ("fail2ban, postfix_exporter: SASL", r": SASL .* authentication failed"),
    ("logwatch, collectd: limits", r"(?:limit exceeded): .* from .* for service "),
    ("logwatch: anvil", r"^statistics: "),
    ("pflogsumm: master", r"^(?:daemon started|reload|terminating) (?:--|on signal)"),
    (
        "fail2ban, logwatch: postscreen",
        r"^(?:CONNECT from|PREGREET|HANGUP|DNSBL rank|NON-SMTP COMMAND|BARE NEWLINE|"
        r"COMMAND (?:TIME|COUNT|LENGTH|PIPELINING)|PASS (?:NEW|OLD)|"
        r"(?:ALLOW|DENY|WHITE|BLACK)LISTED)\b",
    ),
)

_COMPILED: Final = tuple((tools, re.compile(what, re.DOTALL)) for tools, what in KNOWN)


def known_to(line: str) -> str:
    """Which tools look for such a line, and why; "" for none. line: without "warning: "."""
    return next((tools for tools, what in _COMPILED if what.search(line)), "")
