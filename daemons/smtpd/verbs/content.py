"""DATA (RFC 5321 §4.1.1.4) and BDAT (RFC 3030 §2): the content goes to cleanup(8)."""

import re
from typing import Final

from daemons.smtpd.channel import ClientGone
from daemons.smtpd.chunks import Chunks
from daemons.smtpd.events import escaped
from daemons.smtpd.firstlines import mend_first_lines
from daemons.smtpd.received import received
from daemons.smtpd.session import Answer, Session
from daemons.smtpd.transaction import Extras, Transaction
from libmail.ipc.messages import (
    CleanupAmend,
    CleanupResult,
    CleanupStatus,
    DsnNotify,
    Envelope,
    EnvelopeFlag,
    Recipient,
)
from libmail.log import LOG
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.reply import Reply
from libmail.smtp.server import BareNewline, Content, EndOfChunk, EndOfData

__all__ = ["bdat", "data"]

_GO_ON: Final = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
_RETURNED: Final = frozenset(("5.3.4", "5.4.0"))  # too large, too many hops
_WRITE_ERROR: Final = Reply(451, "4.3.0", "Error: queue file write error")
_SHOWN: Final = 100  # octets of a command in the log
_TINY: Final = 64  # octets; a chunk that has less, and is not the last one, does no mail
_RECEIVED: Final = 1000  # octets, more than the header that we put in front of a message
_SMTPUTF8: Final = int(EnvelopeFlag.SMTPUTF8)
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
    (CleanupStatus.WRITE, _WRITE_ERROR),
)


def _not_ready(session: Session) -> Reply | None:
    """Why no content can be taken now."""
    transaction = session.transaction
    if transaction is None:
        return Reply(503, "5.5.1", "Error: need RCPT command")
    if not transaction.recipients:
        return Reply(554, "5.5.1", "Error: no valid recipients")
    return None


async def data(session: Session, argument: str) -> Answer:
    """DATA: the content, up to its final dot."""
    transaction = session.transaction
    if session.chunks is not None:
        return Reply(503, "5.5.1", "Error: DATA after BDAT")
    refused = _not_ready(session)
    if refused is not None or transaction is None:
        return refused or Reply(503, "5.5.1", "Error: need RCPT command")
    if argument:
        return Reply(501, "5.5.4", "Syntax: DATA")
    verdict = await session.server.data(session.facts)
    session.carry_out(verdict)
    if verdict.reply is not None:
        return verdict.reply
    session.send(_GO_ON)
    session.core.begin_data()
    session.octets = 0
    while True:
        event = await session.event()
        if isinstance(event, Content):
            await _take(session, transaction, event.data)
        elif isinstance(event, EndOfData):
            return await _finish(session, transaction, bare_newline=event.bare_newline)


async def bdat(session: Session, argument: str) -> Answer:
    """BDAT size [LAST]: a chunk of the content."""
    if "CHUNKING" in session.discard:
        return Reply(521, "5.5.1", "Error: command not implemented")
    match = _CHUNK.fullmatch(argument)
    if match is None:
        # What follows would be taken for commands.
        line = escaped(session.line[:_SHOWN])
        _warn(session, f"malformed BDAT command syntax from {session.client}: {line}")
        return Reply(521, "5.5.4", "Syntax: BDAT count [LAST]")
    size, last = int(match[1]), match[2] is not None
    if size < _TINY and not last:
        session.count_junk()
    first = session.chunks is None
    chunks = session.chunks = session.chunks or Chunks()
    refused = await _refusal(session, chunks, size, first=first, last=last)
    transaction = session.transaction
    if refused is None and transaction is not None:
        chunks.octets += size
        session.core.begin_chunk(size, first=first, last=last)
        return await _chunk(session, transaction, chunks, size, last=last)
    chunks.refused = True
    refused = refused or Reply(503, "5.5.1", "Error: need RCPT command")
    await _discard(session, chunks, size, refused)
    if last:
        session.drop_transaction()
    return refused


def _warn(session: Session, text: str) -> None:
    LOG.warning(f"{session.queue_id or 'NOQUEUE'}: {text}")


