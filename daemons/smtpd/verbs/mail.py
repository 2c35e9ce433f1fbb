"""MAIL, RFC 5321 §4.1.1.2, with SIZE, BODY, SMTPUTF8 and the DSN parameters."""

import time
from dataclasses import dataclass, replace
from typing import Final

from daemons.smtpd.answer import WRITE_ERROR, Answer, answer, by_policy
from daemons.smtpd.before_queue import FilterRefusal
from daemons.smtpd.ehlo import offers_smtputf8
from daemons.smtpd.session import Session
from daemons.smtpd.transaction import Transaction
from libmail.ipc.messages import EnvelopeFlag, ResolveFlag
from libmail.log import LOG
from libmail.message.verp import usable_delimiters
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.address import (
    AddressSyntax,
    Unterminated,
    XtextError,
    address_fault,
    parse_parameters,
    parse_path,
    split_address,
    split_path,
    without_line_breaks,
    xtext_decode,
)
from libmail.smtp.reply import Reply
from libmail.text.printable import printable

__all__ = ["UNDECLARED_UTF8", "UndeclaredUtf8", "address_problem", "mail", "path_of"]

UNDECLARED_UTF8: Final = answer(
    Reply(553, "5.6.7", "Must declare SMTPUTF8 to send unicode address")
)
_OK: Final = answer(Reply(250, "2.1.0", "Ok"))
_BAD: Final = answer(Reply(501, "5.1.7", "Bad sender address syntax"))
_ERROR: Final = int(ResolveFlag.ERROR)
_REQUIRETLS: Final = int(EnvelopeFlag.REQUIRETLS)
_LARGEST: Final = 2**63 - 1
_RET: Final = {"HDRS": EnvelopeFlag.DSN_HEADERS, "FULL": EnvelopeFlag.DSN_FULL}


class UndeclaredUtf8(Exception):
    """strict_smtputf8: an address that is not ASCII, without the SMTPUTF8 parameter."""


