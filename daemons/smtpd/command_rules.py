"""What is configured about command lines: smtpd_command_filter, smtpd_noop_commands and
smtpd_forbidden_commands."""

from daemons.smtpd.prepared import Prepared
from libmail.tables.match import StringList
from libmail.tables.table import TableRetry

__all__ = ["CommandRules"]


class CommandRules:
    """Decides for one line after the other; knows no session.

    filters, ignores_some: whether there is anything to ask, as mostly there is not.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._filter = prepared.command_filter
        self._noop = prepared.noop_commands
        self.filters = bool(self._filter)
        self.ignores_some = bool(self._noop)
        self._forbidden = prepared.forbidden_commands

    async def replaced(self, line: str) -> str | None:
        """What to read instead of a line; None: the line itself. Raises TableRetry."""
        return await self._filter.find(line)

    async def ignores(self, word: str) -> bool:
        """Whether a command is to be answered and not carried out."""
        return await _listed(self._noop, word)

    async def forbids(self, word: str) -> bool:
        """Whether nobody speaks SMTP who gives such a command."""
        return word.endswith(":") or await _listed(self._forbidden, word)


async def _listed(commands: StringList, word: str) -> bool:
    try:
        return await commands.match(word)
    except TableRetry:
        return False
