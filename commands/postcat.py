"""postcat(1): print the contents of queue files."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from libmail.config import ConfigError, open_config
from libmail.ipc.messages import DsnNotify, Envelope, EnvelopeFlag, QueueId, Recipient
from libmail.queue.directory import MESSAGE_QUEUES, QueueDirectory
from libmail.queue.file import DONE, QueueFile, QueueFileCorrupt
from libmail.queue.ids import is_queue_id

__all__ = ["main"]

_USAGE: Final = (
    "usage: postcat [-b (body text)] [-c config_dir] [-d (decimal record type)] [-e (envelope"
    " records)] [-h (header text)] [-o (print offset)] [-q (access queue)] [-v] [file(s)...]"
)
_QUEUES: Final = (*MESSAGE_QUEUES, "saved")
_CLIENT_ATTRIBUTES: Final = (
    ("log_client_name", "client_name"),
    ("log_client_address", "client_address"),
    ("log_client_port", "client_port"),
    ("log_helo_name", "helo_name"),
    ("log_protocol_name", "protocol_name"),
    ("client_name", "client_name"),
    ("reverse_client_name", "reverse_client_name"),
    ("client_address", "client_address"),
    ("client_port", "client_port"),
    ("server_address", "server_address"),
    ("server_port", "server_port"),
    ("helo_name", "helo_name"),
    ("protocol_name", "protocol_name"),
    ("sasl_method", "sasl_method"),
    ("sasl_username", "sasl_username"),
    ("sasl_sender", "sasl_sender"),
)
_NOTIFY: Final = (
    (DsnNotify.NEVER, "never"),
    (DsnNotify.SUCCESS, "success"),
    (DsnNotify.FAILURE, "failure"),
    (DsnNotify.DELAY, "delay"),
)


class Failure(Exception):
    """The text after "fatal: "."""


@dataclass(frozen=True, slots=True)
class PostcatParams:
    """Parameters of postcat(1)."""

    hash_queue_depth: int
    hash_queue_names: tuple[str, ...]
    queue_directory: str


@dataclass(slots=True)
class Options:
    """What to print. Without any of body, header, envelope: all of them."""

    body: bool = False
    header: bool = False
    envelope: bool = False
    offsets: bool = False
    queue: bool = False
    config_directory: str | None = None
    files: list[str] = field(default_factory=list)


def _parse(argv: Sequence[str]) -> Options:
    options = Options()
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word == "-":
            options.files.append(word)
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter == "c":
                options.config_directory = word[at:] or next(words, None)
                break
            if letter not in "bdehoqv":
                sys.stderr.write(f"postcat: invalid option -- '{letter}'\n")
                raise Failure(_USAGE)
            options.body |= letter == "b"
            options.envelope |= letter == "e"
            options.header |= letter == "h"
            options.offsets |= letter == "o"
            options.queue |= letter == "q"
    if not (options.body or options.header or options.envelope):
        options.body = options.header = options.envelope = True
    return options


def _stamp(when: float) -> str:
    return time.ctime(when)


def _attribute_lines(file: QueueFile, envelope: Envelope) -> Iterator[tuple[int, str]]:
    """(offset, line) for the message's attributes."""
    preamble, at = file.preamble, file.preamble.attributes.offset
    numbers = (preamble.size, preamble.header.offset, preamble.recipient_count, 0, preamble.size, 0)
    yield 0, "message_size: " + " ".join(f"{number:15d}" for number in numbers)
    yield 0, f"message_arrival_time: {_stamp(envelope.arrival)}"
    yield 0, f"create_time: {_stamp(preamble.arrival)}"
    yield at, f"named_attribute: rewrite_context={envelope.rewrite_context}"
    if envelope.full_name:
        yield at, f"sender_fullname: {envelope.full_name}"
    if envelope.flags & EnvelopeFlag.SMTPUTF8:
        yield at, "named_attribute: encoding=8bit"
    if envelope.dsn_envid:
        yield at, f"named_attribute: envelope_id={envelope.dsn_envid}"
    if envelope.content_filter:
        yield at, f"content_filter: {envelope.content_filter}"
    yield at, f"sender: {envelope.sender}"
    if envelope.verp_delims:
        yield at, f"verp_delimiters: {envelope.verp_delims}"
    for name, attribute in _CLIENT_ATTRIBUTES:
        value = getattr(envelope, attribute)
        if value:
            yield at, f"named_attribute: {name}={value}"
    if envelope.warn_time > 0:
        yield at, f"warning_message_time: {_stamp(envelope.warn_time)}"


