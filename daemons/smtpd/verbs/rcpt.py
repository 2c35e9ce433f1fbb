"""RCPT, RFC 5321 §4.1.1.3, with the DSN parameters; VRFY."""

import re
from typing import Final

from daemons.smtpd.answer import WRITE_ERROR, Answer, answer, by_policy, uncounted
from daemons.smtpd.before_queue import FilterRefusal
from daemons.smtpd.session import Session
from daemons.smtpd.transaction import Transaction
from daemons.smtpd.verbs.mail import (
    UNDECLARED_UTF8,
    UndeclaredUtf8,
    address_problem,
    path_of,
)
from libmail.ipc.messages import CleanupFlag, DsnNotify, EnvelopeFlag, Recipient
from libmail.log import LOG
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.address import (
    AddressSyntax,
    XtextError,
    parse_parameters,
    split_path,
    without_line_breaks,
    xtext_decode,
    xtext_encode,
)
from libmail.smtp.reply import Reply

__all__ = ["rcpt", "vrfy", "vrfy_off"]

_OK: Final = answer(Reply(250, "2.1.5", "Ok"))
_BAD: Final = answer(Reply(501, "5.1.3", "Bad recipient address syntax"))
_TOO_MANY: Final = Reply(452, "4.5.3", "Error: too many recipients")
_POSTMASTER: Final = "postmaster"
_DISCARD: Final = int(CleanupFlag.DISCARD)
_SMTPUTF8: Final = int(EnvelopeFlag.SMTPUTF8)
_NOTIFY: Final = {
    "SUCCESS": DsnNotify.SUCCESS,
    "FAILURE": DsnNotify.FAILURE,
    "DELAY": DsnNotify.DELAY,
}
# original-recipient-address = atom ";" xtext                               RFC 3461 §4.2
_ORCPT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*);(.*)", re.S)


