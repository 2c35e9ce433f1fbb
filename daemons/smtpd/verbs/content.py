"""DATA (RFC 5321 §4.1.1.4) and BDAT (RFC 3030 §2): the content goes to cleanup(8)."""

import re
from functools import partial
from typing import Final

from daemons.smtpd.answer import WRITE_ERROR, Answer, answer, by_policy, decided
from daemons.smtpd.before_queue import FilterRefusal
from daemons.smtpd.events import FilterLine
from daemons.smtpd.gates import bare_newline_reply
from daemons.smtpd.intake import Head, Intake, Stage, Taker
from daemons.smtpd.received import received
from daemons.smtpd.session import Session
from daemons.smtpd.transaction import Chunks, Extras, Transaction
from libmail.ipc.messages import CleanupAmend, CleanupResult, CleanupStatus, Envelope, EnvelopeFlag
from libmail.log import LOG
from libmail.lookup.facts import END_OF_MESSAGE
from libmail.net.channel import ClientGone
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.reply import Reply
from libmail.smtp.server import BareNewline, Content, EndOfChunk, EndOfData
from libmail.text.escapes import escaped

__all__ = ["bdat", "chunking_off", "data"]

_GO_ON: Final = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
_NEED_RCPT: Final = answer(Reply(503, "5.5.1", "Error: need RCPT command"))
_NO_RECIPIENTS: Final = answer(Reply(554, "5.5.1", "Error: no valid recipients"))
_RETURNED: Final = frozenset(("5.3.4", "5.4.0"))  # too large, too many hops
_SHOWN: Final = 100  # octets of a command in the log
_TINY: Final = 64  # octets; a chunk that has less, and is not the last one, does no mail
_SMTPUTF8: Final = int(EnvelopeFlag.SMTPUTF8)
_REQUIRETLS: Final = int(EnvelopeFlag.REQUIRETLS)
_REQUIRED: Final = b"Require-TLS-ESMTP: yes\r\n"  # for the filter, which is not asked by SMTP
_CHUNK: Final = re.compile(r"([0-9]{1,18})(?: +(LAST))?", re.I)
# What a status of cleanup means where it gives no reason of its own; the first that is set counts.
_STATUS: Final = (
    (CleanupStatus.DEFER, Reply(451, "4.7.1", "Error: service unavailable")),
    (CleanupStatus.BAD, Reply(451, "4.3.0", "Error: internal protocol error")),
    (CleanupStatus.RECIPIENTS, Reply(550, "5.1.0", "Error: no recipients specified")),
    (CleanupStatus.HOPS, Reply(554, "5.4.0", "Error: too many hops")),
    (CleanupStatus.SIZE, Reply(552, "5.3.4", "Error: message file too big")),
    (CleanupStatus.CONTENT, Reply(550, "5.7.1", "Error: message content rejected")),
    (CleanupStatus.SPACE, Reply(452, "4.3.1", "Error: insufficient system storage")),
    (CleanupStatus.WRITE, WRITE_ERROR.reply),
)


def _begin(session: Session, transaction: Transaction) -> Intake | None:
    """The place for the content; None: there is none."""
    taker: Taker | None = transaction.submission or transaction.filtered
    if transaction.intake is None and taker is not None:
        head = partial(_head, session, transaction, taker.queue_id)
        limit = session.server.params.message_size_limit
        transaction.intake = Intake(taker, limit, head)
    return transaction.intake


async def _refusal(session: Session) -> Answer | None:
    """Why no content can be taken now; the restrictions have their say."""
    transaction = session.transaction
    if transaction is None:
        return _NEED_RCPT
    if not transaction.recipients:
        return _NO_RECIPIENTS
    restrictions, refused = session.server.restrictions, None
    if restrictions.at_data:
        refused = session.judge(await restrictions.data(session.facts, session.lookups))
    if refused is None and session.milters is not None:
        refused = await session.milters.data()
    if refused is None and transaction.filtered is not None:
        try:
            await transaction.filtered.data()
        except FilterRefusal as refusal:
            refused = refusal.answer
    return refused


# DATA


async def data(session: Session, argument: str) -> Answer:
    """DATA: the content, up to its final dot."""
    transaction = session.transaction
    if session.chunks is not None:
        return answer(Reply(503, "5.5.1", "Error: DATA after BDAT"))
    if argument and transaction is not None and transaction.recipients:
        return answer(Reply(501, "5.5.4", "Syntax: DATA"))
    refused = await _refusal(session)
    if refused is not None or transaction is None:
        return refused or _NEED_RCPT
    await session.send(_GO_ON)
    session.dialogue.core.begin_data()
    session.receiving = True
    intake = _begin(session, transaction)
    while True:
        event = await session.dialogue.event(idle=False)
        if isinstance(event, EndOfData):
            return await _finish(session, transaction, bare_newline=event.bare_newline)
        if isinstance(event, Content) and intake is not None:
            await intake.take(event.data)


# BDAT


