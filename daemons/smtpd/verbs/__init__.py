"""The commands that smtpd(8) understands. The order is that of the counters in the log."""

from collections.abc import Mapping
from typing import Final

from daemons.smtpd.session import Verb
from daemons.smtpd.verbs.content import bdat, data
from daemons.smtpd.verbs.etrn import etrn
from daemons.smtpd.verbs.helo import ehlo, helo
from daemons.smtpd.verbs.mail import mail
from daemons.smtpd.verbs.other import auth, help_, noop, not_here, quit_, rset, unauthorized
from daemons.smtpd.verbs.rcpt import rcpt, vrfy

__all__ = ["VERBS"]

VERBS: Final[Mapping[str, Verb]] = {
    verb.name: verb
    for verb in (
        Verb("HELO", helo, limited=True, last=True),
        Verb("EHLO", ehlo, limited=True, last=True),
        Verb("STARTTLS", not_here, last=True),
        Verb("XCLIENT", unauthorized, last=True),
        Verb("XFORWARD", unauthorized, last=True),
        Verb("AUTH", auth, last=True),
        Verb("MAIL", mail),
        Verb("RCPT", rcpt),
        Verb("DATA", data, last=True),
        Verb("BDAT", bdat),
        Verb("RSET", rset, limited=True),
        Verb("NOOP", noop, limited=True, last=True),
        Verb("VRFY", vrfy, limited=True, last=True),
        Verb("ETRN", etrn, limited=True, last=True),
        Verb("HELP", help_, limited=True, last=True),
        Verb("QUIT", quit_, ends=True),
    )
}
