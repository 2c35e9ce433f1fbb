"""sendmail(1), mailq(1), newaliases(1): the interface that programs expect to submit mail by.

An ordinary program without rights: pickup(8) learns from the kernel who calls. While the mail
system is down, the message is left in the maildrop directory. Exit codes are those of sysexits(3).

Programs wait for it, so it loads what it needs when it needs it: no typing, dataclasses, re or enum
on the way of an ordinary message.
"""

from __future__ import annotations

import os
import pwd
import sys
from itertools import chain

from commands.sendmail.bits import VERBOSE, VERIFY_ONLY
from commands.sendmail.content import (
    HeaderTooLarge,
    header_recipients,
    probe,
    read_header,
    wire_pieces,
)
from commands.sendmail.options import Mode, Options, UsageError, parse
from libmail.config import Config, ConfigError, open_config
from libmail.ipc.blocking import BlockingConnection, ServiceDown
from libmail.ipc.frames import WireError, frame_attributes
from libmail.text.printable import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import NoReturn

__all__ = ["main"]

EX_OK = 0
EX_DATAERR = 65
EX_OSERR = 71
EX_TEMPFAIL = 75
EX_NOPERM = 77
TOO_BIG = "message file too big"
_BATCH = 100  # recipients in a frame
_KEPT = 1 << 23  # octets of content that are kept in memory
_FIRST_ANSWER = 10.0  # seconds for pickup to say that it listens
_USUAL_ADDRESS = 256
_OPENED = b"request\0SubmitOpened\0"
_EMPTY = ("", "<>", '""')
_NO_ADDRESSES = "Recipient addresses must be specified on the command line or via the -t option"
_NO_HEADER_ADDRESSES = "No recipient addresses found in message header"
# What makes an address that has the same internal form, and needs no parser to see it.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-@.")


class Failure(Exception):
    """The command ends: exit status and the text after "fatal: "."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Message:
    """What is to be submitted. pieces: the content in wire form. verp: delimiters, or ""."""

    __slots__ = ("full_name", "null_sender", "options", "pieces", "recipients", "sender", "verp")

    def __init__(
        self, options: Options, sender: str, full_name: str, recipients: list[str],
        pieces: Iterator[bytes], verp: str,
    ) -> None:  # fmt: skip
        self.options = options
        self.sender = sender
        self.null_sender = not sender
        self.full_name = full_name
        self.recipients = recipients
        self.pieces = pieces
        self.verp = verp


def _account() -> tuple[str, str]:
    """Login and full name of the caller; "&" in the latter stands for the former."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise Failure(EX_OSERR, f"unable to find account of user id {uid}") from None
    gecos = entry.pw_gecos.partition(",")[0]
    return entry.pw_name, gecos.replace("&", entry.pw_name.capitalize())


def _addresses(texts: Iterable[str]) -> list[str]:
    """The addresses in command-line words or header values, in internal form."""
    found: list[str] = []
    for text in texts:
        if is_plain_address(text):
            found.append(text)
        else:
            from libmail.message.addresses import addresses_in
            from libmail.smtp.address import strip_route, unquote

            found += (unquote(strip_route(address)) for address in addresses_in(text))
    return found


def _recipients(words: Iterable[str]) -> list[str]:
    """Those of the command line, where an empty word is the empty address."""
    found: list[str] = []
    for word in words:
        found += [""] if word.strip() in _EMPTY else _addresses([word])
    return found


def is_plain_address(text: str) -> bool:
    """Whether `text` is one address with nothing to parse: atoms with dots, at most one "@"."""
    return (
        _PLAIN.issuperset(text)
        and text.count("@") < 2
        and all(part and "." not in (part[0], part[-1]) for part in text.split("@"))
        and ".." not in text
    )


def _sender(options: Options, login: str) -> str:
    """The envelope sender in internal form, "" for the null sender.

    MAILER-DAEMON stays: cleanup(8) makes it the null sender, from whomever it comes.
    """
    text = options.sender
    if text is None:
        return login
    found = _addresses([text])
    if len(found) > 1:
        options.warnings.append(f"-f option specified malformed sender: {text}")
    return found[0] if found else ""


def _verp(options: Options, config: Config, sender: str) -> str:
    """The delimiters that -XV asks for, "" without it. Raises Failure."""
    if options.verp is None:
        return ""
    from libmail.message.verp import usable_delimiters

    allowed = config.text("verp_delimiter_filter")
    if options.verp and not usable_delimiters(options.verp, allowed):
        raise Failure(EX_TEMPFAIL, f"-V requires two characters from {allowed}")
    if not sender:
        reason = "-V option requires non-null sender address"
        raise Failure(EX_TEMPFAIL, f"({os.getuid()}): {reason}")
    return options.verp or config.text("default_verp_delimiters")