def chunking_off(session: Session) -> Answer | None:
    """BDAT where CHUNKING was not announced; what follows would be taken for commands."""
    if "CHUNKING" not in session.discard:
        return None
    return answer(Reply(521, "5.5.1", "Error: command not implemented"))


async def bdat(session: Session, argument: str) -> Answer:
    """BDAT size [LAST]: a chunk of the content."""
    match = _CHUNK.fullmatch(argument)
    if match is None:
        line = escaped(session.line[:_SHOWN])
        _warn(session, f"malformed BDAT command syntax from {session.client}: {line}")
        return answer(Reply(521, "5.5.4", "Syntax: BDAT count [LAST]"))
    size, last = int(match[1]), match[2] is not None
    if size < _TINY and not last:
        session.tally.junk()
    first = session.chunks is None
    chunks = session.chunks = session.chunks or Chunks()
    refused = await _chunk_refusal(session, chunks, size, first=first, last=last)
    transaction = session.transaction
    if refused is None and transaction is not None:
        chunks.octets += size
        session.dialogue.core.begin_chunk(size, first=first, last=last)
        return await _chunk(session, transaction, size, last=last)
    chunks.refused = True
    refused = refused or _NEED_RCPT
    await _discard(session, chunks, size, refused)
    if last:
        session.drop_transaction()
    return refused


def _warn(session: Session, text: str) -> None:
    LOG.warning(f"{session.queue_id or 'NOQUEUE'}: {text}")


async def _chunk_refusal(
    session: Session, chunks: Chunks, size: int, *, first: bool, last: bool
) -> Answer | None:
    """Why a chunk is not taken; decided before it is received."""
    if not size and not last:
        _warn(session, f"null BDAT request from {session.client}")
        return by_policy(Reply(551, "5.7.1", "Null BDAT request"))
    if chunks.refused:
        return decided(Reply(551, "5.0.0", f"Discarded {size} bytes after earlier error"))
    refused = await _refusal(session) if first else None
    if refused is not None:
        return refused
    limit = session.server.params.message_size_limit
    if limit and chunks.octets + size > limit:
        _warn(session, f"BDAT request from {session.client} exceeds message size limit")
        return by_policy(Reply(552, "5.3.4", "Chunk exceeds message size limit"))
    return None


async def _chunk(session: Session, transaction: Transaction, size: int, *, last: bool) -> Answer:
    intake = _begin(session, transaction)
    session.receiving = True
    while not isinstance(event := await session.dialogue.event(idle=False), EndOfChunk):
        if isinstance(event, Content) and intake is not None:
            await intake.take(event.data)
    if last:
        return await _finish(session, transaction, bare_newline=event.bare_newline)
    session.receiving = False
    if session.chunks is not None and (intake is None or intake.stage is Stage.LOST):
        session.chunks.refused = True
        return answer(WRITE_ERROR.reply)
    return answer(Reply(250, "2.0.0", f"Ok: {size} bytes"))


async def _discard(session: Session, chunks: Chunks, size: int, refused: Answer) -> None:
    """Receive a chunk that is not taken, if it is not too much. Raises ClientGone if it is."""
    chunks.discarded += size
    limit = session.server.params.message_size_limit
    if limit and chunks.discarded > limit:
        client = session.client
        _warn(session, f"too much BDAT content -- disabling further input from {client}")
        session.drop_transaction()
        await session.send(refused.reply)
        raise ClientGone
    session.dialogue.core.begin_chunk(size, first=True, last=False)
    while not isinstance(await session.dialogue.event(idle=False), EndOfChunk):
        pass


# what goes in front of the content


async def _head(session: Session, transaction: Transaction, queue_id: str) -> Head:
    server, extras, recipients = session.server, session.extras, transaction.recipients
    context = await server.clients.rewrite_context(session.facts.client, session.forwarded)
    header = received(
        server.station,
        session.facts,
        smtputf8=bool(transaction.flags & _SMTPUTF8),
        queue_id=queue_id,
        recipient=recipients[0].address if len(recipients) == 1 else None,
        date=server.date(),
    )
    if transaction.filtered is not None:
        if session.forwarded is not None:
            header = b""  # we are one of a row of filters, not a station on the way
        if transaction.flags & _REQUIRETLS and server.params.requiretls_esmtp_header:
            header += _REQUIRED
    if extras.prepend:
        prepend = "".join([f"{line}\r\n" for line in extras.prepend])
        header = prepend.encode("utf-8", "surrogateescape") + header
    return Head(
        _envelope(session, transaction, context),
        recipients + extras.copies() if extras.bcc else recipients,
        header,
        () if session.milters is None else session.milters.states(),
    )


