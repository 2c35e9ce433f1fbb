"""smtpd_command_filter, smtpd_noop_commands and smtpd_forbidden_commands."""

from typing import Final

from libmail.lookup.context import LookupFailure, Lookups

__all__ = ["CommandRules"]

_FILTER: Final = "smtpd_command_filter"
_NOOP: Final = "smtpd_noop_commands"
_FORBIDDEN: Final = "smtpd_forbidden_commands"


class CommandRules:
    """Decides about command lines, independent of any session.

    filters, ignores_some: whether smtpd_command_filter or smtpd_noop_commands is set, so that
    nothing is awaited where they are not.
    """

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self.filters = lookups.has(_FILTER)
        self.ignores_some = lookups.has(_NOOP)

    async def replaced(self, line: str) -> str | None:
        """The replacement of a line, None to keep it. Raises LookupFailure."""
        return await self._lookups.find(_FILTER, line)

    async def ignores(self, word: str) -> bool:
        """Whether a command is to be answered with success and not carried out."""
        return await self._listed(_NOOP, word)

    async def forbids(self, word: str) -> bool:
        """Whether a word shows that the client does not speak SMTP."""
        return word.endswith(":") or await self._listed(_FORBIDDEN, word)

    async def _listed(self, title: str, word: str) -> bool:
        try:
            return await self._lookups.in_list(title, word)
        except LookupFailure:
            return False
