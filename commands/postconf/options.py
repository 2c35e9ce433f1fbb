"""postconf's options, and which of them go together.

Parsed by hand: getopt and dataclasses take longer to load than all else that postconf does, and
scripts call it hundreds of times.
"""

from __future__ import annotations

import os

from libmail.config.errors import ConfigError
from libmail.config.installed import DEFAULT_CONFIG_DIRECTORY
from libmail.config.main_cf import SPACES, split_name_value
from libmail.text.printable import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Request", "parse"]

USAGE = (
    "usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-b (bounce templates)]"
    " [-c config_dir] [-C param_class] [-d (parameter defaults)] [-e (edit configuration)]"
    " [-f (fold lines)]"
    " [-F (master.cf fields)] [-h (no names)] [-H (no values)] [-j (JSON output)]"
    " [-l (lock types)] [-m (map types)] [-M (master.cf)] [-n (non-default parameters)]"
    " [-o name=value (override parameter value)] [-p (main.cf, default)]"
    " [-P (master.cf parameters)] [-q (no warnings about names)] [-t (bounce templates)]"
    " [-T compile-version|run-version|public-key-algorithms] [-v (verbose)]"
    " [-x (expand parameter values)] [-X (exclude)] [-# (comment-out)]"
    " [--origin (where values come from)] [name...]"
)
LETTERS = "aAbdefFhHjlmMnpPqtvxX#"
WITH_VALUE = "cCoT"
ORIGIN = "--origin"

TARGETS = "aAbFlmMpPtT"
EVERYWHERE = "cCv"
ALLOWED = {"M": "efjoqvxX#", "F": "efhHjoqvx", "P": "efhHjoqvxX", "p": "defhHjnoqvxX#"}
EDITS = "eX#"
NOT_WITH_EDITS = "dfhHjnoqx"
CLASHES = ("denX#", "hHj", "do")
CLASSES = ("builtin", "service", "user", "all")


class Request:
    """A parsed command line.

    flags: the option letters given. target: one of TARGETS, `p` unless another was given.
    edit: e, X or #, "" to show something. origin: --origin. mode: the argument of -T.
    """

    __slots__ = ("arguments", "classes", "edit", "flags", "given_directory", "mode", "origin",
                 "overrides", "target")  # fmt: skip

    def __init__(self, options: Sequence[tuple[str, str]], arguments: Sequence[str]) -> None:
        self.flags = frozenset(letter for letter, _ in options)
        self.arguments = tuple(arguments)
        self.origin = ORIGIN in self.flags
        self.given_directory = _last(options, "c")
        self.mode = _last(options, "T") or ""
        self.classes = _classes(options)
        self.overrides = tuple(_override(value) for letter, value in options if letter == "o")
        self.target = next((letter for letter in TARGETS if letter in self.flags), "p")
        self.edit = next((letter for letter in EDITS if letter in self.flags), "")
        if not self.edit and self.target in ALLOWED and not self.origin:
            self.edit = "e" if self.gives_value else ""

    @property
    def gives_value(self) -> bool:
        """Whether the first argument has a value, which asks for -e."""
        return "=" in "".join(self.arguments[:1])

    @property
    def show(self) -> str:
        """What of `name = value` is wanted: "both", "names", "values" or "json"."""
        wanted = {"h": "values", "H": "names", "j": "json"}
        return next((what for letter, what in wanted.items() if letter in self.flags), "both")

    @property
    def chosen_directory(self) -> str | None:
        """Where main.cf is, if option or environment say so."""
        return self.given_directory or os.environ.get("MAIL_CONFIG") or None

    @property
    def directory(self) -> str:
        """Where main.cf is."""
        return self.chosen_directory or DEFAULT_CONFIG_DIRECTORY


def parse(argv: Sequence[str]) -> Request:
    """The command line. Raises ConfigError for options that are unknown or do not fit."""
    request = Request(*_split(argv))
    flags = set(request.flags)
    if request.origin:
        extra = _sorted(flags - set(EVERYWHERE) - {ORIGIN, "o"})
        if extra:
            raise ConfigError(f"with option {ORIGIN}, do not specify -{extra[0]}")
        return request
    targets = _sorted(flags & set(TARGETS))
    if len(targets) > 1:
        raise _one_of(targets)
    allowed = set(ALLOWED.get(request.target, "") + EVERYWHERE + request.target)
    for letter in _sorted(flags - allowed):
        raise ConfigError(f"with option -{request.target}, do not specify -{letter}")
    edits = flags & set(EDITS) | ({"e"} if request.gives_value else set())
    edits &= allowed | {"e"}
    clash = _sorted(edits | (flags & set(NOT_WITH_EDITS))) if edits else []
    if len(clash) > 1:
        raise _one_of(clash)
    for group in CLASHES:
        clash = _sorted(flags & set(group))
        if len(clash) > 1:
            raise _one_of(clash)
    return request


def _split(argv: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """((option letter, its value or "") ..., arguments), as getopt of POSIX does it."""
    options: list[tuple[str, str]] = []
    rest = list(argv)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word == ORIGIN:
            options.append((ORIGIN, ""))
            continue
        for position, letter in enumerate(word[1:], 2):
            if letter in LETTERS:
                options.append((letter, ""))
                continue
            if letter not in WITH_VALUE:
                raise _usage(f"invalid option -- '{letter}'")
            if position == len(word) and not rest:
                raise _usage(f"option requires an argument -- '{letter}'")
            options.append((letter, word[position:] or rest.pop(0)))
            break
    return options, rest


def _usage(complaint: str) -> ConfigError:
    complain("postconf", complaint)
    return ConfigError(USAGE)


def _one_of(letters: Sequence[str]) -> ConfigError:
    return ConfigError("specify one of " + " ".join(f"-{letter}" for letter in letters))


def _sorted(letters: Iterable[str]) -> list[str]:
    """a A b B ... #, the order of Postfix's complaints."""
    return sorted(letters, key=lambda letter: (letter == "#", letter.lower(), letter.isupper()))


def _last(options: Sequence[tuple[str, str]], wanted: str) -> str | None:
    return next((value for letter, value in reversed(options) if letter == wanted), None)


def _classes(options: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The words of the last -C; "all" without any."""
    chosen: tuple[str, ...] = ("all",)
    for text in (value for letter, value in options if letter == "C"):
        chosen = tuple(text.replace(",", " ").split())
        for word in chosen:
            if word not in CLASSES:
                raise ConfigError(f'unknown -C option value "{word}" in "{text}"')
    return chosen


def _override(text: str) -> tuple[str, str]:
    try:
        name, value = split_name_value(text)
    except ValueError as error:
        raise ConfigError(f"invalid parameter override: {text}: {error}") from None
    return name, value.rstrip(SPACES)