class _BadOption(Exception):
    """A parameter is refused."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


def _bad_syntax(name: str) -> _BadOption:
    return _BadOption(Reply(501, "5.5.4", f"Error: Bad {name} parameter syntax"))


async def rcpt(session: Session, argument: str) -> Answer:
    """RCPT TO:<path> parameters."""
    transaction = session.transaction
    if transaction is None:
        return session.overdue or answer(Reply(503, "5.5.1", "Error: need MAIL command"))
    if session.chunks is not None:
        return answer(Reply(503, "5.5.1", "Error: RCPT after BDAT"))
    if argument[:3].upper() != "TO:" or not argument[3:].strip():
        return answer(Reply(501, "5.5.4", "Syntax: RCPT TO:<address>"))
    utf8 = bool(transaction.flags & _SMTPUTF8)
    try:
        address, rest = path_of(session, argument[3:], "RCPT", utf8=utf8)
        if not address:
            path = split_path(argument[3:])[0]
            LOG.warning(f"Illegal address syntax from {session.client} in RCPT command: {path}")
            return _BAD
        problem = await address_problem(session, address, argument[3:], _BAD, utf8=utf8)
        if problem is not None:
            return problem
        notify, orcpt = _options(rest, "DSN" in session.discard) if rest else (0, "")
    except AddressSyntax:
        return _BAD
    except UndeclaredUtf8:
        return UNDECLARED_UTF8
    except _BadOption as err:
        return answer(err.reply)
    clean = without_line_breaks(address)
    if clean != address and not orcpt:
        orcpt = f"rfc822;{xtext_encode(split_path(argument[3:])[0].strip('<>'))}"
    recipient = Recipient(clean, clean, orcpt, notify)
    return await _add(session, transaction, recipient, argument[3:])


async def _add(
    session: Session, transaction: Transaction, recipient: Recipient, text: str
) -> Answer:
    server = session.server
    if session.rates is not None:
        too_many = await session.rates.recipient(session.client)
        if too_many is not None:
            return by_policy(too_many)
    limit = server.params.smtpd_recipient_limit
    if limit and len(transaction.recipients) >= limit:
        transaction.overshoot += 1
        if transaction.overshoot > server.params.smtpd_recipient_overshoot_limit:
            return answer(_TOO_MANY)
        return uncounted(_TOO_MANY)
    mail = session.facts.mail
    mail.recipient = recipient.address
    refused = await _decide(session, recipient.address)
    if refused is None:
        try:
            if session.milters is not None:
                refused = await session.milters.rcpt(split_path(text)[1])
            if refused is None:
                await session.open_submission(transaction)
                if transaction.filtered is not None:
                    await transaction.filtered.rcpt(session.line)
        except ServiceUnavailable as err:
            LOG.warning(f"cannot begin a message: {err}")
            refused = WRITE_ERROR
        except FilterRefusal as err:
            refused = err.answer
    if refused is not None:
        mail.recipient = None
        return refused
    transaction.recipients.append(recipient)
    mail.recipient_count += 1
    # Later log lines and the Received: header name the recipient only while it is the only one.
    mail.recipient = recipient.address if mail.recipient_count == 1 else None
    return _OK


async def _decide(session: Session, address: str) -> Answer | None:
    if session.extras.cleanup_flags & _DISCARD:
        return None  # nothing of this message is delivered anyway
    if address.lower() == _POSTMASTER:
        return None  # RFC 5321 §4.5.1: postmaster always accepts mail
    server = session.server
    return session.judge(await server.restrictions.recipient(session.facts, session.lookups))


def _options(text: str, disabled: bool) -> tuple[int, str]:
    """(DsnNotify bits, ORCPT). disabled: clients are not told of them. Raises _BadOption."""
    notify, orcpt, seen = 0, "", set[str]()
    for name, value in parse_parameters(text):
        if name not in ("NOTIFY", "ORCPT") or value is None:
            word = next((w for w in text.split() if w.upper().startswith(name.upper())), name)
            raise _BadOption(Reply(555, "5.5.4", f"Unsupported option: {word}"))
        if disabled:
            raise _BadOption(Reply(501, "5.7.1", "DSN support is disabled"))
        if name in seen:
            raise _bad_syntax(name)
        seen.add(name)
        if name == "NOTIFY":
            notify = _notify(value)
        else:
            orcpt = _orcpt(value)
    return notify, orcpt


def _notify(value: str) -> int:
    if value.upper() == "NEVER":
        return DsnNotify.NEVER
    bits = 0
    for word in [word for word in value.split(",") if word] or [""]:
        bit = _NOTIFY.get(word.upper())
        if bit is None:
            if word and word.upper() != "NEVER":
                LOG.warning(f'unknown DSN NOTIFY command value "{word}" in "{value}"')
            raise _bad_syntax("NOTIFY")
        bits |= bit
    return bits


def _orcpt(value: str) -> str:
    match = _ORCPT.fullmatch(value)
    if match is None:
        raise _bad_syntax("ORCPT")
    if match[1].lower() != "utf-8":
        try:
            xtext_decode(match[2])
        except XtextError:
            raise _bad_syntax("ORCPT") from None
    return value


async def vrfy(session: Session, argument: str) -> Answer:
    """VRFY address [SMTPUTF8]: whether mail for it would be refused."""
    facts = session.facts
    if session.server.params.smtpd_helo_required and not facts.helo_name:
        return by_policy(Reply(503, "5.5.1", "Error: send HELO/EHLO first"))
    words = argument.split()
    utf8 = bool(words) and words[-1].upper() == "SMTPUTF8"
    text = argument[: -len("SMTPUTF8")].rstrip() if utf8 else argument
    if not text:
        return answer(Reply(501, "5.5.4", "Syntax: VRFY address [SMTPUTF8]"))
    try:
        address, rest = path_of(session, text, "VRFY", utf8=utf8)
    except AddressSyntax:
        return _BAD
    except UndeclaredUtf8:
        return UNDECLARED_UTF8
    if rest or not address:
        LOG.warning(f"Illegal address syntax from {session.client} in VRFY command: {text}")
        return _BAD
    problem = await address_problem(session, address, text, _BAD, utf8=utf8)
    if problem is not None:
        return problem
    kept, facts.mail.recipient = facts.mail.recipient, address
    refused = await _decide(session, address)
    facts.mail.recipient = kept
    return answer(Reply(252, "2.0.0", text)) if refused is None else refused


def vrfy_off(session: Session) -> Answer | None:
    """disable_vrfy_command."""
    if not session.server.params.disable_vrfy_command:
        return None
    return by_policy(Reply(502, "5.5.1", "VRFY command is disabled"))
