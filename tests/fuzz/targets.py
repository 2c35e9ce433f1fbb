"""What holds for each parser, whatever octets it gets.

It gives events or its documented error, and nothing else; how the octets come in pieces does not
matter; what one side writes the other reads as it was meant; what was taken apart is complete.
A target raises AssertionError, or whatever nobody expected. The first octet of its input says how
large the pieces are.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from daemons.smtpd.secrets import masked
from libmail.dns.hostname import literal_address, valid_hostliteral, valid_hostname
from libmail.ipc.codec import Chunk, Unframer, WireError
from libmail.ipc.frames import encode_chunk
from libmail.ipc.messages import CODEC
from libmail.message.addresses import AddressField, addresses_in, complete
from libmail.message.content import ContentScan, StrayFilter
from libmail.message.content_type import parse_content_type, parse_encoding
from libmail.message.delivered_to import earlier_recipients
from libmail.message.downgrade import Downgrade
from libmail.message.first_lines import mend_first_lines
from libmail.message.headers import HeaderReader, cut_behind_piece, cut_field
from libmail.message.headers import fields as fields_of
from libmail.message.line_endings import LineEndings
from libmail.message.mime import MimeLimits, MimeSplitter, Piece, Place
from libmail.message.tokens import tokenize
from libmail.milter import protocol as milter
from libmail.milter.conversation import Conversation, Decision
from libmail.milter.header import HeaderFields
from libmail.net.http import HttpError, Response, ResponseParser
from libmail.net.stream_client import LinkError
from libmail.oauth.answers import Trouble, parse_device, parse_tokens
from libmail.queue.file import ANY_STATE, QueueFile, QueueFileCorrupt
from libmail.queue.foreign_message import ForeignMessage
from libmail.queue.foreign_reasons import foreign_targets
from libmail.queue.foreign_records import ForeignFileError
from libmail.sasl.client import Credentials, Dialogue, SaslClientError
from libmail.smtp.address import (
    AddressSyntax,
    XtextError,
    address_fault,
    parse_parameters,
    parse_path,
    quote_local,
    strip_route,
    unquote,
    xtext_decode,
    xtext_encode,
)
from libmail.smtp.client import Extensions, ReplyReader, ReplyTooLong, ServerReply, parse_extensions
from libmail.smtp.client_commands import Sender, UnsafeAddress, mail_command
from libmail.smtp.qmqp import Announced, PacketError, PacketParser, RecipientOf, SenderOf, packet
from libmail.smtp.qmqp import Content as PacketContent
from libmail.smtp.qmqp import End as PacketEnd
from libmail.smtp.reply import Reply
from libmail.smtp.server import BareNewline, Command, Content, Event, SmtpServerCore
from libmail.sts.answer import entry_of
from libmail.sts.kept import KeptPolicy
from libmail.sts.policy import PolicyInvalid, parse_policy, policy_id
from libmail.tables.building.alias_source import parse_alias
from libmail.tables.entries import EntryError, parse_entry, plain_entries, split_entry
from libmail.tables.servers.memcache import reply_parser
from libmail.tables.servers.socketmap import netstring_parser
from libmail.tables.servers.tcp import decode_reply, first_line
from libmail.text.netstrings import netstring
from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.errors import TlsClosed, TlsFailed
from libmail.tls.policy_entry import parse_entry as parse_policy_entry
from libmail.tls.settings import parse_protocols

__all__ = ["TARGETS", "Target"]

LIMIT: Final = 40
SIZE: Final = 60
MIME_LIMITS: Final = MimeLimits(4, 20, SIZE, lambda text: cut_field(text, SIZE))


class Target(NamedTuple):
    """run: one example. words: what its language is made of."""

    run: Callable[[bytes], None]
    words: tuple[bytes, ...]


TARGETS: Final[dict[str, Target]] = {}


def target(*words: bytes) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    def add(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        TARGETS[run.__name__] = Target(run, words)
        return run

    return add


def split(data: bytes) -> tuple[bytes, list[bytes]]:
    """The octets behind the first one, and the pieces in which they come."""
    size, rest = (data[0] % 16 + 1 if data else 1), data[1:]
    return rest, [rest[at : at + size] for at in range(0, len(rest), size)]


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# QMQP


def _packet(pieces: Iterable[bytes]) -> list[object]:
    parser, found = PacketParser(SIZE, LIMIT), list[object]()
    for piece in pieces:
        parser.receive_data(piece)
        try:
            while (event := parser.next_event()) is not None:
                if isinstance(event, PacketContent) and isinstance(found[-1], PacketContent):
                    event = PacketContent(found.pop().data + event.data)  # type: ignore[attr-defined]
                found.append(event)
                if isinstance(event, PacketEnd):
                    return found
        except PacketError as error:
            return [*found, str(error), parser.part]
    return found


@target(b"9:", b"5:", b"0:,", b",", b":", b"100:", b"abcde", b"9:5:abcde,1:s,1:r,,")
def qmqp_packet(data: bytes) -> None:
    rest, pieces = split(data)
    assert _packet(pieces) == _packet([rest])
    whole = [Announced(len(rest)), *([PacketContent(rest)] if rest else [])]
    if len(rest) <= SIZE:
        end = [SenderOf(b"s"), RecipientOf(b"r"), PacketEnd()]
        assert _packet([packet(rest, b"s", [b"r"])]) == [*whole, *end]


# SMTP


def _served(pieces: Iterable[bytes], newlines: BareNewline) -> list[Event]:
    core = SmtpServerCore(LIMIT, newlines)
    events: list[Event] = []
    for piece in pieces:
        core.receive_data(piece)
        while (event := core.next_event()) is not None:
            if isinstance(event, Command) and not event.too_long:
                words = event.line.upper().split()
                if words[:1] == [b"DATA"]:
                    core.begin_data()
                elif words[:1] == [b"BDAT"]:
                    core.begin_chunk(len(words) * 7, first=len(words) < 3, last=len(words) > 3)
            if events and isinstance(event, Content) and isinstance(events[-1], Content):
                events[-1] = Content(events[-1].data + event.data)
            else:
                events.append(event)
        assert len(core.peek(1 << 20)) <= LIMIT + 10
    return events


@target(b"DATA", b"BDAT 9", b"BDAT 9 LAST", b"\r\n", b"\n", b".", b"\r\n.\r\n", b"\r", b"\0")
def smtp_server(data: bytes) -> None:
    rest, pieces = split(data)
    for newlines in BareNewline:
        assert _served(pieces, newlines) == _served([rest], newlines)


def _replies(pieces: Iterable[bytes]) -> tuple[list[ServerReply], bool]:
    reader, replies = ReplyReader(), []
    for piece in pieces:
        reader.receive_data(piece)
        try:
            while (reply := reader.next_reply()) is not None:
                replies.append(reply)
        except ReplyTooLong:
            return replies, True
    return replies, False


@target(b"250-", b"250 ", b"550 5.1.1 ", b"\r\n", b"\n", b"SIZE 100", b"AUTH=PLAIN", b"PIPELINING")
def smtp_replies(data: bytes) -> None:
    rest, pieces = split(data)
    replies, too_long = _replies(pieces)
    assert (replies, too_long) == _replies([rest])
    for reply in replies:
        assert 0 <= reply.code <= 999
        assert "\n" not in reply.text
        assert "\0" not in reply.text
        parse_extensions(reply)


@target(b"\n", b"\r", b"text", b"\xc3\xa9", b"5.1.1")
def smtp_reply_is_understood(data: bytes) -> None:
    """What our server says, our client reads."""
    text = text_of(data[1:]).replace("\r", "")
    reply = Reply(550, "5.1.1", text)
    found, too_long = _replies([reply.wire()])
    if not too_long:
        assert [one.code for one in found] == [550]
        assert (found[0].dsn, found[0].garbage) == ("5.1.1", "")


@target(
    b"<",
    b">",
    b'"',
    b"\\",
    b"@",
    b",",
    b":",
    b"[",
    b"]",
    b"IPv6:",
    b".",
    b"a",
    b" ",
    b"\xe9",
    b"%",
    b"!",
)
def smtp_path(data: bytes) -> None:
    text = text_of(data)
    for strict in (False, True):
        for utf8 in (False, True):
            try:
                address, _ = parse_path(text, utf8=utf8, strict=strict)
            except AddressSyntax:
                continue
            if not strict:
                continue
            # What we took we can say again, and it is the same.
            try:
                again = mail_command(Sender(address), Extensions())
            except UnsafeAddress:
                assert address_fault(address) or "\r" in address  # which is quoted, and kept
                continue
            line = text_of(again.removeprefix(b"MAIL FROM:").removesuffix(b"\r\n"))
            domain = address.rpartition("@")[2] if "@" in address else ""
            if not address_fault(address) and (not domain or valid_hostname(domain)):
                assert parse_path(line, utf8=True)[0] == address, (address, line)


@target(b"SIZE=1", b" ", b"=", b"+2B", b"+", b"X")
def smtp_parameters(data: bytes) -> None:
    text = text_of(data)
    try:
        parse_parameters(text)
    except AddressSyntax:
        pass
    try:
        xtext_decode(text)
    except XtextError:
        pass
    assert xtext_decode(xtext_encode(text)) == text


@target(b"From ", b"F", b"\r\n", b" ", b"\t", b"AUTH PLAIN ", b"AUTH ", b"abcd", b"*")
def smtp_first_lines(data: bytes) -> None:
    rest, _ = split(data)
    mended = mend_first_lines(rest, complete=True)
    assert mended is not None
    assert not mended.startswith((b" ", b"\t"))
    early = mend_first_lines(rest[: data[0]] if data else b"", complete=False)
    assert early is None or isinstance(early, bytes)
    masked(rest, after_secret=bool(data) and data[0] > 127)


@target(b"[", b"]", b"IPv6:", b"::", b"1.2.3.4", b".", b"-", b"a" * 63)
def host_names(data: bytes) -> None:
    text = text_of(data)
    valid_hostname(text)
    address = literal_address(text)
    assert address is None or valid_hostliteral(text) in (True, False)


# Messages


@target(b"a", b"@", b".", b",", b";", b":", b"<", b">", b'"', b"(", b")", b"\\", b"[", b"]", b"|",
        b" ", b"\r\n ", b"!", b"%")  # fmt: skip
def addresses(data: bytes) -> None:
    text = text_of(data)
    field = AddressField(text)
    rendered = field.render("X").removeprefix("X:")
    assert "\n" not in rendered.replace("\r\n\t", "")
    again = AddressField(rendered)
    assert [m.address for m in again.mailboxes] == [m.address for m in field.mailboxes], rendered
    assert again.render("X").removeprefix("X:") == rendered
    if complete(data):
        assert all(mailbox.address for mailbox in field.mailboxes)
    addresses_in(text)
    strip_route(text)
    unquote(quote_local(text))
    limit = len(tokenize(text)) // 2
    if limit:
        whole = [mailbox.address for mailbox in field.mailboxes]
        cut = [mailbox.address for mailbox in AddressField(text, limit).mailboxes]
        assert cut == whole[: len(cut)] or ";" in text or ":" in text or "<" in text or ">" in text


def _fields(pieces: Iterable[bytes]) -> tuple[list[bytes], bytes]:
    reader, found = HeaderReader(SIZE), []
    rest: bytes | None = None
    for piece in pieces:
        if rest is not None:
            rest += piece
            continue
        batch = reader.feed(piece)
        found += [cut_field(batch.data[f.start : f.end - 2], SIZE) for f in batch.fields]
        rest = batch.data[batch.end :] if batch.complete else None
    if rest is None:
        batch = reader.end()
        found += [cut_field(batch.data[f.start : f.end - 2], SIZE) for f in batch.fields]
        rest = batch.data[batch.end :]
    return found, rest


@target(b"A: b\r\n", b" folded\r\n", b"\t", b"\r\n", b":", b"Name", b"\r", b"\n")
def header(data: bytes) -> None:
    rest, pieces = split(data)
    rest += b"\r\n"
    found, body = _fields([*pieces, b"\r\n"])
    assert (found, body) == _fields([rest])
    assert rest.endswith(body)
    for field in found:
        assert len(cut_behind_piece(field, SIZE, 8)) <= max(len(field), SIZE)
    earlier_recipients(rest)


def _taken_apart(head: bytes, pieces: Iterable[bytes]) -> list[Piece]:
    splitter = MimeSplitter(MIME_LIMITS)
    found = list(splitter.header(head))
    for piece in pieces:
        found += splitter.feed(piece)
    joined: list[Piece] = []
    for one in [*found, *splitter.end()]:
        if joined and one.place is joined[-1].place is Place.BODY:
            joined[-1] = Piece(Place.BODY, joined[-1].data + one.data)
        else:
            joined.append(one)
    return joined


MIME_WORDS: Final = (
    b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n",
    b'Content-Type: multipart/digest; boundary="c d"; boundary=e\r\n',
    b"Content-Transfer-Encoding: 8bit\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"--b\r\n", b"--b--\r\n", b"--c d\r\n", b"--e", b"\r\n", b"X: y\r\n", b" z\r\n", b"-",
    b"\xe9=", b"\r", b"X \t: y\r\n",
)  # fmt: skip


@target(*MIME_WORDS)
def mime(data: bytes) -> None:
    rest, pieces = split(data)
    head = b"Content-Type: multipart/mixed; boundary=b\r\n"
    whole = _taken_apart(head, [rest])
    assert _taken_apart(head, pieces) == whole
    text = b"".join(piece.data for piece in whole)
    spaced = b" :" in rest or b"\t:" in rest  # which goes where it stands in a field
    if all(len(field) <= SIZE for field in text.split(b"\r\n")) and len(rest) <= SIZE:
        assert spaced or text in (head + rest, head + rest + b"\r\n")


@target(*MIME_WORDS)
def downgrade(data: bytes) -> None:
    rest, pieces = split(data)
    results = []
    for parts in ([rest], pieces):
        engine = Downgrade(MIME_LIMITS)
        sent = [engine.header(b"Content-Transfer-Encoding: 8bit\r\n\r\n"[:-2])]
        sent += [engine.feed(part) for part in (b"\r\n", *parts)]
        results.append(b"".join((*sent, engine.end())))
    assert results[0] == results[1]
    assert results[0].isascii()
    assert max(map(len, results[0].split(b"\r\n"))) <= 76


@target(
    b'"', b"\\", b"(", b")", b";", b"/", b"=", b"boundary", b"multipart", b"mixed", b" ", b"\r\n "
)
def content_type(data: bytes) -> None:
    kind, subtype, boundaries = parse_content_type(data)
    assert kind == kind.lower()
    assert subtype == subtype.lower()
    assert kind == b"multipart" or not boundaries
    assert all(b"\n" not in boundary for boundary in boundaries)
    parse_encoding(data)


@target(b"\r\n", b"\n", b"\r", b".", b"\xe9", b"x" * 998)
def content(data: bytes) -> None:
    rest, pieces = split(data)
    results = []
    for parts in ([rest], pieces or [rest]):
        strays, scan = StrayFilter(), ContentScan()
        clean = b"".join((*map(strays.feed, parts), strays.end()))
        size = len(parts[0]) or 1
        for at in range(0, len(clean), size):
            scan.feed(clean[at : at + size])
        results.append((clean, scan.eightbit, scan.long_lines, scan.dots))
    assert results[0] == results[1]
    clean = results[0][0]
    assert clean.count(b"\r") == clean.count(b"\n") == clean.count(b"\r\n")
    assert len(clean) == len(rest)


@target(b"\r\n", b"\n", b"\r", b"x")
def line_endings(data: bytes) -> None:
    rest, pieces = split(data)
    for keep_cr in (False, True):
        results = []
        for parts in ([rest], pieces):
            endings = LineEndings(keep_cr=keep_cr)
            results.append(b"".join((*map(endings.feed, parts), endings.end())))
        assert results[0] == results[1]
        assert results[0].count(b"\n") == results[0].count(b"\r\n")
        assert not rest or results[0].endswith(b"\r\n")


# Our own wires and files


def _units(pieces: Iterable[bytes]) -> tuple[list[object], str]:
    unframer, units = Unframer(CODEC), []
    for piece in pieces:
        unframer.receive_data(piece)
        try:
            while (unit := unframer.next_event()) is not None:
                units.append(unit)
        except WireError as err:
            return units, str(err)
    return units, ""


@target(
    b"\0\0\0", b"\x80\0\0", b"request\0", b"CleanupAbort\0", b"NewMail\0", b"queue_id\0", b"X\0"
)
def internal_wire(data: bytes) -> None:
    rest, pieces = split(data)
    assert _units(pieces) == _units([rest])
    framed = len(rest).to_bytes(4, "big") + rest
    units, _ = _units([framed])
    assert all(
        CODEC.decode(CODEC.attributes(unit)) == unit
        for unit in units
        if not isinstance(unit, Chunk)
    )
    assert (
        b"".join(unit.data for unit in _units([encode_chunk(rest)])[0] if isinstance(unit, Chunk))
        == rest
    )


def _opened(data: bytes) -> int:
    fd = os.memfd_create("queue file")
    os.write(fd, data)
    return fd


@target(b"\0", b"\xff", b"request\0Envelope\0", b"sender\0")
def queue_file(data: bytes) -> None:
    try:
        file = QueueFile("fuzzed", fd=_opened(data))
    except (QueueFileCorrupt, OSError):
        return
    with file:
        try:
            file.envelope()
            list(file.recipients(states=ANY_STATE))
            file.header()
            b"".join(file.body())
            file.small_content()
        except QueueFileCorrupt:
            pass


@target(
    b"C",
    b"T",
    b"S",
    b"R",
    b"M",
    b"N",
    b"L",
    b"X",
    b"E",
    b"p",
    b"A",
    b"\x05",
    b"\x80",
    b"1700000000",
)
def foreign_queue_file(data: bytes) -> None:
    message = ForeignMessage(lambda at, size: data[at : at + size], len(data), "X")
    try:
        message.head()
        b"".join(message.content())
        message.finish("<id>")
    except ForeignFileError:
        pass


@target(
    b"recipient=a", b"reason=b", b"offset=", b"1", b"\n", b"\n\n", b"=", b"dsn_orcpt=", b"action="
)
def foreign_reasons(data: bytes) -> None:
    list(foreign_targets(data, {}, 0.0))


# Tables and those who serve them


@target(b":", b",", b'"', b"\\", b"(", b")", b"|", b":include:", b"@", b"[", b"]", b" ", b"name")
def alias_source(data: bytes) -> None:
    text = text_of(data)
    try:
        name, value = parse_alias(text)
    except EntryError:
        return
    assert name
    assert value
    try:
        again = parse_alias(f"{name}:{value}")
    except EntryError:
        return  # a name in a form that cannot be written otherwise
    if again[0] == name and r"\]" not in text:  # that stands in a literal without its backslash
        assert again[1] == value, (value, again)


@target(b'"', b"\\", b" ", b"\t", b"\n", b"key", b"value", b"#")
def table_entries(data: bytes) -> None:
    text = text_of(data)
    for parse in (split_entry, parse_entry):
        try:
            parse(text)
        except EntryError:
            pass
    plain_entries(data, fold=True, end=b"")


def _streamed(
    parse: Callable[[bytes], tuple[object, int] | None], pieces: Iterable[bytes]
) -> Iterator[object]:
    buffer = b""
    for piece in pieces:
        buffer += piece
        while buffer:
            try:
                found = parse(buffer)
            except LinkError:
                yield "error"
                return
            if found is None:
                break
            unit, used = found
            assert used > 0
            buffer = buffer[used:]
            yield unit


@target(b"VALUE k 0 3\r\n", b"END\r\n", b"STORED\r\n", b"\r\n", b"abc", b"VALUE ", b"0")
def memcache_replies(data: bytes) -> None:
    rest, pieces = split(data)
    parse = reply_parser(30, 50)
    assert list(_streamed(parse, pieces)) == list(_streamed(parse, [rest]))


@target(b"3:abc,", b":", b",", b"0", b"9", b"OK ")
def netstrings(data: bytes) -> None:
    rest, pieces = split(data)
    parse = netstring_parser(40)
    assert list(_streamed(parse, pieces)) == list(_streamed(parse, [rest]))
    if len(rest) <= 40:
        assert list(_streamed(parse, [netstring(rest)])) == [rest]


@target(b"200 ", b"500 ", b"%20", b"%", b"\n", b"\r", b"a")
def tcp_table_replies(data: bytes) -> None:
    rest, pieces = split(data)
    lines = list(_streamed(first_line, pieces))
    assert lines == list(_streamed(first_line, [rest]))
    for line in lines:
        if isinstance(line, bytes):
            try:
                decode_reply(line)
            except LinkError:
                pass


# HTTP


def _response(pieces: Iterable[bytes]) -> Response | str | None:
    parser = ResponseParser(1 << 16)
    try:
        for piece in (*pieces, b""):
            found = parser.receive(piece)
            if found is not None:
                return found
    except HttpError as error:
        return str(error)
    return None


@target(
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 400 \r\n",
    b"Content-Length: 5\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1 100 \r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"5\r\nabcde\r\n",
    b"0\r\n\r\n",
    b'{"access_token":"a"}',
    b"\r\n",
)
def http_response(data: bytes) -> None:
    """Whole or in pieces, the same response; what becomes of it is tokens, or a reason."""
    rest, pieces = split(data)
    found = _response([rest])
    assert found == _response(pieces)
    assert found is not None
    if isinstance(found, Response):
        for parse in (parse_tokens, parse_device):
            with suppress(Trouble):
                parse(found, ("secret",))


@target(
    b"version: STSv1\n",
    b"mode: enforce\r\n",
    b"mx: *.a.test\n",
    b"max_age: 86400\n",
    b"v=STSv1; ",
    b"id=1;",
    b" 1 2 testing 3 a.test",
)
def sts_policy(data: bytes) -> None:
    """A policy is what it says of itself, and what the cache gives back of it."""
    kept = KeptPolicy.parse(text_of(data))
    assert kept is None or KeptPolicy.parse(kept.value()) == kept
    announced = policy_id([text_of(data)])
    try:
        policy = parse_policy(data)
    except PolicyInvalid:
        return
    assert parse_policy("\n".join(policy.lines).encode()) == policy
    kept = KeptPolicy(announced or "1", 1, 1, policy)
    assert KeptPolicy.parse(kept.value()) == kept
    entry = entry_of("a.test", policy)
    assert entry is None or parse_policy_entry(entry, "").sts.mx_patterns == policy.mx


# TLS


_ANONYMOUS: Final = "aNULL:-aNULL:HIGH"
_TLS_1_2: Final = parse_protocols("TLSv1.2")
_SERVER: Final = ServerContext(ServerSettings(ciphers=_ANONYMOUS, protocols=_TLS_1_2, names=True))
_CLIENT: Final = ClientContext(ClientSettings())
_SPEC: Final = ClientSpec(ciphers=_ANONYMOUS, protocols=_TLS_1_2, server_name="mx.test")


def _recorded() -> tuple[bytes, bytes]:
    """A first flight of each end."""
    client, server = connect(_CLIENT, _SPEC), accept(_SERVER)
    client.handshake()
    hello = client.output()
    server.receive(hello)
    server.handshake()
    server.answer()
    server.handshake()
    return hello, server.output()


_HELLO, _ANSWER = _recorded()


def _go_on(connection: Connection) -> None:
    if connection.handshake() is Step.HELLO:
        connection.answer()
        connection.handshake()


def _shaken(connection: Connection, pieces: Iterable[bytes]) -> tuple[str, int]:
    """How it ends, and how many octets the peer gets."""
    size = 0
    try:
        for piece in (b"", *pieces):
            connection.receive(piece)
            _go_on(connection)
            size += len(connection.output())
        connection.end_of_input()
        _go_on(connection)
    except (TlsFailed, TlsClosed) as error:
        return str(error), size + len(connection.output())
    raise AssertionError("a handshake without an end")


@target(
    _HELLO,
    *(_HELLO[at : at + 40] for at in range(0, len(_HELLO), 40)),
    _HELLO.replace(b"mx.test", b"mx\0test"),
    _HELLO[:5],
    b"\x14\x03\x03\0\1\1",
    b"\x15\x03\x03\0\2\2\x28",
    b"\x16\x03\x03\x40\0",
    b"\x17\x03\x03\0\x10",
)
def tls_clients(data: bytes) -> None:
    """What clients say to a server before there is a session."""
    rest, pieces = split(data)
    words, size = _shaken(accept(_SERVER), pieces)
    assert words.isprintable()
    assert size < 1 << 16
    assert _shaken(accept(_SERVER), [rest])[0] == words


@target(
    _ANSWER, *(_ANSWER[at : at + 40] for at in range(0, len(_ANSWER), 40)), _ANSWER[:5], b"\x16"
)
def tls_servers(data: bytes) -> None:
    """What servers say to a client."""
    rest, pieces = split(data)
    words, size = _shaken(connect(_CLIENT, _SPEC), pieces)
    assert words.isprintable()
    assert size < 1 << 16
    assert _shaken(connect(_CLIENT, _SPEC), [rest])[0] == words


# SASL


_SECRET: Final = "geheim!"
_CREDENTIALS: Final = Credentials("anna", _SECRET, "mx.test", 25)
_MECHANISMS: Final = (
    *("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"),
    "DIGEST-MD5",
)


@target(b"VXNlcm5hbWU6", b"=", b"\n", b"cj0sczxpPTEs", b"\xff", b"r=", b"aT05OTk5OTk5OTk5OQ==")
def sasl_challenges(data: bytes) -> None:
    """What a server says to a client that logs in; its replies may repeat what it was told."""
    mechanism = _MECHANISMS[data[0] % len(_MECHANISMS)] if data else "PLAIN"
    dialogue = Dialogue(mechanism, _CREDENTIALS)
    lines = [dialogue.command()]
    try:
        for challenge in text_of(data[1:]).split("\n"):
            lines.append(dialogue.answer(challenge))
        dialogue.finish()
    except SaslClientError:
        pass
    for said in lines:
        assert said.endswith(b"\r\n")
        assert said.count(b"\n") == 1
        word = said.decode().split(" ")[-1].strip()
        if len(word) >= 8 and word != mechanism:
            assert word not in dialogue.masked(f"535 {word} {_SECRET}")
    assert _SECRET not in dialogue.masked(f"x{_SECRET}y")


def _answered(pieces: Iterable[bytes]) -> list[object]:
    """What a Milter said at the end of a message; the last one is the decision, or the error."""
    one = Conversation()
    one.start()
    one.receive_data(milter.packet(milter.Command.NEGOTIATE, struct.pack(">III", 6, 0x1FF, 0)))
    assert one.accept_negotiation()
    one.event(milter.Command.END_OF_BODY)
    said: list[object] = []
    try:
        for piece in pieces:
            one.receive_data(piece)
            while one.awaited and (answer := one.next_answer()) is not None:
                said.append(answer)
    except milter.MilterError as error:
        said.append(str(error))
    return said


@target(
    *(
        milter.packet(milter.Command.BODY, text)[:4] + text
        for text in (b"c", b"a", b"r", b"p", b"s", b"f")
    ),
    b"\0\0\0\x0fy550 5.7.1 100%\0",
    b"\0\0\0\x13y550-one\r\n550 two\0",
    b"\0\0\0\x07hX\0y\n\0",
    b"\0\0\0\x09i\0\0\0\1X\0\0",
    b"\0\0\0\x09m\0\0\0\1X\0\0",
    b"\0\0\0\x07+<a@b>",
    b"\0",
    b"\xff",
)
def milter_answers(data: bytes) -> None:
    rest, pieces = split(data)
    said = _answered([rest])
    assert _answered(pieces) == said
    assert not any(isinstance(one, Decision) for one in said[:-1])


_EDITED: Final = b"Received: x\r\nX: 1\r\n\tmore\r\nY: 2\r\nX: 3\r\n"


@target(b"a", b"i", b"c", b"X", b"Y", b"\n", b"\r", b"\0", b" ", b":", b"\x01", b"\x02")
def milter_edits(data: bytes) -> None:
    """However a header is edited, it is one again, and none of the values ends it."""
    header = HeaderFields(_EDITED, own=b"Received: x\r\n")
    for at in range(0, len(data), 8):
        how, index, name, *value = data[at : at + 8].ljust(3, b"X")
        called, text = (b"X", b"Y", b"Z")[name % 3], b" " + bytes(value)
        if how % 3 == 0:
            header.add(called, text)
        elif how % 3 == 1:
            header.insert(index % 6, called, text)
        else:
            header.change(index % 6, called, text if name & 4 else b"")
        edited = header.data()
        found = fields_of(edited)
        assert found[-1].end == len(edited)
        assert all(one.name in (b"received", b"x", b"y", b"z") for one in found)
        shown = list(header.shown())
        assert len(shown) == len(found) - 1
