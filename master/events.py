"""The log lines of master(8) that log analysers read."""

from typing import NamedTuple

__all__ = ["DaemonStarted", "Reloaded", "Terminating"]


class DaemonStarted(NamedTuple):
    """The mail system is up. version: mail_version. directory: of the configuration."""

    version: str
    directory: str

    def text(self) -> str:
        """`daemon started -- version 3.12.0, configuration /etc/postfix`."""
        return f"daemon started -- version {self.version}, configuration {self.directory}"


class Reloaded(NamedTuple):
    """The configuration was read again."""

    version: str
    directory: str

    def text(self) -> str:
        """`reload -- version 3.12.0, configuration /etc/postfix`."""
        return f"reload -- version {self.version}, configuration {self.directory}"


class Terminating(NamedTuple):
    """The mail system ends."""

    signal: int

    def text(self) -> str:
        """`terminating on signal 15`."""
        return f"terminating on signal {self.signal}"