def _message(options: Options, config: Config) -> Message:
    login, gecos = _account()
    full_name = options.full_name
    if full_name is None:
        full_name = os.environ.get("NAME", "") or gecos
    sender = _sender(options, login)
    verp = _verp(options, config, sender)
    addresses = _recipients(options.recipients)
    pieces: Iterator[bytes]
    if options.flags & VERIFY_ONLY:
        pieces = _probe(sender, addresses)
    else:
        fix = config.text("sendmail_fix_line_endings")
        pieces = wire_pieces(_read_stdin, stop_at_dot=not options.ignore_dots, fix=fix)
    if options.extract:
        start = read_header(pieces)
        try:
            addresses += _addresses(header_recipients(start))
        except HeaderTooLarge:
            raise Failure(EX_DATAERR, "header is too large to find all recipients in") from None
        pieces = chain((start,), pieces)
    if not addresses:
        missing = _NO_HEADER_ADDRESSES if options.extract else _NO_ADDRESSES
        raise Failure(EX_TEMPFAIL, f"{sender}({os.getuid()}): {missing}")
    _check_addresses((sender, *addresses))
    return Message(options, sender, full_name, addresses, pieces, verp)


def _probe(sender: str, recipients: list[str]) -> Iterator[bytes]:
    from libmail.smtp.address import quote_local

    yield probe(quote_local(sender), [quote_local(recipient) for recipient in recipients])


