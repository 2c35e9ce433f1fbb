"""The commands that smtpd(8) understands. The order is that of the counters in the log."""

from collections.abc import Mapping
from typing import Final

from daemons.smtpd.verb import Verb
from daemons.smtpd.verbs.auth import auth
from daemons.smtpd.verbs.content import bdat, chunking_off, data
from daemons.smtpd.verbs.etrn import etrn
from daemons.smtpd.verbs.helo import ehlo, helo
from daemons.smtpd.verbs.mail import mail
from daemons.smtpd.verbs.other import help_, noop, quit_, rset
from daemons.smtpd.verbs.rcpt import rcpt, vrfy, vrfy_off
from daemons.smtpd.verbs.starttls import starttls, starttls_off
from daemons.smtpd.verbs.xclient import (
    xclient,
    xclient_names,
    xclient_off,
    xforward,
    xforward_names,
    xforward_off,
)

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    verb.name: verb
    for verb in (
        Verb("HELO", helo, clear=True, limited=True, last=True),
        Verb("EHLO", ehlo, clear=True, limited=True, last=True),
        Verb(
            "XCLIENT",
            xclient,
            off=xclient_off,
            keyword="XCLIENT",
            details=xclient_names,
            clear=True,
            last=True,
        ),
        Verb(
            "XFORWARD",
            xforward,
            off=xforward_off,
            keyword="XFORWARD",
            details=xforward_names,
            last=True,
        ),
        Verb(
            "STARTTLS",
            starttls,
            off=starttls_off,
            keyword="STARTTLS",
            clear=True,
            bare=True,
            last=True,
        ),
        Verb("AUTH", auth, last=True),
        Verb("MAIL", mail),
        Verb("RCPT", rcpt),
        Verb("DATA", data, last=True),
        Verb("BDAT", bdat, off=chunking_off, keyword="CHUNKING"),
        Verb("RSET", rset, bare=True, limited=True),
        Verb("NOOP", noop, clear=True, limited=True, last=True),
        Verb("VRFY", vrfy, off=vrfy_off, keyword="VRFY", limited=True, last=True),
        Verb("ETRN", etrn, keyword="ETRN", limited=True, last=True),
        Verb("HELP", help_, limited=True, last=True),
        Verb("QUIT", quit_, clear=True, ends=True),
    )
}