def _envelope(session: Session, transaction: Transaction, context: str) -> Envelope:
    server, facts, extras = session.server, session.facts, session.extras
    client, sasl, origin = facts.client, facts.sasl, session.forwarded
    envelope = Envelope(
        sender=transaction.sender,
        flags=transaction.flags,
        cleanup_flags=server.options.cleanup_flags | extras.cleanup_flags,
        arrival=transaction.arrival,
        dsn_envid=transaction.dsn_envid,
        verp_delims=transaction.verp_delims,
        rewrite_context=context,
        content_filter=extras.content_filter or server.params.content_filter,
        redirect=extras.redirect,
        client_name=client.name,
        reverse_client_name=client.reverse_name,
        client_address=client.address,
        client_port=client.port,
        helo_name=facts.helo_name,
        protocol_name=facts.protocol,
        server_address=client.server_address,
        server_port=client.server_port,
    )
    if sasl is not None:
        envelope = envelope._replace(
            sasl_method=sasl.method, sasl_username=sasl.username, sasl_sender=sasl.sender
        )
    if origin is None:
        return envelope
    return envelope._replace(
        log_client_name=origin.name,
        log_client_address=origin.address,
        log_client_port=origin.port,
        log_helo_name=origin.helo,
        log_protocol_name=origin.protocol,
        log_ident=origin.ident,
    )


# the end


async def _finish(session: Session, transaction: Transaction, *, bare_newline: bool) -> Answer:
    """The content is complete: commit it, and answer for it."""
    session.facts.where = END_OF_MESSAGE
    session.receiving = False
    found = await _final(session, transaction, bare_newline=bare_newline)
    session.drop_transaction()
    if not found.error:
        session.tally.forgive()
    return found


def _refused(reply: Reply) -> Answer:
    """The refusal of a message, with the kind of error that it is."""
    if reply.dsn.startswith("4.3"):
        return Answer(reply, error=True, kind="resource")
    if reply.dsn in _RETURNED:
        return Answer(reply, error=True, kind="bounce")
    return by_policy(reply) if reply.dsn.startswith("5.7") else answer(reply)


async def _final(session: Session, transaction: Transaction, *, bare_newline: bool) -> Answer:
    if bare_newline:
        setting = session.server.params.smtpd_forbid_bare_newline
        if session.dialogue.core.newlines is BareNewline.REJECT:
            session.log("reject", "bare <LF> received")
            return _refused(bare_newline_reply(session))
        if setting == "note":
            LOG.info(f"bare <LF> received after DATA from {session.client}")
    intake = transaction.intake or _begin(session, transaction)
    stage = Stage.LOST if intake is None else await intake.end()
    if stage is Stage.TOO_LARGE:
        found = _refused(Reply(552, "5.3.4", "Error: message file too big"))
        return found if transaction.filtered is None else _filtered(session, found)
    if intake is None or stage is Stage.LOST:
        return WRITE_ERROR
    session.facts.mail.size = intake.size or session.facts.mail.size
    known = session.extras  # to cleanup, which has the envelope
    if session.server.restrictions.at_end_of_data:
        verdict = await session.server.restrictions.end_of_data(session.facts, session.lookups)
        if verdict.effects:
            known = session.extras = Extras(cleanup_flags=known.cleanup_flags)
        refused = session.judge(verdict)
        if refused is not None:
            return refused
    if transaction.filtered is not None:
        return _filtered(session, await transaction.filtered.finish())
    submission, transaction.submission = transaction.submission, None
    if submission is None:
        return WRITE_ERROR
    if session.extras != known:
        submission.amend(_amendment(session.extras))
    size = "" if session.chunks is None else f" {session.chunks.octets} bytes"
    try:
        result = await submission.finish()
        session.complete = True
        return _outcome(result, size)
    except ServiceUnavailable as err:
        LOG.warning(f"{submission.queue_id}: {err}")
        return WRITE_ERROR


def _filtered(session: Session, found: Answer) -> Answer:
    """The answer for a message that went to the before-queue filter."""
    transaction = session.transaction
    recipients = [] if transaction is None else transaction.recipients
    recipient = recipients[0].address if recipients else None
    LOG.event(FilterLine.of(session.facts, found.reply, recipient))
    return found


def _amendment(extras: Extras) -> CleanupAmend:
    """What restrictions want done with a message whose envelope and content cleanup has."""
    return CleanupAmend(
        cleanup_flags=extras.cleanup_flags,
        content_filter=extras.content_filter,
        redirect=extras.redirect,
        recipients=tuple(extras.copies()),
    )


def _outcome(result: CleanupResult, size: str) -> Answer:
    """The answer for what cleanup said. size: " 123 bytes", of a message in chunks."""
    if result.status == 0:
        return answer(Reply(250, "2.0.0", f"Ok:{size} queued as {result.queue_id}"))
    for status, reply in _STATUS:
        if result.status & status:
            if result.reason and status in (CleanupStatus.DEFER, CleanupStatus.CONTENT):
                dsn = result.dsn if result.code else result.dsn or reply.dsn
                code = result.code or (550 if dsn.startswith("5") else 451)
                return _refused(Reply(code, dsn, result.reason))
            return _refused(reply)
    return WRITE_ERROR
