"""The command line of sendmail(1), with Sendmail's habits: clustered and attached options."""

from __future__ import annotations

from commands.sendmail.bits import (
    DSN_FULL,
    DSN_HEADERS,
    EIGHTBIT,
    NOTIFY,
    NOTIFY_NEVER,
    RELAYED,
    REQUIRETLS,
    SMTPUTF8,
    VERBOSE,
    VERIFY_ONLY,
)

__all__ = ["Mode", "Options", "UsageError", "parse"]

# "q" takes no argument from the next word.
_WITH_ARGUMENT = frozenset("ABCFLNORVXbfhprqoe")
_FLAGS = frozenset("GIUcimntvx")
_MAX_ENVID = 100


class UsageError(Exception):
    """The command line makes no sense; `text` tells, `details` are lines that come before it."""

    def __init__(
        self, text: str = "usage: sendmail [options]", details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(text)
        self.text = text
        self.details = details


class Mode:
    """What the command is asked to do."""

    SUBMIT = "submit"
    SMTP = "smtp"  # -bs: speak SMTP on standard input and output
    LIST = "list"  # -bp, mailq
    ALIASES = "aliases"  # -bi, -I, newaliases
    DAEMON = "daemon"  # -bd, -bl
    FLUSH = "flush"  # -q
    FLUSH_ID = "flush-id"  # -qI
    FLUSH_SITE = "flush-site"  # -qR
    FOREGROUND = "foreground"  # -bD
    NOTHING = "nothing"  # -bh, -bH: what Postfix has no use for


_MODES = {
    "m": Mode.SUBMIT,
    "a": Mode.SUBMIT,
    "v": Mode.SUBMIT,
    "s": Mode.SMTP,
    "p": Mode.LIST,
    "i": Mode.ALIASES,
    "d": Mode.DAEMON,
    "l": Mode.DAEMON,
    "D": Mode.FOREGROUND,
    "h": Mode.NOTHING,
    "H": Mode.NOTHING,
}
# The modes that have nothing to do with recipients, as they are called in complaints.
_WITHOUT_RECIPIENT = {
    Mode.SMTP: "stand-alone mode",
    Mode.LIST: "display queue mode",
    Mode.ALIASES: "alias initialization mode",
    Mode.DAEMON: "daemon mode",
    Mode.FOREGROUND: "daemon mode",
    Mode.FLUSH: "flush queue mode",
    Mode.FLUSH_ID: "flush queue_id",
    Mode.FLUSH_SITE: "flush site",
}


class Options:
    """What the command line says.

    sender: None if not given. aliases: the database of -oA, or "". interval: whether -q gave one.
    full_name: None for that of the user database. flags, notify: see `bits`. verp: delimiters, ""
    for the usual ones, None without VERP. warnings: what was not understood and is ignored.
    """

    __slots__ = (
        "aliases",
        "config_directory",
        "envid",
        "extract",
        "flags",
        "full_name",
        "ignore_dots",
        "interval",
        "mode",
        "notify",
        "recipients",
        "sender",
        "site",
        "verbose",
        "verp",
        "warnings",
    )

    def __init__(self) -> None:
        self.mode: str = Mode.SUBMIT
        self.sender: str | None = None
        self.full_name: str | None = None
        self.extract = False
        self.ignore_dots = False
        self.flags = 0
        self.notify = 0
        self.envid = ""
        self.verp: str | None = None
        self.site = ""
        self.config_directory: str | None = None
        self.aliases = ""
        self.interval = False
        self.verbose = 0
        self.recipients: list[str] = []
        self.warnings: list[str] = []


def _is_old_verp(word: str, following: str) -> bool:
    """Whether -V is that of Postfix 2.2, which is -XV today, and not an envelope id.

    It is if two characters follow, in the same word or the next, as in Postfix itself.
    """
    return word.startswith("-V") and len(word if len(word) > 2 else f"{word}{following}") == 4


def _split(argv: list[str], warnings: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options as (letter, argument), and the rest, which begins with the first recipient."""
    options: list[tuple[str, str]] = []
    mistakes: list[str] = []
    at = 0
    while at < len(argv):
        word, following = argv[at], argv[at + 1] if at + 1 < len(argv) else None
        if word == "--":
            at += 1
            break
        if not word.startswith("-") or word == "-":
            break
        if _is_old_verp(word, following or ""):
            new = f"-X{word[1:]}"
            warnings.append(f"option {word} is deprecated with Postfix 2.3; specify {new} instead")
            word = new
        at += 2 if _cluster(word, following, options, mistakes) else 1
    if mistakes:  # the original goes over the words twice, and gives up at the second time
        raise UsageError(details=(*mistakes, mistakes[0]))
    return options, argv[at:]


def _cluster(
    word: str, following: str | None, options: list[tuple[str, str]], mistakes: list[str]
) -> bool:
    """Append the options of a word; returns whether the last one took the following word."""
    for at, letter in enumerate(word[1:], 2):
        if letter in _FLAGS:
            options.append((letter, ""))
        elif letter not in _WITH_ARGUMENT:
            mistakes.append(f"invalid option -- '{letter}'")
        elif at < len(word) or letter == "q":
            options.append((letter, word[at:]))
            return False
        elif following is None:
            mistakes.append(f"option requires an argument -- '{letter}'")
        else:
            options.append((letter, following))
            return True
    return False


def _notify(options: Options, text: str) -> None:
    bits = 0
    for word in filter(None, text.lower().replace(" ", "").split(",")):
        if word not in NOTIFY:
            options.warnings.append(f'unknown DSN NOTIFY command value "{word}" in "{text}"')
            bits = 0
            break
        bits |= NOTIFY[word]
    if not bits or (bits & NOTIFY_NEVER and bits != NOTIFY_NEVER):
        options.warnings.append("bad -N option value -- ignored")
        return
    options.notify = bits


def _body(options: Options, text: str) -> None:
    kind = text.upper()
    if kind not in ("8BITMIME", "7BIT"):
        raise UsageError("-B option needs 8BITMIME or 7BIT")
    if kind == "8BITMIME":
        options.flags |= EIGHTBIT


def _mode(options: Options, text: str) -> None:
    mode = _MODES.get(text[:1])
    if mode is None:
        raise UsageError(f"unsupported: -b{text}")
    options.mode = mode
    if text.startswith("v"):
        options.flags |= VERIFY_ONLY


def _old_option(options: Options, text: str) -> None:
    """-oX: the few that still mean something."""
    if text.startswith("i"):
        options.ignore_dots = True
    elif text.startswith("A"):
        options.aliases = text[1:]
        if not options.aliases:
            raise UsageError("-oA requires pathname")


def _named_option(options: Options, text: str) -> None:
    """-O name=value: those that say what the servers on the way have to be able to."""
    name, _, value = text.lower().partition("=")
    bit = {"requiretls": REQUIRETLS, "smtputf8": SMTPUTF8}.get(name)
    if bit is None:
        return
    if value not in ("yes", "no"):
        raise UsageError(f"-O {name} requires yes or no")
    options.flags = options.flags | bit if value == "yes" else options.flags & ~bit


def _return(options: Options, text: str) -> None:
    bits = {"full": DSN_FULL, "hdrs": DSN_HEADERS}.get(text.lower())
    if bits is None:
        options.warnings.append("bad -R option value -- ignored")
        return
    options.flags = options.flags & ~(DSN_FULL | DSN_HEADERS) | bits


def _configuration(options: Options, text: str) -> None:
    """-C: a directory, or the main.cf in it."""
    folder, _, name = text.rpartition("/")
    options.config_directory = (folder or ".") if name == "main.cf" else text


def _queue(options: Options, text: str) -> None:
    if text[:1] == "I":
        options.mode, options.site = Mode.FLUSH_ID, text[1:]
        if not options.site:
            raise UsageError("specify: -qIqueueid")
    elif text[:1] == "R":
        options.mode, options.site = Mode.FLUSH_SITE, text[1:]
        if not options.site:
            raise UsageError("specify: -qRsitename")
    elif text[:1].isdigit():
        options.interval = True  # for -bd, but master.cf has it
    elif not text:
        options.mode = Mode.FLUSH
    else:
        raise UsageError(f"-q{text[:1]} is not implemented")


def _envelope_id(options: Options, text: str) -> None:
    """-V: RFC 3461 §4.4."""
    if not text or not (text.isascii() and text.isprintable()):
        options.warnings.append("bad syntax in -V option value -- ignored")
    elif len(text) > _MAX_ENVID:
        options.warnings.append("too long -V option value -- ignored")
    else:
        options.envid = text


def _extension(options: Options, text: str) -> None:
    """-XV: variable envelope return paths, with two delimiters or the configured ones."""
    if text[:1] != "V":
        raise UsageError(f"unsupported: -X{text[:1]}")
    options.verp = text[1:]


def _apply(options: Options, letter: str, argument: str) -> None:
    if letter in "fr":
        options.sender = argument
    elif letter == "F":
        options.full_name = argument
    elif letter == "t":
        options.extract = True
    elif letter == "i":
        options.ignore_dots = True
    elif letter == "v":
        options.verbose += 1
    elif letter == "I":
        options.mode = Mode.ALIASES
    elif letter == "G":
        options.flags |= RELAYED
    else:
        handler = _HANDLERS.get(letter)
        if handler is not None:
            handler(options, argument)


_HANDLERS = {
    "B": _body,
    "C": _configuration,
    "N": _notify,
    "O": _named_option,
    "b": _mode,
    "o": _old_option,
    "R": _return,
    "V": _envelope_id,
    "q": _queue,
    "X": _extension,
}


def _check_mode(options: Options) -> None:
    """Raises UsageError for what goes only with mail."""
    if options.extract:
        raise UsageError("-t can be used only in delivery mode")
    name = _WITHOUT_RECIPIENT.get(options.mode)
    if name is not None and options.recipients:
        raise UsageError(f"{name} requires no recipient")


def parse(name: str, argv: list[str]) -> Options:
    """name: how the command was called (sendmail, mailq, newaliases). Raises UsageError.

    Options that only Sendmail itself had a use for are accepted and ignored (sendmail(1)).
    """
    options = Options()
    if name == "mailq":
        options.mode = Mode.LIST
    elif name == "newaliases":
        options.mode = Mode.ALIASES
    pairs, options.recipients = _split(argv, options.warnings)
    for letter, argument in pairs:
        _apply(options, letter, argument)
    if options.flags & VERIFY_ONLY:
        returned = options.flags & (DSN_FULL | DSN_HEADERS)
        for letter, used in (("N", options.notify), ("R", returned), ("t", options.extract)):
            if used:
                raise UsageError(f"-{letter} option cannot be used with -bv")
    if options.mode != Mode.SUBMIT:
        _check_mode(options)
    elif options.interval and not (options.recipients or options.extract):
        options.mode = Mode.NOTHING
    if options.verbose == 1 and options.mode == Mode.SUBMIT:
        options.flags |= VERBOSE
    return options
