"""smtpd_command_filter, smtpd_noop_commands and smtpd_forbidden_commands."""

from daemons.smtpd.prepared import Prepared
from libmail.tables.match import StringList
from libmail.tables.table import TableRetry

__all__ = ["CommandRules"]


class CommandRules:
    """Decides about command lines, independent of any session.

    filters, ignores_some: whether smtpd_command_filter or smtpd_noop_commands is set, so that
    nothing is awaited where they are not.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._filter = prepared.command_filter
        self._noop = prepared.noop_commands
        self.filters = bool(self._filter)
        self.ignores_some = bool(self._noop)
        self._forbidden = prepared.forbidden_commands

    async def replaced(self, line: str) -> str | None:
        """The replacement of a line, None to keep it. Raises TableRetry."""
        return await self._filter.find(line)

    async def ignores(self, word: str) -> bool:
        """Whether a command is to be answered with success and not carried out."""
        return await _listed(self._noop, word)

    async def forbids(self, word: str) -> bool:
        """Whether a word shows that the client does not speak SMTP."""
        return word.endswith(":") or await _listed(self._forbidden, word)


async def _listed(commands: StringList, word: str) -> bool:
    try:
        return await commands.match(word)
    except TableRetry:
        return False