async def _refusal(
    session: Session, chunks: Chunks, size: int, *, first: bool, last: bool
) -> Reply | None:
    """Why a chunk is not taken; decided before it is received."""
    if not size and not last:
        session.error_mask.add("policy")
        _warn(session, f"null BDAT request from {session.client}")
        return session.by_policy(Reply(551, "5.7.1", "Null BDAT request"))
    if chunks.refused:
        return Reply(551, "5.0.0", f"Discarded {size} bytes after earlier error")
    refused = _not_ready(session)
    if refused is None and first:
        verdict = await session.server.data(session.facts)
        session.carry_out(verdict)
        refused = verdict.reply
    if refused is not None:
        return refused
    limit = session.server.params.message_size_limit
    if limit and chunks.octets + size > limit:
        _warn(session, f"BDAT request from {session.client} exceeds message size limit")
        return session.by_policy(Reply(552, "5.3.4", "Chunk exceeds message size limit"))
    return None


async def _chunk(
    session: Session, transaction: Transaction, chunks: Chunks, size: int, *, last: bool
) -> Answer:
    session.octets = transaction.lines
    bare_newline = await _take_chunk(session, transaction)
    if last:
        return await _finish(session, transaction, bare_newline=bare_newline)
    session.octets = None
    if transaction.lost:
        chunks.refused = True
        return _WRITE_ERROR
    return Reply(250, "2.0.0", f"Ok: {size} bytes")


async def _discard(session: Session, chunks: Chunks, size: int, refused: Reply) -> None:
    """Receive a chunk that is not taken, if it is not too much. Raises ClientGone if it is."""
    chunks.discarded += size
    limit = session.server.params.message_size_limit
    if limit and chunks.discarded > limit:
        client = session.client
        _warn(session, f"too much BDAT content -- disabling further input from {client}")
        session.drop_transaction()
        session.send(refused)
        raise ClientGone
    session.core.begin_chunk(size, first=True, last=False)
    while not isinstance(await session.event(), EndOfChunk):
        pass


async def _take_chunk(session: Session, transaction: Transaction) -> bool:
    """Take the octets of a chunk; returns whether a line of the message ended in LF alone."""
    while True:
        event = await session.event()
        if isinstance(event, Content):
            await _take(session, transaction, event.data)
        elif isinstance(event, EndOfChunk):
            return event.bare_newline


async def _take(session: Session, transaction: Transaction, content: bytes) -> None:
    """Pass a piece of content on; problems are told at the end."""
    end = content.rfind(b"\n")
    if end >= 0:
        session.octets = transaction.lines = transaction.size + end + 1
    transaction.size += len(content)
    limit = session.server.params.message_size_limit
    if transaction.too_large or transaction.lost:
        return
    if limit and transaction.size > limit:
        transaction.too_large = True
        LOG.warning(f"{session.queue_id}: queue file size limit exceeded")
        # cleanup logs the Message-Id, if the header was not larger already.
        content = content[: limit - transaction.size - _RECEIVED]
    await _write(session, transaction, content)


async def _write(
    session: Session, transaction: Transaction, content: bytes, *, complete: bool = False
) -> None:
    submission = transaction.submission
    if submission is None:
        transaction.lost = True
        return
    try:
        if not transaction.begun:
            content = transaction.held + content
            mended = mend_first_lines(content, complete=complete)
            if mended is None:
                transaction.held = content
                return
            content, transaction.held = mended, b""
            transaction.begun = True
            submission.envelope(*await _envelope(session, transaction))
            content = _head(session, transaction, submission.queue_id) + content
        await submission.write(content)
    except ServiceUnavailable as err:
        LOG.warning(f"{submission.queue_id}: {err}")
        transaction.lost = True


async def _envelope(session: Session, transaction: Transaction) -> tuple[Envelope, list[Recipient]]:
    server, facts, extras = session.server, session.facts, session.extras
    recipients = transaction.recipients
    if extras.bcc:
        recipients = recipients + _copies(extras)
    server_address, server_port = session.channel.server_address()
    envelope = Envelope(
        sender=transaction.sender,
        flags=transaction.flags,
        cleanup_flags=server.cleanup_flags | extras.cleanup_flags,
        arrival=transaction.arrival,
        dsn_envid=transaction.dsn_envid,
        verp_delims=transaction.verp_delims,
        rewrite_context=await server.rewrite_context(facts),
        content_filter=extras.content_filter or server.params.content_filter,
        redirect=extras.redirect,
        client_name=facts.client_name,
        reverse_client_name=facts.reverse_name,
        client_address=facts.client_address,
        client_port=facts.client_port,
        helo_name=facts.helo_name,
        protocol_name=facts.protocol,
        server_address=server_address,
        server_port=server_port,
    )
    return envelope, recipients