def _open_standard_files() -> None:
    """What is opened later must not become standard input or output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _read_stdin(size: int) -> bytes:
    """As os.read. Raises Failure."""
    try:
        return os.read(0, size)
    except OSError as err:
        login, _ = _account()
        problem = f"{login}({os.getuid()}): error reading input: {err.strerror}"
        raise Failure(EX_TEMPFAIL, problem) from err


def _submit(config: Config, message: Message) -> None:
    """Hand the message to pickup, or leave it in maildrop. Raises Failure.

    What cannot be queued now waits in maildrop: the caller may be cron(8), which has it nowhere
    else. So the content is read before pickup is asked, and what is too large to be kept in memory
    goes to maildrop right away.
    """
    service = f"public/{config.text('pickup_service_name')}"
    content, size = _read_ahead(message)
    if size > _KEPT:
        _drop(config, message, "")
        return
    try:
        connection = BlockingConnection(
            f"{config.text('queue_directory')}/{service}", _FIRST_ANSWER
        )
    except ServiceDown as err:
        why = f"warning: unable to look up {service}: {err}" if err.missing else ""
        _drop(config, message, why)
        return
    try:
        status, reason = _converse(connection, message, content, config.seconds("ipc_timeout"))
    except (OSError, WireError, KeyError, ValueError):
        status, reason = EX_TEMPFAIL, ""
    finally:
        connection.close()
    if status == EX_TEMPFAIL:
        _drop(config, message, "")
    elif status:
        if reason.endswith(TOO_BIG):
            complain("postdrop", f"warning: uid={os.getuid()}: File too large")
        raise Failure(EX_TEMPFAIL if status == EX_NOPERM else status, reason)


def _read_ahead(message: Message) -> tuple[bytes, int]:
    """The content, and its size; if it is larger than what is kept, only its beginning.

    In any case message.pieces is all of it, once more.
    """
    read = []
    size = 0
    for piece in message.pieces:
        read.append(piece)
        size += len(piece)
        if size > _KEPT:
            break
    content = b"".join(read)
    message.pieces = chain((content,), message.pieces)
    return content, size


def _converse(
    connection: BlockingConnection, message: Message, content: bytes, timeout: float
) -> tuple[int, str]:
    """pickup's answer: exit status and reason. Raises OSError, WireError, KeyError, ValueError.

    It has little time to say that it listens, as nothing is lost yet, and much to say that it has
    the message, which it might get twice otherwise.
    """
    options = message.options
    connection.send(
        "SubmitOpen",
        sender=message.sender,
        null_sender=message.null_sender,
        full_name=message.full_name,
        flags=options.flags,
        dsn_envid=options.envid,
        verp_delims=message.verp,
        cleanup_flags=0,
        size=len(content),
    )
    answer = connection.receive_frame()
    connection.patience(timeout)
    if answer == _OPENED:
        try:
            _send(connection, message, content)
        except BrokenPipeError:
            pass  # pickup has refused the message before it had taken all of it, and says why
        answer = connection.receive_frame()
    result = frame_attributes(answer, "SubmitResult")
    return int(result["exit_status"]), result["reason"]


def _send(connection: BlockingConnection, message: Message, content: bytes) -> None:
    notify = message.options.notify
    recipients = [(address, address, "", notify, 0) for address in message.recipients]
    for start in range(0, len(recipients), _BATCH):
        connection.send("Recipients", recipients=recipients[start : start + _BATCH])
    connection.send_content((content,))


def _check_addresses(addresses: Iterable[str]) -> None:
    """What no program of the mail system takes is refused for good. Raises Failure."""
    for address in addresses:
        if len(address) > _USUAL_ADDRESS or not address.isprintable():
            from libmail.smtp.address import address_fault

            fault = address_fault(address)
            if fault:
                raise Failure(EX_DATAERR, f"{fault}: {address[:80]}")


def _drop(config: Config, message: Message, why: str) -> None:
    """Leave the message in maildrop, on disk. why: a warning, or "". Raises Failure."""
    from commands.sendmail.maildrop import NotAllowed, TooBig, check_user, leave_in_maildrop

    try:
        check_user(config, message.sender)
        if why:
            _say(config, "postdrop", why)
        leave_in_maildrop(config, message)
    except NotAllowed as err:
        raise Failure(EX_TEMPFAIL, str(err)) from err
    except TooBig as err:
        uid = os.getuid()
        _say(config, "postdrop", f"warning: uid={uid}: File too large")
        raise Failure(EX_TEMPFAIL, f"{message.sender}({uid}): {TOO_BIG}") from err
    except OSError as err:
        text = f"mail submission failed: {err.filename or 'maildrop'}: {err.strerror}"
        raise Failure(EX_TEMPFAIL, text) from err


def _say(config: Config | None, program: str, text: str, shown: str = "") -> None:
    """To standard error, and to the log if there is one. shown: the name in the former."""
    complain(shown or program, text)
    if config is not None:
        from libmail.log.commands import log_line

        log_line(config, program, text)


def _execute(path: str, *arguments: str) -> NoReturn:
    try:
        os.execv(path, [os.path.basename(path), *arguments])
    except OSError as err:
        raise Failure(EX_OSERR, f"execute {path}: {err.strerror}") from err


def _other_mode(options: Options, config: Config) -> NoReturn:
    """Everything but submission is the work of another program."""
    from libmail.config.programs import program_directory

    commands = program_directory(config, "command_directory")
    directory = ("-c", config.directory)
    mode = options.mode
    if mode == Mode.SMTP:
        os.environ["MAIL_CONFIG"] = config.directory
        _execute(f"{program_directory(config, 'daemon_directory')}/smtpd", "-S")
    elif mode == Mode.LIST:
        _execute(f"{commands}/postqueue", *directory, "-p")
    elif mode == Mode.FLUSH:
        _execute(f"{commands}/postqueue", *directory, "-f")
    elif mode == Mode.FLUSH_ID:
        _execute(f"{commands}/postqueue", *directory, "-i", options.site)
    elif mode == Mode.FLUSH_SITE:
        _execute(f"{commands}/postqueue", *directory, "-s", options.site)
    elif mode == Mode.ALIASES:
        databases = (options.aliases,) if options.aliases else config.list("alias_database")
        if not databases:
            raise SystemExit(EX_OK)
        _execute(f"{commands}/postalias", *directory, *databases)
    elif mode == Mode.FOREGROUND:
        _execute(f"{commands}/postfix", *directory, "start-fg")
    _execute(f"{commands}/postfix", *directory, "start")


def _run(options: Options, config: Config) -> None:
    if options.mode == Mode.NOTHING:
        return
    message = _message(options, config) if options.mode == Mode.SUBMIT else None
    for warning in options.warnings:
        _say(config, "sendmail", f"warning: {warning}")
    if message is None:
        _other_mode(options, config)
    _submit(config, message)
    if options.flags & (VERIFY_ONLY | VERBOSE):
        print(f"Mail Delivery Status Report will be mailed to <{message.sender}>.")


def _usual_config() -> Config | None:
    """For the log, where the command line does not tell of any other."""
    try:
        return open_config(None, process_name="sendmail")
    except ConfigError:
        return None


def main(argv: Sequence[str]) -> int:
    """argv: without the program name, which is taken from sys.argv[0]."""
    config: Config | None = None
    name = os.path.basename(sys.argv[0])
    _open_standard_files()
    try:
        options = parse(name, list(argv))
        config = open_config(options.config_directory, process_name="sendmail")
        _run(options, config)
    except UsageError as err:
        for text in err.details:
            complain(name, text)
        _say(_usual_config(), "sendmail", f"fatal: {err.text}", name)
    except ConfigError as err:
        complain(name, f"fatal: {err}")
    except WireError as err:  # a NUL in an argument cannot be; one in the environment neither
        _say(config, "sendmail", f"fatal: {err}")
    except Failure as err:
        _say(config, "sendmail", f"fatal: {err.text}")
        return err.status
    else:
        return EX_OK
    return EX_TEMPFAIL
