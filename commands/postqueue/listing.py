"""Queue listings: read from showq(8) or from the queue itself, printed for people or as JSON."""

from __future__ import annotations

import time

from libmail.queue.queued import QueuedMessage, QueuedRecipient
from libmail.text.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["ListingRefused", "json_lines", "parse_stream", "table_lines"]

_MARKS = {"active": "*", "hold": "!"}
_REASON_END = 78  # column
_MAX_WORD = 1 << 20
_MAX_WORDS = 1 << 22  # of one message


class ListingRefused(Exception):
    """showq(8) does not list the queue for this user; the text says why."""


def _message(pairs: list[tuple[str, str]]) -> QueuedMessage:
    values: dict[str, str] = {}
    recipients: list[QueuedRecipient] = []
    original = ""
    for name, value in pairs:
        if name == "recipient":
            recipients.append(QueuedRecipient(printable(value), original=original))
            original = ""
        elif name == "original_recipient":
            original = printable(value)
        elif name == "reason" and recipients:
            recipients[-1].reason = printable(value)
        else:
            values[name] = printable(value)
    queue_id = values["queue_id"]
    if not (queue_id.isascii() and queue_id.isalnum()):
        raise ValueError(f"bad queue id: {queue_id[:40]!r}")
    return QueuedMessage(
        values["queue_name"],
        queue_id,
        time=_number(values["time"]),
        size=_number(values["size"]),
        forced_expire=values["forced_expire"] != "0",
        sender=values["sender"],
        recipients=recipients,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 13):
        raise ValueError(f"not a number: {text[:40]!r}")
    return int(text)


def parse_stream(read: Callable[[], bytes]) -> Iterator[QueuedMessage]:
    """The messages that showq(8) lists. Raises ListingRefused, ValueError.

    read: the next octets of the stream, b"" at its end.
    """
    tokens = _Tokens(read)
    greeting = tokens.attributes()
    if greeting != [("protocol", "mail_queue_list_protocol")]:
        raise ValueError("malformed queue listing")
    while pairs := tokens.attributes():
        if pairs[0][0] == "error":
            raise ListingRefused(pairs[0][1])
        try:
            yield _message(pairs)
        except KeyError as err:
            raise ValueError(f"queue listing without {err}") from None


class _Tokens:
    """Takes NUL-terminated words off a stream."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._words: list[bytes] = []  # complete, the last one first
        self._rest: list[bytes] = []  # pieces of the one that is not
        self._size = 0

    def _word(self) -> str:
        while not self._words:
            data = self._read()
            first, *more = data.split(b"\0")
            self._rest.append(first)
            self._size += len(first)
            if not data or self._size > _MAX_WORD:
                raise ValueError("malformed queue listing")
            if more:
                self._words = [b"".join(self._rest), *more[:-1]][::-1]
                self._rest, self._size = [more[-1]], len(more[-1])
        return self._words.pop().decode("utf-8", "surrogateescape")

    def attributes(self) -> list[tuple[str, str]]:
        """Names and values up to the empty name."""
        pairs: list[tuple[str, str]] = []
        while name := self._word():
            if len(pairs) > _MAX_WORDS:
                raise ValueError("malformed queue listing")
            pairs.append((name, self._word()))
        return pairs


def _sender(message: QueuedMessage) -> str:
    return message.sender or "MAILER-DAEMON"


def table_lines(messages: Iterable[QueuedMessage], *, long_ids: bool) -> Iterator[str]:
    """The classic table, with a heading when there is mail and totals at the end."""
    count = size = 0
    for message in messages:
        if not count:
            yield (
                "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------"
                if long_ids
                else "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
            )
        count += 1
        size += message.size
        expiry = "#" if message.forced_expire else ""
        stamp = time.ctime(message.time)
        name = f"{message.queue_id}{_MARKS.get(message.queue_name, '')}{expiry}"
        if long_ids:
            yield f"{name:<17s} {message.size:8d} {stamp[:19]} {_sender(message)}"
        else:
            yield f"{name:<12s}{message.size:7d} {stamp[:20]} {_sender(message)}"
        yield from _recipient_lines(message, 47 if long_ids else 41)
        yield ""
    if not count:
        yield "Mail queue is empty"
        return
    plural = "" if count == 1 else "s"
    yield f"-- {size // 1024} Kbytes in {count} Request{plural}."


def _recipient_lines(message: QueuedMessage, indent: int) -> Iterator[str]:
    shown = ""
    for recipient in message.recipients:
        if recipient.reason and recipient.reason != shown:
            shown = recipient.reason
            yield f"({shown})".rjust(_REASON_END)
        yield " " * indent + recipient.address


def json_lines(messages: Iterable[QueuedMessage]) -> Iterator[str]:
    """One JSON object a message, as postqueue(1) documents it."""
    import json

    for message in messages:
        recipients = [
            {"orig_address": r.original, "address": r.address}
            | ({"delay_reason": r.reason} if r.reason else {})
            for r in message.recipients
        ]
        yield json.dumps(
            {
                "queue_name": message.queue_name,
                "queue_id": message.queue_id,
                "arrival_time": message.time,
                "message_size": message.size,
                "forced_expire": message.forced_expire,
                "sender": _sender(message),
                "recipients": recipients,
            },
            ensure_ascii=False,
        )