def _head(session: Session, transaction: Transaction, queue_id: str) -> bytes:
    """Headers that are put in front of the message."""
    server, facts = session.server, session.facts
    utf8 = transaction.flags & _SMTPUTF8
    only = transaction.recipients[0].address if len(transaction.recipients) == 1 else None
    header = received(
        helo_name=facts.helo_name,
        client_name=facts.client_name,
        client_address=facts.client_address,
        hostname=server.params.myhostname,
        mail_name=server.params.mail_name,
        protocol="UTF8SMTP" if utf8 else facts.protocol,
        queue_id=queue_id,
        recipient=only,
        date=server.date(),
        hide_client=server.params.smtpd_hide_client_session,
    )
    prepend = "".join([f"{line}\r\n" for line in session.extras.prepend])
    return prepend.encode("utf-8", "surrogateescape") + header


async def _finish(session: Session, transaction: Transaction, *, bare_newline: bool) -> Answer:
    """The content is complete: commit it, and answer for it."""
    session.facts.where = "END-OF-MESSAGE"
    session.octets = None
    reply = await _final_reply(session, transaction, bare_newline=bare_newline)
    session.drop_transaction()
    if reply.code < 400:
        session.errors = session.junk = 0
        session.error_mask.clear()
    elif reply.dsn.startswith("4.3"):
        session.error_mask.add("resource")
    elif reply.dsn in _RETURNED:
        session.error_mask.add("bounce")
    elif reply.dsn.startswith("5.7"):
        session.error_mask.add("policy")
    return reply


async def _final_reply(session: Session, transaction: Transaction, *, bare_newline: bool) -> Reply:
    if bare_newline:
        setting = session.server.params.smtpd_forbid_bare_newline
        if session.core.newlines is BareNewline.REJECT:
            session.log("reject", "bare <LF> received")
            return session.bare_newline_reply()
        if setting == "note":
            LOG.info(f"bare <LF> received after DATA from {session.client}")
    if transaction.too_large:
        return Reply(552, "5.3.4", "Error: message file too big")
    if not transaction.begun and not transaction.lost:
        await _write(session, transaction, b"", complete=True)
    if transaction.lost or transaction.submission is None:
        return _WRITE_ERROR
    held = session.extras.cleanup_flags
    session.extras = Extras(cleanup_flags=held)
    verdict = await session.server.end_of_data(session.facts)
    session.carry_out(verdict)
    if verdict.reply is not None:
        return verdict.reply
    submission, transaction.submission = transaction.submission, None
    if session.extras != Extras(cleanup_flags=held):
        submission.amend(_amendment(session.extras))
    size = "" if session.chunks is None else f" {session.chunks.octets} bytes"
    try:
        return _outcome(await submission.finish(), size)
    except ServiceUnavailable as err:
        LOG.warning(f"{submission.queue_id}: {err}")
        return _WRITE_ERROR


def _amendment(extras: Extras) -> CleanupAmend:
    """What restrictions want done with a message whose envelope and content cleanup has."""
    return CleanupAmend(
        cleanup_flags=extras.cleanup_flags,
        content_filter=extras.content_filter,
        redirect=extras.redirect,
        recipients=tuple(_copies(extras)),
    )


def _copies(extras: Extras) -> list[Recipient]:
    """The recipients of BCC actions, whom no report names."""
    return [Recipient(address, address, "", DsnNotify.NEVER) for address in extras.bcc]


def _outcome(result: CleanupResult, size: str) -> Reply:
    """The reply for what cleanup said. size: " 123 bytes", of a message in chunks."""
    if result.status == 0:
        return Reply(250, "2.0.0", f"Ok:{size} queued as {result.queue_id}")
    for status, reply in _STATUS:
        if result.status & status:
            if result.reason and status in (CleanupStatus.DEFER, CleanupStatus.CONTENT):
                dsn = result.dsn or reply.dsn
                return Reply(550 if dsn.startswith("5") else 451, dsn, result.reason)
            return reply
    return _WRITE_ERROR