def _recipient_lines(recipient: Recipient, state: bytes) -> Iterator[tuple[int, str]]:
    at = recipient.offset
    orcpt = recipient.dsn_orcpt or f"rfc822;{recipient.orig_rcpt or recipient.address}"
    yield at, f"named_attribute: dsn_orig_rcpt={orcpt}"
    if recipient.notify:
        words = ",".join(word for bit, word in _NOTIFY if bit & recipient.notify)
        yield at, f"named_attribute: notify_flags={words}"
    if recipient.orig_rcpt:
        yield at, f"original_recipient: {recipient.orig_rcpt}"
    yield at, f"{'done_recipient' if state == DONE else 'recipient'}: {recipient.address}"


def _print_file(file: QueueFile, name: str, options: Options, out: BinaryIO) -> None:
    def say(offset: int, line: str) -> None:
        prefix = f"{offset:9d} " if options.offsets else ""
        out.write(f"{prefix}{line}\n".encode("utf-8", "surrogateescape"))

    preamble = file.preamble
    if options.envelope:
        say(0, f"*** ENVELOPE RECORDS {name} ***")
        for offset, line in _attribute_lines(file, file.envelope()):
            say(offset, line)
        for recipient, state in file.recipient_states():
            for offset, line in _recipient_lines(recipient, state):
                say(offset, line)
        say(preamble.header.offset, f"*** MESSAGE CONTENTS {name} ***")
    if options.header:
        out.write(file.header().replace(b"\r\n", b"\n"))
    if options.body:
        held = b""
        for piece in file.body():
            data = held + piece
            held = b"\r" if data.endswith(b"\r") else b""
            out.write(data[: len(data) - len(held)].replace(b"\r\n", b"\n"))
        out.write(held)
    if options.envelope:
        say(preamble.recipients.end, f"*** HEADER EXTRACTED {name} ***")
        say(preamble.recipients.end, f"*** MESSAGE FILE END {name} ***")


def _path(directory: QueueDirectory, name: str) -> str:
    """The path of a queue file by its id. Raises Failure."""
    if is_queue_id(name):
        queue_id = QueueId(name)
        queue_name = directory.find(queue_id, _QUEUES)
        if queue_name is not None:
            return directory.path(queue_name, queue_id)
    raise Failure(f"open queue file {name}: No such file or directory")


def _run(options: Options, out: BinaryIO) -> None:
    config = open_config(options.config_directory, process_name="postcat")
    params = config.load(PostcatParams)
    directory = QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth)
    if options.queue:
        os.chdir(params.queue_directory)
    for name in options.files:
        path = _path(directory, name) if options.queue else name
        try:
            with QueueFile(path) as file:
                _print_file(file, path, options, out)
        except OSError as err:
            raise Failure(f"open {path}: {err.strerror}") from err
        except QueueFileCorrupt as err:
            raise Failure(f"{path}: {err}") from err


def main(argv: Sequence[str]) -> int:
    """argv: without the program name."""
    try:
        _run(_parse(argv), sys.stdout.buffer)
        sys.stdout.flush()
    except (Failure, ConfigError) as err:
        sys.stderr.write(f"postcat: fatal: {err}\n")
        return 1
    except BrokenPipeError:
        return 1
    return 0
