"""The commands of postscreen's own SMTP. None of them needs to wait for anything."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from daemons.postscreen.params import PostscreenParams
from daemons.postscreen.trial import Case
from libmail.log import LOG
from libmail.smtp.address import AddressSyntax, parse_path, without_line_breaks
from libmail.smtp.reply import Reply
from libmail.tls.levels import Level

__all__ = ["READY", "VERBS", "Talk"]

READY: Final = Reply(220, "2.0.0", "Ready to start TLS")
_OK: Final = Reply(250, "2.0.0", "Ok")
_BYE: Final = Reply(221, "2.0.0", "Bye")
_NOT_HERE: Final = Reply(502, "5.5.1", "Error: command not implemented")
_IN_THE_CLEAR: Final = frozenset(("HELO", "EHLO", "STARTTLS", "NOOP", "QUIT"))
_NO_HELO: Final = Reply(503, "5.5.1", "Error: send HELO/EHLO first")
_EXTENSIONS: Final = (
    "SIZE", "VRFY", "ETRN", "STARTTLS", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN",
    "SMTPUTF8", "CHUNKING",
)  # fmt: skip
_CHUNK: Final = re.compile(r"[0-9]{1,19}(?:[ \t]+LAST)?", re.I)
# What would be misread in a log line.
_UNSAFE: Final = {ord(char): "?" for char in '<>()\\";@'}


class Talk:
    """What was said in a session.

    sender: None outside of a transaction. where: the command before, CONNECT at first. rejected: a
    recipient that the reply at hand refuses, "" for none. over: the reply at hand is the last. tls:
    the level; secured: what is said is inside of TLS; wants_tls: the reply at hand is up to who
    can start it.
    """

    __slots__ = (
        "case", "client", "discard", "helo", "over", "params", "protocol", "rejected", "secured",
        "sender", "tls", "wants_tls", "where",
    )  # fmt: skip

    def __init__(
        self,
        params: PostscreenParams,
        case: Case,
        client: str,
        discard: frozenset[str],
        tls: Level,
    ) -> None:
        self.params = params
        self.case = case
        self.client = client
        self.discard = discard
        self.helo = ""
        self.protocol = "SMTP"
        self.sender: str | None = None
        self.where = "CONNECT"
        self.rejected = ""
        self.over = False
        self.tls = tls
        self.secured = False
        self.wants_tls = False

    def begin_again(self) -> None:
        """Inside of TLS: nothing that was said before counts (RFC 3207 §4.2)."""
        self.secured = True
        self.helo = ""
        self.protocol = "SMTP"
        self.sender = None
        self.where = "STARTTLS"

    def needs_tls(self, verb: str) -> bool:
        """Whether a command has to wait until there is TLS."""
        return self.tls.enforced and not self.secured and verb not in _IN_THE_CLEAR


def _helo(talk: Talk, argument: str) -> Reply:
    if not argument:
        return Reply(501, "", "Syntax: HELO hostname")
    _introduce(talk, argument)
    return Reply(250, "", talk.params.myhostname)


def _ehlo(talk: Talk, argument: str) -> Reply:
    if not argument:
        return Reply(501, "", "Syntax: EHLO hostname")
    _introduce(talk, argument)
    talk.protocol = "ESMTP"  # from now on, as in Postfix
    lines = [talk.params.myhostname]
    lines += [_detailed(talk, word) for word in _EXTENSIONS if _offered(talk, word)]
    if talk.discard and "SILENT-DISCARD" not in talk.discard:
        hidden = ", ".join([word for word in _EXTENSIONS if word in talk.discard])
        LOG.info(f"{talk.client}: discarding EHLO keywords: {hidden}")
    return Reply(250, "", "\n".join(lines))


def _introduce(talk: Talk, name: str) -> None:
    name = name.split()[0].translate(_UNSAFE)
    talk.helo = "".join([char if char.isprintable() else "?" for char in name])
    talk.sender = None


def _offered(talk: Talk, word: str) -> bool:
    params = talk.params
    disabled = (word == "VRFY" and params.postscreen_disable_vrfy_command) or (
        word == "SMTPUTF8" and not params.smtputf8_enable
    )
    if word == "STARTTLS" and (talk.tls is Level.NONE or talk.secured):
        return False
    return word not in talk.discard and not disabled


def _detailed(talk: Talk, word: str) -> str:
    limit = talk.params.message_size_limit
    return f"SIZE {limit}" if word == "SIZE" and limit else word


def _starttls(talk: Talk, argument: str) -> Reply:
    if argument:
        return Reply(501, "5.5.4", "Syntax: STARTTLS")
    if talk.secured:
        return Reply(554, "5.5.1", "Error: TLS already active")
    if talk.tls is Level.NONE or "STARTTLS" in talk.discard:
        return _NOT_HERE
    talk.wants_tls = True
    return READY


def _mail(talk: Talk, argument: str) -> Reply:
    if talk.params.postscreen_helo_required and not talk.helo:
        return _NO_HELO
    if talk.sender is not None:
        return Reply(503, "5.5.1", "Error: nested MAIL command")
    if argument[:5].upper() != "FROM:" or not argument[5:].strip():
        return Reply(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    try:
        talk.sender = _address(argument[5:])
    except AddressSyntax:
        return Reply(501, "5.1.7", "Bad sender address syntax")
    return Reply(250, "2.1.0", "Ok")


def _rcpt(talk: Talk, argument: str) -> Reply:
    if talk.sender is None:
        return Reply(503, "5.5.1", "Error: need MAIL command")
    if argument[:3].upper() != "TO:" or not argument[3:].strip():
        return Reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
    try:
        recipient = _address(argument[3:])
    except AddressSyntax:
        recipient = ""
    if not recipient:
        return Reply(501, "5.1.3", "Bad recipient address syntax")
    talk.rejected = recipient
    return talk.case.answer


def _address(text: str) -> str:
    """Raises AddressSyntax."""
    return without_line_breaks(parse_path(text, utf8=True)[0])


def _data(talk: Talk, argument: str) -> Reply:
    if argument:
        return Reply(501, "5.5.4", "Syntax: DATA")
    if talk.sender is None:
        return Reply(503, "5.5.1", "Error: need RCPT command")
    return _no_recipients(talk, "DATA")


def _bdat(talk: Talk, argument: str) -> Reply:
    talk.over = True  # what follows is no command
    if not _CHUNK.fullmatch(argument):
        return Reply(501, "5.5.4", "Syntax: BDAT count [LAST]")
    if talk.sender is None:
        return Reply(554, "5.5.1", "Error: need MAIL command")
    return _no_recipients(talk, "BDAT")


def _no_recipients(talk: Talk, verb: str) -> Reply:
    """Whoever goes on to the content does not listen to replies."""
    LOG.info(f"{verb} without valid RCPT from {talk.client}")
    talk.over = True
    return Reply(554, "5.5.1", "Error: no valid recipients")


def _rset(talk: Talk, _: str) -> Reply:
    talk.sender = None
    return _OK


def _vrfy(talk: Talk, argument: str) -> Reply:
    if talk.params.postscreen_disable_vrfy_command:
        return Reply(502, "5.5.1", "VRFY command is disabled")
    return talk.case.answer if argument else Reply(501, "5.5.4", "Syntax: VRFY address")


def _etrn(talk: Talk, argument: str) -> Reply:
    if talk.params.postscreen_helo_required and not talk.helo:
        return _NO_HELO
    return (
        Reply(458, "", "Unable to queue messages")
        if argument
        else Reply(500, "", "Syntax: ETRN domain")
    )


def _quit(talk: Talk, _: str) -> Reply:
    talk.over = True
    return _BYE


VERBS: Final[Mapping[str, Callable[[Talk, str], Reply]]] = {
    "HELO": _helo,
    "EHLO": _ehlo,
    "STARTTLS": _starttls,
    "AUTH": lambda _, __: _NOT_HERE,
    "XCLIENT": lambda _, __: _NOT_HERE,
    "XFORWARD": lambda _, __: _NOT_HERE,
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _data,
    "BDAT": _bdat,
    "RSET": _rset,
    "NOOP": lambda _, __: _OK,
    "VRFY": _vrfy,
    "ETRN": _etrn,
    "QUIT": _quit,
}
"""By their names."""
