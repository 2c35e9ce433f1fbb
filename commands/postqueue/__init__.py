"""postqueue(1): list the mail queue, or ask for delivery to be tried now.

An ordinary program without rights: the services that it asks decide what its user may do. It loads
what it needs when it needs it, as sendmail(1) does.
"""

from __future__ import annotations

import os
import sys

from commands.postqueue.listing import ListingRefused, json_lines, parse_stream, table_lines
from libmail.config import Config, ConfigError, open_config
from libmail.ipc.blocking import BlockingConnection, ServiceDown
from libmail.ipc.frames import WireError
from libmail.text.printable import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from libmail.queue.queued import QueuedMessage

__all__ = ["main"]

EX_UNAVAILABLE = 69
EX_TEMPFAIL = 75
_USAGE = (
    "usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue -p | postqueue -s site"
)


class Failure(Exception):
    """The command ends with exit status and the text after "fatal: "."""

    def __init__(self, text: str, status: int = EX_UNAVAILABLE) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class Order:
    """What the command line asks for. action: one of f, i, j, p, s; "" if there is none.

    mistake: what makes no sense, "" if that can be seen from the usage, None if nothing.
    """

    __slots__ = ("action", "argument", "config_directory", "mistake")

    def __init__(self) -> None:
        self.action = ""
        self.argument = ""
        self.config_directory: str | None = None
        self.mistake: str | None = None


def _parse(argv: Sequence[str]) -> Order:
    order = Order()
    actions = 0
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or len(word) < 2:
            actions = 2
            continue
        for at, letter in enumerate(word[1:], 2):
            if letter in "cis":
                value = word[at:] or next(words, None)
                if value is None:
                    order.mistake = f"option requires an argument -- '{letter}'"
                    return order
                if letter == "c":
                    order.config_directory = value
                else:
                    order.action, order.argument = letter, value
                    actions += 1
                break
            if letter in "fjp":
                order.action = letter
                actions += 1
            elif letter != "v":
                order.mistake = f"invalid option -- '{letter}'"
                return order
    if actions > 1:
        order.mistake = ""
    return order


def _say(text: str) -> None:
    complain("postqueue", text)


def _messages(config: Config) -> Iterator[QueuedMessage]:
    service = config.text("showq_service_name")
    try:
        path = f"{config.text('queue_directory')}/public/{service}"
        connection = BlockingConnection(path, config.seconds("ipc_timeout"))
    except ServiceDown as err:
        yield from _directly(config, f"(Connect to the Postfix {service} service: {err})")
        return
    try:
        yield from parse_stream(connection.receive_bytes)
    except ListingRefused as err:
        raise Failure(str(err)) from err
    except (ValueError, OSError) as err:
        raise Failure(f"malformed {service} server response: {err}", EX_TEMPFAIL) from err


def _directly(config: Config, why: str) -> Iterator[QueuedMessage]:
    """The mail system is down: its owner and root can read the queue all the same."""
    try:
        os.chdir(config.text("queue_directory"))
        os.listdir("deferred")
    except OSError:
        raise Failure(f"Queue report unavailable - mail system is down {why}") from None
    from libmail.queue.directory import QueueDirectory
    from libmail.queue.listing import list_queue

    _say(f"warning: Mail system is down -- accessing queue directly {why}")
    yield from list_queue(
        QueueDirectory(frozenset(config.list("hash_queue_names")), config.int("hash_queue_depth"))
    )


def _list(config: Config, action: str) -> None:
    messages = _messages(config)
    if action == "j":
        lines = json_lines(messages)
    else:
        lines = table_lines(messages, long_ids=config.bool("enable_long_queue_ids"))
    write = sys.stdout.buffer.write
    for line in lines:
        write(f"{line}\n".encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


def _flush(config: Config, queue_id: str) -> None:
    _request(config, config.text("queue_service_name"), "QueueFlush", queue_id=queue_id)


def _flush_site(config: Config, site: str) -> None:
    from libmail.dns.hostname import valid_hostliteral, valid_hostname

    if not (valid_hostname(site) or valid_hostliteral(site)):
        raise Failure(f'Cannot flush mail queue - invalid destination: "{site}"')
    _request(config, config.text("flush_service_name"), "FlushSite", site=site)


def _request(config: Config, service: str, request: str, **attributes: str) -> None:
    """Ask a service for deliveries. Raises Failure."""
    path = f"public/{service}"
    try:
        connection = BlockingConnection(
            f"{config.text('queue_directory')}/{path}", config.seconds("ipc_timeout")
        )
    except ServiceDown as err:
        if err.missing:
            _warn(config, f"unable to look up {path}: {err}")
        raise Failure("Cannot flush mail queue - mail system is down") from err
    try:
        connection.send(request, **attributes)
        reason = connection.receive("FlushReply")["reason"]
    except (OSError, WireError, KeyError) as err:
        raise Failure(f"Cannot flush mail queue - {err}", EX_TEMPFAIL) from err
    if reason:
        raise Failure(reason)


def _warn(config: Config, text: str) -> None:
    _say(f"warning: {text}")
    _log(config, f"warning: {text}")


def _log(config: Config, text: str) -> None:
    from libmail.log.commands import log_line

    log_line(config, "postqueue", text)


def _run(order: Order, config: Config) -> None:
    if order.action in ("p", "j"):
        _list(config, order.action)
    elif order.action == "i":
        from libmail.queue.ids import is_queue_id

        if not order.argument.isalnum():
            raise Failure(f'Cannot flush queue ID - invalid name: "{order.argument}"')
        if not is_queue_id(order.argument):
            return  # no message can have it
        _flush(config, order.argument)
    elif order.action == "s":
        _flush_site(config, order.argument)
    elif order.action == "f":
        _flush(config, "")
    else:
        raise Failure(_USAGE)


def main(argv: Sequence[str]) -> int:
    """argv: without the program name."""
    order = _parse(argv)
    if order.mistake is not None:
        if order.mistake:
            _say(order.mistake)
        _say(f"fatal: {_USAGE}")
        return EX_UNAVAILABLE
    try:
        config = open_config(order.config_directory, process_name="postqueue")
    except ConfigError as err:
        _say(f"fatal: {err}")
        return EX_UNAVAILABLE
    try:
        _run(order, config)
    except ConfigError as err:
        _say(f"fatal: {err}")
        return EX_UNAVAILABLE
    except Failure as err:
        _say(f"fatal: {err.text}")
        _log(config, f"fatal: {err.text}")
        return err.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing is to be flushed at exit
        return 1
    return 0
