"""What the options of smtp-sink(1) say."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from libmail.load.command_line import Options
from libmail.log import Fatal

__all__ = ["COMMANDS", "LETTERS", "Delay", "Settings", "read_settings"]

LETTERS: Final = "468aA:b:B:cCd:D:eEf:Fh:H:Lm:M:n:NpPq:Q:r:R:s:S:t:T:u:vw:W:"

_OF_SESSIONS: Final = frozenset(
    ("CONNECT", "HELO", "EHLO", "LHLO", "XCLIENT", "XFORWARD", "AUTH", "NOOP", "VRFY", "QUIT")
)
COMMANDS: Final = _OF_SESSIONS | {"MAIL", "RCPT", "DATA", ".", "RSET"}
"""What a client can say; those that are not offered with the options at hand as well."""

_SOFT: Final = "450 4.3.0 Error: command failed"
_HARD: Final = "500 5.3.0 Error: command failed"
_CLOSING: Final = b"421 4.0.0 Server closing connection\r\n"
_ESCAPE: Final = re.compile(r"\\(?:([abfnrtv\\])|([0-7]{1,3}))")
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True)
class Delay:
    """Before the answer to a command. seconds; odds: in percent, for another time as long."""

    seconds: int
    odds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """replies: instead of the usual ones, by command. dropped: commands after which to hang up.

    closing: those after whose (replaced) reply to hang up. keywords: what EHLO tells. abort_after:
    seconds after DATA, None for never. read_delay: before content is read. dump: template of file
    names, "" for none; shared: several messages in a file. enough_messages, enough_sessions: after
    which to end, 0 for never.
    """

    host_name: str
    greeting: bytes
    commands: frozenset[str]
    keywords: tuple[str, ...]
    lmtp: bool
    replies: Mapping[str, bytes]
    dropped: frozenset[str]
    closing: frozenset[str]
    logged: frozenset[str]
    delays: Mapping[str, Delay]
    abort_after: int | None
    read_delay: int
    dump: str
    shared: bool
    start: str
    timeout: int
    window: int
    most_sessions: int
    enough_messages: int
    enough_sessions: int
    counting: bool
    verbose: bool


def read_settings(options: Options) -> Settings:
    """Raises Fatal."""
    pix, lmtp = "-P" in options, "-L" in options
    esmtp = not pix and "-e" not in options
    host = options.text("-h", "smtp-sink")
    replies = dict(_replies(options))
    closing = frozenset(_commands(options, "-Q"))
    greeting = "220 ********" if pix else f"220 {host}{' ESMTP' if esmtp else ''}"
    return Settings(
        host_name=host,
        greeting=f"{greeting}\r\n".encode(),
        commands=_offered(options, esmtp=esmtp, lmtp=lmtp),
        keywords=tuple(_keywords(options, alone=bool(replies))),
        lmtp=lmtp,
        replies=replies | dict.fromkeys(closing, _CLOSING),
        dropped=frozenset(_commands(options, "-q")),
        closing=closing,
        logged=frozenset(_commands(options, "-s")),
        delays=dict(_delays(options)),
        abort_after=options.number("-A", 0) if "-A" in options else None,
        read_delay=options.number("-H", 0),
        dump=options.text("-d", "") or options.text("-D", ""),
        shared="-d" not in options,
        start=_unescaped(options.text("-S", "")),
        timeout=options.number("-t", 100, 1),
        window=options.number("-T", 0),
        most_sessions=options.number("-m", 256, 1),
        enough_messages=options.number("-M", 0),
        enough_sessions=options.number("-n", 0),
        counting="-c" in options,
        verbose="-v" in options,
    )


def _commands(options: Options, option: str) -> Iterator[str]:
    for name, value in options.pairs:
        if name == option:
            for word in value.upper().replace(",", " ").split():
                yield _command(word)


def _command(word: str) -> str:
    if word not in COMMANDS:
        raise Fatal(f"unknown command: {word}")
    return word


def _replies(options: Options) -> Iterator[tuple[str, bytes]]:
    for option, reply in (("-r", options.text("-b", _SOFT)), ("-f", options.text("-B", _HARD))):
        if not re.match(r"[45][0-9][0-9](?: |$)", reply):
            raise Fatal(f"bad reply: {reply}")
        for command in _commands(options, option):
            yield command, f"{reply}\r\n".encode("utf-8", "surrogateescape")


def _offered(options: Options, *, esmtp: bool, lmtp: bool) -> frozenset[str]:
    missing = {"CONNECT"}
    if lmtp:
        missing |= {"HELO", "EHLO"}
    else:
        missing |= {"LHLO"} if esmtp else {"LHLO", "EHLO"}
    for option, command in (("-a", "AUTH"), ("-C", "XCLIENT"), ("-F", "XFORWARD")):
        if option in options:
            missing.add(command)
    return COMMANDS - missing


def _keywords(options: Options, *, alone: bool) -> Iterator[str]:
    """alone: commands are refused, so they have to come one at a time."""
    for option, keyword in (
        ("-p", "PIPELINING"),
        ("-8", "8BITMIME"),
        ("-a", "AUTH PLAIN LOGIN"),
        ("-C", "XCLIENT NAME HELO"),
        ("-F", "XFORWARD NAME ADDR PROTO HELO"),
        ("-E", "ENHANCEDSTATUSCODES"),
        ("-N", "DSN"),
    ):
        if option not in options and not (alone and option == "-p"):
            yield keyword


def _delays(options: Options) -> Iterator[tuple[str, Delay]]:
    for name, value in options.pairs:
        if name == "-w":
            yield "DATA", Delay(_seconds(value))
        elif name == "-W":
            command, _, rest = value.partition(":")
            seconds, colon, odds = rest.partition(":")
            percent = _seconds(odds) if colon else 0
            if percent > 99:
                raise Fatal(f"bad odds: {value}")
            yield _command(command.upper()), Delay(_seconds(seconds), percent)


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Fatal(f"bad number: {text}")
    return int(text[:9])


def _unescaped(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        if match[2]:
            return chr(int(match[2], 8) & 0xFF)
        return _ESCAPED.get(match[1], match[1])

    return _ESCAPE.sub(char, text)