class _Refused(Exception):
    """A parameter is refused."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass(slots=True)
class _Options:
    """The parameters of MAIL; None: not given."""

    flags: int = 0
    size: int = 0
    ret: bool = False
    envid: str | None = None
    verp: str | None = None
    auth: str | None = None


_NO_OPTIONS: Final = _Options()


async def mail(session: Session, argument: str) -> Answer:
    """MAIL FROM:<path> parameters."""
    server, facts = session.server, session.facts
    refused = _out_of_turn(session)
    if refused is None and session.rates is not None:
        too_many = await session.rates.message(session.client)
        refused = None if too_many is None else by_policy(too_many)
    if refused is not None:
        return refused
    if argument[:5].upper() != "FROM:" or not argument[5:].strip():
        return answer(Reply(501, "5.5.4", "Syntax: MAIL FROM:<address>"))
    wants_utf8 = "SMTPUTF8" in argument.upper().split()
    try:
        sender, rest = path_of(session, argument[5:], "MAIL", utf8=wants_utf8)
        if sender:
            problem = await address_problem(session, sender, argument[5:], _BAD, utf8=wants_utf8)
            if problem is not None:
                return problem
        options = await _options(session, rest) if rest else _NO_OPTIONS
    except AddressSyntax:
        return _BAD
    except UndeclaredUtf8:
        return UNDECLARED_UTF8
    except _Refused as err:
        return err.answer
    if options.verp is not None and not sender:
        return answer(Reply(503, "5.5.4", "Error: XVERP requires non-null sender"))
    if facts.sasl is not None:
        given = options.auth if options.auth not in (None, "<>") else ""
        facts.sasl = replace(facts.sasl, sender=printable(given or ""))
    sender = without_line_breaks(sender)
    decision = await _decide(session, sender, argument[5:], options)
    if decision is not None:
        session.drop_transaction()
        return decision
    transaction = session.transaction = Transaction(
        sender=sender,
        flags=options.flags,
        dsn_envid=options.envid or "",
        arrival=time.time(),
        line=_line(session.line, rest, options),
        verp_delims=options.verp or "",
    )
    facts.mail.instance = server.instance()
    if server.params.smtpd_delay_open_until_valid_rcpt:
        return _OK
    try:
        await session.open_submission(transaction)
    except ServiceUnavailable as err:
        LOG.warning(f"cannot begin a message: {err}")
        session.drop_transaction()
        return WRITE_ERROR
    except FilterRefusal as err:
        session.drop_transaction()
        return err.answer
    return _OK


def _out_of_turn(session: Session) -> Answer | None:
    """The refusal of a message now, whatever it is."""
    if session.server.params.smtpd_helo_required and not session.facts.helo_name:
        return by_policy(Reply(503, "5.5.1", "Error: send HELO/EHLO first"))
    if session.transaction is not None:
        return answer(Reply(503, "5.5.1", "Error: nested MAIL command"))
    if session.chunks is not None:
        return answer(Reply(503, "5.5.1", "Error: MAIL after BDAT"))
    return None


def _line(line: str, rest: str, options: _Options) -> str:
    """The command for a filter before the queue, which sees REQUIRETLS as a field of the header."""
    if not options.flags & _REQUIRETLS:
        return line
    kept = [word for word in rest.split() if word.upper() != "REQUIRETLS"]
    return " ".join([line.strip().removesuffix(rest.strip()).rstrip(), *kept])


def path_of(session: Session, text: str, verb: str, *, utf8: bool) -> tuple[str, str]:
    """(address, parameters behind it). Logs an invalid address.

    utf8: the client has said that the address may be other than ASCII. Raises AddressSyntax,
    UndeclaredUtf8.
    """
    params = session.server.params
    try:
        address, rest = parse_path(text, utf8=True, strict=params.strict_rfc821_envelopes)
        if not (address.isascii() or utf8) and params.strict_smtputf8 and params.smtputf8_enable:
            if split_address(address)[1].isascii():
                raise UndeclaredUtf8
            raise AddressSyntax(text)
    except AddressSyntax as err:
        if not isinstance(err, Unterminated):
            LOG.warning(f"Illegal address syntax from {session.client} in {verb} command: {err}")
        raise
    if address_fault(address):
        LOG.warning(f"Illegal address syntax from {session.client} in {verb} command: {text}")
        raise AddressSyntax(text)
    return address, rest


async def _options(session: Session, text: str) -> _Options:
    """Raises _Refused."""
    options = _Options()
    rules, client = session.server.clients, session.facts.client
    verp = "XVERP" in text.upper() and await rules.allows_verp(client)
    for name, value in parse_parameters(text):
        if name == "XVERP" and verp:
            options.verp = _delimiters(session, value)
        elif value is None:
            options.flags |= _flag(session, text, name)
        elif name == "SIZE":
            options.size = _size(session, value)
        elif name == "BODY" and value.upper() in ("7BIT", "8BITMIME"):
            if value.upper() == "8BITMIME":
                options.flags |= EnvelopeFlag.EIGHTBIT
        elif name == "AUTH" and session.server.logins.possible(session.facts):
            _auth_option(session, options, value)
        elif name in ("RET", "ENVID"):
            _dsn_option(session, options, name, value)
        else:
            raise _Refused(_unsupported(text, name, value))
    return options


def _flag(session: Session, text: str, name: str) -> EnvelopeFlag:
    """What a parameter without a value asks for. Raises _Refused."""
    params = session.server.params
    if name == "SMTPUTF8" and offers_smtputf8(session):
        return EnvelopeFlag.SMTPUTF8
    if name == "REQUIRETLS" and params.requiretls_enable and name not in session.discard:
        if session.facts.tls is None:
            raise _Refused(answer(Reply(530, "5.7.0", "Must issue a STARTTLS command first")))
        return EnvelopeFlag.REQUIRETLS
    raise _Refused(_unsupported(text, name, None))


def _unsupported(text: str, name: str, value: str | None) -> Answer:
    """The refusal of a parameter, as the client spelled it."""
    wanted = name.upper() if value is None else f"{name}={value}".upper()
    given = next((word for word in text.split() if word.upper() == wanted), name)
    return answer(Reply(555, "5.5.4", f"Unsupported option: {given}"))


def _delimiters(session: Session, value: str | None) -> str:
    """What XVERP asks for. Raises _Refused."""
    params = session.server.params
    if value is None:
        return params.default_verp_delimiters
    allowed = params.verp_delimiter_filter
    if not usable_delimiters(value, allowed):
        raise _Refused(
            answer(Reply(501, "5.5.4", f"Error: XVERP needs two characters from {allowed}"))
        )
    return value


def _size(session: Session, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise _Refused(answer(Reply(501, "5.5.4", "Bad message size syntax")))
    if len(value) > 19 or int(value) > _LARGEST:
        reply = Reply(552, "5.3.4", "Message size exceeds file system imposed limit")
        raise _Refused(by_policy(reply))
    return int(value)


def _auth_option(session: Session, options: _Options, value: str) -> None:
    """AUTH=: who submitted the message originally, RFC 4954 §5; used if the client has logged in.

    Raises _Refused.
    """
    if "AUTH" in session.discard:
        raise _Refused(answer(Reply(503, "5.5.4", "Error: authentication disabled")))
    if options.auth is not None:
        raise _Refused(answer(Reply(503, "5.5.4", "Error: multiple AUTH= options")))
    options.auth = value


def _dsn_option(session: Session, options: _Options, name: str, value: str) -> None:
    """RET and ENVID, RFC 3461 §4.3 and §4.4. Raises _Refused."""
    if "DSN" in session.discard:
        raise _Refused(answer(Reply(501, "5.7.1", "DSN support is disabled")))
    bad = _Refused(answer(Reply(501, "5.5.4", f"Bad {name} parameter syntax")))
    if name == "RET":
        flag = _RET.get(value.upper())
        if flag is None or options.ret:
            raise bad
        options.ret = True
        options.flags |= flag
        return
    if not value or options.envid is not None:
        raise bad
    try:
        # "=" is no xchar (RFC 3461 §4), and some clients leave it as it is.
        options.envid = xtext_decode(value.replace("=", "+3D"))
    except XtextError:
        raise bad from None
    if not options.envid.isprintable():
        raise bad


async def _decide(session: Session, sender: str, text: str, options: _Options) -> Answer | None:
    server, facts = session.server, session.facts
    facts.mail.sender, facts.mail.size = sender, options.size
    refused = _no_room(session, options.size)
    if refused is not None:
        session.log("reject", refused.reply.line)
        return refused
    if session.milters is not None:
        refused = await session.milters.mail(split_path(text)[1])
        if refused is not None:
            return refused
    if not server.restrictions.at_mail:
        return None
    return session.judge(await server.restrictions.mail(facts, session.lookups))


def _no_room(session: Session, size: int) -> Answer | None:
    """The refusal of a message of the announced size, None if there is space."""
    params = session.server.params
    limit = params.message_size_limit
    if limit and size > limit:
        return by_policy(Reply(552, "5.3.4", "Message size exceeds fixed limit"))
    free = session.server.free_space()
    if params.queue_minfree and free < params.queue_minfree:
        LOG.warning(f"not enough free space in mail queue: {free} bytes < queue_minfree")
    elif limit and free < 1.5 * limit:
        LOG.warning(f"not enough free space in mail queue: {free} bytes < 1.5*message size limit")
    elif size <= free:
        return None
    return Answer(Reply(452, "4.3.1", "Insufficient system storage"), error=True, kind="resource")


async def address_problem(
    session: Session, address: str, text: str, bad: Answer, *, utf8: bool
) -> Answer | None:
    """The refusal of an address that trivial-rewrite finds invalid (`bad`), or cannot resolve now.

    text: the argument of the command, for the log. utf8: the domain may be other than ASCII, as the
    client has said SMTPUTF8; what is in front of it may be in any case. Returns None for a valid
    address.
    """
    try:
        resolved = await session.server.rewrite.resolve_completed("", address)
    except ServiceUnavailable as err:
        LOG.warning(f"resolve {address}: {err}")
        return answer(Reply(451, "4.3.0", f"<{address}>: Temporary lookup failure"))
    known = utf8 or address.isascii() or split_address(address)[1].isascii()
    if resolved.flags & _ERROR or not known:
        where = session.facts.where
        path = split_path(text)[0]
        LOG.warning(f"Illegal address syntax from {session.client} in {where} command: {path}")
        return bad
    return None
