"""The one error of the configuration layer, and what becomes one."""

from __future__ import annotations

__all__ = ["BadName", "ConfigError", "ExpansionError"]


class ConfigError(Exception):
    """The configuration cannot be used; str() is one line, fit to follow "fatal: ".

    warnings: what is to be said before.
    """

    def __init__(self, text: str, warnings: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.warnings = warnings


class BadName(Exception):
    """The value of a parameter is no host name; str() says why."""


class ExpansionError(ConfigError):
    """A `$name` construct is malformed; str() tells which and where it went wrong."""
