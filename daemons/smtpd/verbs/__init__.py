"""The commands that smtpd(8) understands, in the order of the counters in the log.

A row decides nearly everything about a command: see `Verb`. EHLO keywords that do not belong to a
command (SIZE, 8BITMIME, ...), and AUTH, whose line depends on more, are in `daemons.smtpd.ehlo`.
"""

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
        Verb("HELO", helo, before_tls=True, junk=True, last=True),
        Verb("EHLO", ehlo, before_tls=True, junk=True, last=True),
        Verb(
            "XCLIENT",
            xclient,
            off=xclient_off,
            keyword="XCLIENT",
            details=xclient_names,
            before_tls=True,
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
            before_tls=True,
            no_argument=True,
            last=True,
        ),
        Verb("AUTH", auth, last=True),
        Verb("MAIL", mail),
        Verb("RCPT", rcpt),
        Verb("DATA", data, last=True),
        Verb("BDAT", bdat, off=chunking_off, keyword="CHUNKING"),
        Verb("RSET", rset, no_argument=True, junk=True),
        Verb("NOOP", noop, before_tls=True, junk=True, last=True),
        Verb("VRFY", vrfy, off=vrfy_off, keyword="VRFY", junk=True, last=True),
        Verb("ETRN", etrn, keyword="ETRN", junk=True, last=True),
        Verb("HELP", help_, junk=True, last=True),
        Verb("QUIT", quit_, before_tls=True, ends=True),
    )
}
