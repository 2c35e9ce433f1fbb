"""One client's session: a packet in, an answer out."""

import asyncio
import time
from typing import Final

from daemons.qmqpd.events import DisconnectLine, MessageLine, MessageRefused, PacketFailed
from daemons.qmqpd.message import Answer, Message, answer_to
from daemons.qmqpd.prepared import Prepared
from daemons.qmqpd.storeroom import Storeroom
from libmail.clients.cleanup import MailClient, MailSubmission
from libmail.log import LOG, Level
from libmail.log.events import ConnectLine
from libmail.lookup.facts import Client
from libmail.lookup.peer import PeerNames, protocols_of
from libmail.net.channel import Channel, ClientGone, ClientSilent, ServerStopping
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.qmqp import (
    Announced,
    Content,
    End,
    Event,
    PacketError,
    PacketParser,
    RecipientOf,
    SenderOf,
    Status,
)
from libmail.tables.table import TableRetry
from libmail.text.netstrings import netstring

__all__ = ["Server", "Session"]

_MOST_HELD: Final = 1 << 26  # octets of content, of all clients together
_TURN: Final = 64  # events before other sessions have their turn
_WRITE_ERROR: Final = Answer(Status.LATER, "Error: queue file write error")
_STOPPING: Final = Answer(Status.LATER, "Error: service stopped, try again later")


class Server:
    """What all sessions of a process share."""

    def __init__(self, prepared: Prepared, cleanup: MailClient) -> None:
        self.prepared = prepared
        self.params = prepared.params
        self.cleanup = cleanup
        self.storeroom = Storeroom(_MOST_HELD)
        protocols = protocols_of(self.params.inet_protocols)
        self.peers = PeerNames(prepared.resolver, protocols, lookup=True)


class Session:
    """A client's session, from connection to disconnection."""

    def __init__(self, server: Server, channel: Channel, client: Client) -> None:
        """client: its names are not known yet."""
        params = server.params
        self._server = server
        self._channel = channel
        self._client = client
        self._parser = PacketParser(params.message_size_limit, params.line_length_limit)
        self._queue_id = ""
        self._events = 0

    @property
    def _shown(self) -> str:
        """name[address], with qmqpd_client_port_logging also :port."""
        if self._server.params.qmqpd_client_port_logging:
            return f"{self._client.shown}:{self._client.port}"
        return self._client.shown

    async def run(self) -> None:
        """Serve the client."""
        self._client = await self._server.peers.named(self._client)
        LOG.event(ConnectLine(self._shown))
        try:
            await self._answer(await self._serve())
        except ClientGone:
            self._failed("lost connection")
        except ClientSilent:
            self._failed("read/write timeout")
        finally:
            self._channel.close()
            LOG.event(DisconnectLine(self._shown))

    def _failed(self, reason: str) -> None:
        LOG.event(PacketFailed(self._queue_id, self._shown, reason, self._parser.part.value))

    async def _answer(self, answer: Answer) -> None:
        """Tell the client; after a while, if that is no good news."""
        if answer.status is not Status.OK:
            await asyncio.sleep(self._server.params.qmqpd_error_delay)
        text = f"{answer.status.value}{answer.text}"
        self._channel.write(netstring(text.encode("utf-8", "surrogateescape")))

    async def _serve(self) -> Answer:
        """Raises ClientGone, ClientSilent."""
        refused = await self._refusal()
        if refused is not None:
            return refused
        try:
            submission = await self._server.cleanup.open(self._server.prepared.cleanup_flags)
        except ServiceUnavailable as err:
            LOG.warning(str(err))
            return self._refused(_WRITE_ERROR)
        self._queue_id = submission.queue_id
        LOG.event(MessageLine(submission.queue_id, self._shown))
        try:
            return await self._receive(submission)
        except PacketError as err:
            self._failed(str(err))
            return Answer(Status.REFUSED, f"{err} while {self._parser.part.value}")
        except ServerStopping:
            self._failed("service stopped")
            return _STOPPING
        finally:
            submission.abort()  # if it has not ended

    async def _refusal(self) -> Answer | None:
        """Why the client may not send mail."""
        client = self._client
        try:
            if await self._server.prepared.authorized.match(client.name, client.address):
                return None
        except TableRetry as err:
            LOG.warning(str(err))
            return Answer(Status.LATER, "Error: server configuration error")
        return Answer(Status.REFUSED, f"Error: {self._shown} is not authorized to use this service")

    def _refused(self, answer: Answer) -> Answer:
        LOG.event(MessageRefused(self._queue_id, self._shown, answer.text), Level.WARNING)
        return answer

    async def _receive(self, submission: MailSubmission) -> Answer:
        message = Message(time.time())
        announced = await self._event()
        if not isinstance(announced, Announced):
            raise AssertionError(announced)
        async with self._server.storeroom.room(announced.octets):
            while not isinstance(event := await self._event(), End):
                self._take(message, event)
            if message.fault:
                return self._refused(Answer(Status.REFUSED, f"Error: {message.fault}"))
            return await self._submit(submission, message)

    def _take(self, message: Message, event: Event) -> None:
        match event:
            case Content(data):
                message.add_content(data)
            case SenderOf(address):
                message.set_sender(address, self._server.params.verp_delimiter_filter)
            case RecipientOf(address):
                message.add_recipient(address)

    async def _event(self) -> Event:
        """The next event. Raises PacketError, ClientGone, ClientSilent, ServerStopping."""
        self._events += 1
        if not self._events % _TURN:
            await self._channel.give_way()
        while (event := self._parser.next_event()) is None:
            self._parser.receive_data(await self._channel.read(idle=True))
        return event

    async def _submit(self, submission: MailSubmission, message: Message) -> Answer:
        """The packet is complete: hand it over, and say what became of it."""
        prepared, params = self._server.prepared, self._server.params
        envelope = message.envelope(self._client, params, prepared.cleanup_flags)
        try:
            submission.envelope(envelope, message.recipients)
            await submission.write(message.received(self._client, params, submission.queue_id))
            for piece in message.content():
                await submission.write(piece)
            answer = answer_to(await submission.finish())
        except ServiceUnavailable as err:
            LOG.warning(f"{submission.queue_id}: {err}")
            answer = _WRITE_ERROR
        return answer if answer.status is Status.OK else self._refused(answer)
