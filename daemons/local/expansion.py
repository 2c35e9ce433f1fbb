"""`$user`, `$extension` and the like in luser_relay, forward_path, command_execution_directory."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from daemons.local.stage import Stage
from daemons.local.user import User
from libmail.config import ConfigError
from libmail.config.expand import expand
from libmail.text.allowed import sanitised

__all__ = ["Template", "expanded_leniently", "values_of"]

_PLAIN: Final = re.compile(r"\$(?:\$|(\w+)|\{\s*(\w+)\s*\}|\(\s*(\w+)\s*\))", re.ASCII)


def values_of(stage: Stage, user: User | None) -> dict[str, str]:
    """What the names stand for; "" is as good as undefined."""
    return {
        "user": stage.user,
        "home": user.home if user else "",
        "shell": user.shell if user else "",
        "recipient": stage.recipient.address,
        "extension": stage.extension,
        "domain": stage.domain,
        "local": stage.local,
        "recipient_delimiter": stage.delimiter,
    }


def _unconditional(text: str) -> Iterator[str]:
    """The names that a text refers to outside of `${name?...}` and the like."""
    at = text.find("$")
    while at >= 0:
        match = _PLAIN.match(text, at)
        if match is not None:
            yield from filter(None, match.groups())
            end = match.end()
        else:
            end = _behind(text, at + 1)
        at = text.find("$", end)


def _behind(text: str, at: int) -> int:
    """The index behind the braces that open at `at`."""
    depth = 0
    for index in range(at, len(text)):
        depth += {"{": 1, "(": 1, "}": -1, ")": -1}.get(text[index], 0)
        if depth <= 0:
            return index + 1
    return len(text)


class Template(NamedTuple):
    """A text to be expanded again and again. names: it needs the values of all of these."""

    text: str
    names: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Template":
        """Take the text apart."""
        return cls(text, frozenset(_unconditional(text)))

    def expanded(self, values: dict[str, str], allowed: str) -> str | None:
        """The text with all names replaced; None when it needs one that is not defined here.

        allowed: the characters that a value may have; others become "_". Raises ConfigError for
        malformed text.
        """
        for name in self.names:
            if not values.get(name):
                return None
        good = frozenset(allowed)

        def lookup(name: str) -> str | None:
            value = values.get(name)
            if value is None:
                raise ConfigError(f"unknown name in {self.text!r}: {name}")
            value = sanitised(value, good) if good else value
            return value.replace("$", "$$")  # it is not to be expanded again

        return expand(self.text, lookup)


def expanded_leniently(text: str, values: dict[str, str]) -> str:
    """The text with all names replaced; those that are not defined, by nothing.

    Raises ExpansionError for malformed text.
    """
    return expand(text, lambda name: values.get(name, "").replace("$", "$$"))
