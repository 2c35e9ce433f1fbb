"""The one error of the configuration layer, and the warning that goes with a duplicate."""

from __future__ import annotations

__all__ = ["ConfigError", "ExpansionError"]


class ConfigError(Exception):
    """The configuration cannot be used; str() is one line, fit to follow "fatal: "."""


class ExpansionError(ConfigError):
    """A `$name` construct is malformed; str() tells which and where it went wrong."""
