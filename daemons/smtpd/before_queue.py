"""The before-queue filter, smtpd_proxy_filter: mail goes to an SMTP server instead of cleanup(8).

What the filter says to a command, or to the content, is what the client is told. `Direct` passes on
each command as it comes, and the content piece by piece. `SpeedAdjusted` (smtpd_proxy_options =
speed_adjust) keeps them until the message is complete, the content in a file without a name, so
that no filter waits for a slow client; single recipients cannot be refused then.

Where the filter cannot be reached, does not speak SMTP, or hangs up, the client is told to come
again. The filter is not trusted: its replies are bounded and cleaned by `libmail.smtp.client`, and
only one with a code that the client can make sense of gets to it.

Source: SMTPD_PROXY_README.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final, Protocol, TypeAlias

from daemons.smtpd.answer import WRITE_ERROR, Answer, answer, decided
from daemons.smtpd.params import SmtpdParams
from libmail.clients.milter import HandedOver
from libmail.config import ConfigError
from libmail.dns.native import ServerAddresses
from libmail.ipc.messages import Envelope, QueueId, Recipient
from libmail.log import LOG
from libmail.lookup.facts import Client, Facts
from libmail.lookup.xclient import Forwarded
from libmail.net.endpoint import Endpoint, FindAddresses, parse_endpoint, parse_host_port
from libmail.net.introduction import scratch_file
from libmail.net.poller import Poller
from libmail.net.wire import Lost, Wire
from libmail.smtp.client import (
    BODY,
    DATA,
    EHLO,
    END_OF_DATA,
    GREETING,
    MAIL,
    PHASES,
    RCPT,
    XFORWARD_NAME,
    Phase,
    ServerReply,
    parse_extensions,
)
from libmail.smtp.reply import Reply
from libmail.smtp.xforward import Source, said_to_filter

__all__ = ["Filter", "FilterRefusal", "FilterSettings", "FilteredMail", "filter_settings",
           "source_of"]  # fmt: skip

_SPEED_ADJUST: Final = "speed_adjust"
_FOLDER: Final = "incoming"
_PIECE: Final = 1 << 18  # octets of the file at a time
_DOT: Final = b".\r\n"
_UNSAFE: Final = dict.fromkeys((0, 10, 13), "?")  # what might end a command early
_REFUSED: Final = decided(WRITE_ERROR.reply)  # the filter has told why, to us

FilterAddress: TypeAlias = tuple[int, str | tuple[str, int]]


class FilterRefusal(Exception):
    """The filter does not take it, or cannot be asked; what the client is answered."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reply.line)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """name: as configured, for the log. helo: what we call ourselves. limits: of each phase."""

    name: str
    endpoint: Endpoint
    helo: str
    limits: Mapping[Phase, float]
    speed_adjust: bool


def filter_settings(params: SmtpdParams) -> FilterSettings | None:
    """None where there is no filter. Raises ConfigError."""
    name = params.smtpd_proxy_filter
    if not name:
        return None
    for option in params.smtpd_proxy_options:
        if option.lower() != _SPEED_ADJUST:
            raise ConfigError(f'unknown smtpd_proxy_options value "{option}"')
    try:
        named = name.startswith(("inet:", "unix:"))
        endpoint = parse_endpoint(name) if named else parse_host_port(name)
    except ValueError as error:
        raise ConfigError(f"smtpd_proxy_filter: {error}") from None
    return FilterSettings(
        name,
        endpoint,
        params.smtpd_proxy_ehlo,
        dict.fromkeys(PHASES, params.smtpd_proxy_timeout),
        bool(params.smtpd_proxy_options),
    )


class FilteredMail(Protocol):
    """A message for the filter: recipients, `data`, content, `finish`; `abort` at any time."""

    queue_id: QueueId

    async def rcpt(self, command: str) -> None:
        """A recipient. Raises FilterRefusal."""

    async def data(self) -> None:
        """The content is to begin. Raises FilterRefusal."""

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        """The filter has it from the commands."""

    def milters(self, states: Sequence[HandedOver]) -> None:
        """They do not see the content; the filter does."""

    async def write(self, data: bytes) -> None:
        """Some content in wire form. What goes wrong is told by `finish`."""

    async def finish(self) -> Answer:
        """The content is complete: what the filter says to it."""

    def abort(self) -> None:
        """There will be no such message."""


class Filter:
    """The filter of a process."""

    def __init__(self, settings: FilterSettings, find: FindAddresses | None = None) -> None:
        self.settings = settings
        self._find = find or ServerAddresses()
        self._poller: Poller | None = None

    async def begin(self, source: Source, mail: str) -> FilteredMail:
        """Begin a message. source: of it. mail: the MAIL command. Raises FilterRefusal."""
        if self.settings.speed_adjust:
            return SpeedAdjusted(lambda: self.direct(source, mail))
        return await self.direct(source, mail)

    async def direct(self, source: Source, mail: str) -> "Direct":
        """Connect, and give the MAIL command. Raises FilterRefusal."""
        link = _Link(self.settings.name, await self._connect())
        try:
            await link.introduce(self.settings.helo, source)
            await link.command(mail, MAIL)
        except BaseException:
            link.quit()
            raise
        return Direct(link)

    async def _addresses(self) -> list[FilterAddress]:
        """Raises OSError."""
        endpoint = self.settings.endpoint
        if endpoint.path:
            return [(socket.AF_UNIX, endpoint.path)]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, (address, endpoint.port))
            for address in await self._find(endpoint.host)
        ]

    async def _connect(self) -> Wire:
        """Raises FilterRefusal."""
        if self._poller is None:
            self._poller = Poller(asyncio.get_running_loop())
        problem = OSError(0, "no address")
        try:
            for family, address in await self._addresses():
                wire = Wire(self._poller, family, self.settings.limits)
                try:
                    await wire.connect(address)
                except OSError as error:
                    wire.close()
                    problem = error
                else:
                    return wire
        except OSError as error:
            problem = error
        LOG.warning(f"connect to proxy filter {self.settings.name}: {problem.strerror}")
        raise FilterRefusal(WRITE_ERROR)


def _shown(reply: ServerReply) -> str:
    """For the log; line ends as the original shows them."""
    return "??".join(reply.lines)


def _passed_on(reply: ServerReply) -> Answer:
    """The reply as the client gets it."""
    text = "\n".join([line[4:] for line in reply.lines])
    if reply.positive:
        return answer(Reply(reply.code, "", text))
    return decided(Reply(reply.code, "", text)) if 400 <= reply.code < 600 else _REFUSED


class _Link:
    """A connection to the filter. wire: for content."""

    def __init__(self, name: str, wire: Wire) -> None:
        self._name = name
        self.wire = wire

    async def introduce(self, helo: str, source: Source) -> None:
        """From the greeting to XFORWARD. Raises FilterRefusal."""
        try:
            self._check("connection request", await self.reply(GREETING), 2)
            hello = await self.command(f"EHLO {helo}", EHLO)
            for line in said_to_filter(source, parse_extensions(hello)):
                await self.command(line.decode().rstrip(), XFORWARD_NAME)
        except FilterRefusal as refusal:
            # It is about us, not the client.
            ours = refusal.answer if refusal.answer is WRITE_ERROR else _REFUSED
            raise FilterRefusal(ours) from None

    async def command(self, line: str, phase: Phase, wanted: int = 2) -> ServerReply:
        """Give a command. wanted: first digit of the reply. Raises FilterRefusal for another."""
        line = line.translate(_UNSAFE)
        self.wire.send(line.encode("utf-8", "surrogateescape") + b"\r\n")
        reply = await self.reply(phase)
        self._check(line, reply, wanted)
        return reply

    def _check(self, said: str, reply: ServerReply, wanted: int) -> None:
        if reply.code // 100 != wanted:
            LOG.warning(f'proxy {self._name} rejected "{said}": "{_shown(reply)}"')
            raise FilterRefusal(_passed_on(reply) if reply.code >= 400 else _REFUSED)

    async def reply(self, phase: Phase) -> ServerReply:
        """The next reply. Raises FilterRefusal if there is none."""
        try:
            reply = await self.wire.reply(phase)
        except Lost as error:
            raise self.lost(error) from None
        if reply.garbage:
            LOG.warning(f"received garbage from proxy {self._name}: {reply.garbage}")
        return reply

    def lost(self, error: Lost) -> FilterRefusal:
        """Log that the connection is of no use any more."""
        what = "timeout talking to" if error.timed_out else "lost connection with"
        LOG.warning(f"{what} proxy {self._name}")
        self.wire.close()
        return FilterRefusal(WRITE_ERROR)

    def quit(self) -> None:
        """Say goodbye, and do not wait for the answer."""
        self.wire.send(b"QUIT\r\n")
        self.wire.close()


class Direct:
    """A message that the filter gets as it comes. See FilteredMail."""

    queue_id = QueueId("")

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._failed: FilterRefusal | None = None  # the connection has
        self._open = True
        self._content = False
        self._line_begins = True

    async def rcpt(self, command: str) -> None:
        """A recipient. Raises FilterRefusal."""
        await self._command(command, RCPT, 2)

    async def data(self) -> None:
        """The content is to begin. Raises FilterRefusal."""
        await self._command("DATA", DATA, 3)
        self._content = True
        self._link.wire.send_at_once()

    async def _command(self, command: str, phase: Phase, wanted: int) -> None:
        if self._failed is not None:
            raise self._failed
        try:
            await self._link.command(command, phase, wanted)
        except FilterRefusal as refusal:
            if refusal.answer is WRITE_ERROR:
                self._failed = refusal
            raise

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        """The filter has it from the commands."""

    def milters(self, states: Sequence[HandedOver]) -> None:
        """They do not see the content; the filter does."""

    async def write(self, data: bytes) -> None:
        """Some content in wire form; nothing more is sent to a filter that has answered already."""
        if not data:
            return
        lines = data.replace(b"\n.", b"\n..")
        if self._line_begins and lines.startswith(b"."):
            lines = b"." + lines
        self._line_begins = data.endswith(b"\n")
        await self._send(lines, BODY)

    async def _send(self, data: bytes, phase: Phase) -> None:
        if self._failed is not None or self._link.wire.pending:
            return
        try:
            await self._link.wire.send_all(data, phase)
        except Lost as error:
            if not self._link.wire.pending:
                self._failed = self._link.lost(error)

    async def finish(self) -> Answer:
        """The content is complete: what the filter says to it."""
        early = self._link.wire.pending
        await self._send(_DOT if self._line_begins else b"\r\n" + _DOT, END_OF_DATA)
        if self._failed is not None:
            return self._failed.answer
        try:
            reply = await self._link.reply(END_OF_DATA)
        except FilterRefusal as refusal:
            self._failed = refusal
            return refusal.answer
        self._content = early  # what is sent now would be content
        self.abort()
        return _REFUSED if early and reply.positive else _passed_on(reply)

    def abort(self) -> None:
        """Hang up; within the content, where QUIT would be some more of it, without a word."""
        if self._open and (self._content or self._failed is not None):
            self._link.wire.close()
        elif self._open:
            self._link.quit()
        self._open = False


class SpeedAdjusted:
    """A message that the filter gets when it is complete. See FilteredMail."""

    queue_id = QueueId("")

    def __init__(self, begin: Callable[[], Awaitable[Direct]]) -> None:
        """begin: connects to the filter, and gives it the MAIL command."""
        self._begin = begin
        self._recipients: list[str] = []
        self._file: IO[bytes] | None = None
        self._broken = False

    async def rcpt(self, command: str) -> None:
        """A recipient."""
        self._recipients.append(command)

    async def data(self) -> None:
        """The content is to begin."""

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        """The filter has it from the commands."""

    def milters(self, states: Sequence[HandedOver]) -> None:
        """They do not see the content; the filter does."""

    async def write(self, data: bytes) -> None:
        """Some content in wire form."""
        if self._broken:
            return
        try:
            if self._file is None:
                self._file = await scratch_file(_FOLDER)
            self._file.write(data)
        except OSError as error:
            self._trouble(error)

    def _trouble(self, error: OSError) -> None:
        LOG.warning(f"proxy speed-adjust log I/O error: {error.strerror}")
        self._broken = True

    async def finish(self) -> Answer:
        """The content is complete: what the filter says to all of it."""
        try:
            return WRITE_ERROR if self._broken else await self._replay()
        except FilterRefusal as refusal:
            return refusal.answer
        except OSError as error:
            self._trouble(error)
            return WRITE_ERROR
        finally:
            self.abort()

    async def _replay(self) -> Answer:
        """Raises FilterRefusal; OSError of the file."""
        direct = await self._begin()
        try:
            for recipient in self._recipients:
                await direct.rcpt(recipient)
            await direct.data()
            if self._file is not None:
                self._file.seek(0)
                while piece := self._file.read(_PIECE):
                    await direct.write(piece)
            return await direct.finish()
        finally:
            direct.abort()

    def abort(self) -> None:
        """Forget it."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass  # what it could not write is not wanted any more


def source_of(facts: Facts, forwarded: Forwarded | None, *, local: bool) -> Source:
    """Where a message comes from: the client, or what it said by XFORWARD. local: it is ours."""
    who: Client | Forwarded = facts.client
    protocol, helo = facts.protocol, facts.helo_name
    if forwarded is not None and forwarded.name:
        who, protocol, helo = forwarded, forwarded.protocol, forwarded.helo
    return Source(
        name=who.name,
        address=who.address,
        port=who.port,
        protocol=protocol,
        helo=helo,
        ident="" if forwarded is None else forwarded.ident,
        local=local,
    )
