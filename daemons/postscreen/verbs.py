"""The commands of the built-in SMTP engine. None of them awaits anything."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from daemons.postscreen.params import PostscreenParams
from daemons.postscreen.screening import Screening
from libmail.log import LOG
from libmail.smtp.address import AddressSyntax, parse_path, without_line_breaks
from libmail.smtp.reply import Reply
from libmail.tls.levels import Level

__all__ = ["READY", "VERBS", "SmtpState"]

READY: Final = Reply(220, "2.0.0", "Ready to start TLS")
_OK: Final = Reply(250, "2.0.0", "Ok")
_BYE: Final = Reply(221, "2.0.0", "Bye")
_NOT_HERE: Final = Reply(502, "5.5.1", "Error: command not implemented")
_IN_THE_CLEAR: Final = frozenset(("HELO", "EHLO", "STARTTLS", "NOOP", "QUIT"))
_NO_HELO: Final = Reply(503, "5.5.1", "Error: send HELO/EHLO first")
_EXTENSIONS: Final = (
    "SIZE", "VRFY", "ETRN", "STARTTLS", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN",
    "SMTPUTF8", "CHUNKING", "REQUIRETLS",
)  # fmt: skip
_CHUNK: Final = re.compile(r"[0-9]{1,19}(?:[ \t]+LAST)?", re.I)
# Characters with a meaning in a log line.
_UNSAFE: Final = {ord(char): "?" for char in '<>()\\";@'}


class SmtpState:
    """The state of an SMTP session with the engine.

    client: as in the log. discard: hidden EHLO keywords. sender: None outside of a transaction.
    where: the last command, at first CONNECT. rejected: the recipient that the current reply
    refuses, "" for none. over: the current reply is the last one. tls: the level of the service.
    secured: TLS is active. wants_tls: STARTTLS was given, and is to be answered by the session.
    """

    __slots__ = (
        "client",
        "discard",
        "helo",
        "over",
        "params",
        "protocol",
        "rejected",
        "screening",
        "secured",
        "sender",
        "tls",
        "wants_tls",
        "where",
    )  # fmt: skip

    def __init__(
        self,
        params: PostscreenParams,
        screening: Screening,
        client: str,
        discard: frozenset[str],
        tls: Level,
    ) -> None:
        self.params = params
        self.screening = screening
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

    def restart(self) -> None:
        """TLS has started: forget what the client said before (RFC 3207 §4.2)."""
        self.secured = True
        self.helo = ""
        self.protocol = "SMTP"
        self.sender = None
        self.where = "STARTTLS"

    def needs_tls(self, verb: str) -> bool:
        """Whether a command is refused until TLS is active."""
        return self.tls.enforced and not self.secured and verb not in _IN_THE_CLEAR


def _helo(state: SmtpState, argument: str) -> Reply:
    if not argument:
        return Reply(501, "", "Syntax: HELO hostname")
    _introduce(state, argument)
    return Reply(250, "", state.params.myhostname)


def _ehlo(state: SmtpState, argument: str) -> Reply:
    if not argument:
        return Reply(501, "", "Syntax: EHLO hostname")
    _introduce(state, argument)
    state.protocol = "ESMTP"  # from now on, as in Postfix
    lines = [state.params.myhostname]
    lines += [_detailed(state, word) for word in _EXTENSIONS if _offered(state, word)]
    if state.discard and "SILENT-DISCARD" not in state.discard:
        hidden = ", ".join([word for word in _EXTENSIONS if word in state.discard])
        LOG.info(f"{state.client}: discarding EHLO keywords: {hidden}")
    return Reply(250, "", "\n".join(lines))


def _introduce(state: SmtpState, name: str) -> None:
    name = name.split()[0].translate(_UNSAFE)
    state.helo = "".join([char if char.isprintable() else "?" for char in name])
    state.sender = None


def _offered(state: SmtpState, word: str) -> bool:
    params = state.params
    disabled = (
        (word == "VRFY" and params.postscreen_disable_vrfy_command)
        or (word == "SMTPUTF8" and not params.smtputf8_enable)
        or (word == "REQUIRETLS" and not (params.requiretls_enable and state.secured))
    )
    if word == "STARTTLS" and (state.tls is Level.NONE or state.secured):
        return False
    return word not in state.discard and not disabled


def _detailed(state: SmtpState, word: str) -> str:
    limit = state.params.message_size_limit
    return f"SIZE {limit}" if word == "SIZE" and limit else word


def _starttls(state: SmtpState, argument: str) -> Reply:
    if argument:
        return Reply(501, "5.5.4", "Syntax: STARTTLS")
    if state.secured:
        return Reply(554, "5.5.1", "Error: TLS already active")
    if state.tls is Level.NONE or "STARTTLS" in state.discard:
        return _NOT_HERE
    state.wants_tls = True
    return READY


def _mail(state: SmtpState, argument: str) -> Reply:
    if state.params.postscreen_helo_required and not state.helo:
        return _NO_HELO
    if state.sender is not None:
        return Reply(503, "5.5.1", "Error: nested MAIL command")
    if argument[:5].upper() != "FROM:" or not argument[5:].strip():
        return Reply(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    try:
        state.sender = _address(argument[5:])
    except AddressSyntax:
        return Reply(501, "5.1.7", "Bad sender address syntax")
    return Reply(250, "2.1.0", "Ok")


def _rcpt(state: SmtpState, argument: str) -> Reply:
    if state.sender is None:
        return Reply(503, "5.5.1", "Error: need MAIL command")
    if argument[:3].upper() != "TO:" or not argument[3:].strip():
        return Reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
    try:
        recipient = _address(argument[3:])
    except AddressSyntax:
        recipient = ""
    if not recipient:
        return Reply(501, "5.1.3", "Bad recipient address syntax")
    state.rejected = recipient
    return state.screening.answer


def _address(text: str) -> str:
    """Raises AddressSyntax."""
    return without_line_breaks(parse_path(text, utf8=True)[0])


def _data(state: SmtpState, argument: str) -> Reply:
    if argument:
        return Reply(501, "5.5.4", "Syntax: DATA")
    if state.sender is None:
        return Reply(503, "5.5.1", "Error: need RCPT command")
    return _no_recipients(state, "DATA")


def _bdat(state: SmtpState, argument: str) -> Reply:
    state.over = True  # what follows is no command
    if not _CHUNK.fullmatch(argument):
        return Reply(501, "5.5.4", "Syntax: BDAT count [LAST]")
    if state.sender is None:
        return Reply(554, "5.5.1", "Error: need MAIL command")
    return _no_recipients(state, "BDAT")


def _no_recipients(state: SmtpState, verb: str) -> Reply:
    """All recipients were refused: a client that goes on to the content ignores replies."""
    LOG.info(f"{verb} without valid RCPT from {state.client}")
    state.over = True
    return Reply(554, "5.5.1", "Error: no valid recipients")


def _rset(state: SmtpState, _: str) -> Reply:
    state.sender = None
    return _OK


def _vrfy(state: SmtpState, argument: str) -> Reply:
    if state.params.postscreen_disable_vrfy_command:
        return Reply(502, "5.5.1", "VRFY command is disabled")
    return state.screening.answer if argument else Reply(501, "5.5.4", "Syntax: VRFY address")


def _etrn(state: SmtpState, argument: str) -> Reply:
    if state.params.postscreen_helo_required and not state.helo:
        return _NO_HELO
    return (
        Reply(458, "", "Unable to queue messages")
        if argument
        else Reply(500, "", "Syntax: ETRN domain")
    )


def _quit(state: SmtpState, _: str) -> Reply:
    state.over = True
    return _BYE


VERBS: Final[Mapping[str, Callable[[SmtpState, str], Reply]]] = {
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
"""The commands by name."""
