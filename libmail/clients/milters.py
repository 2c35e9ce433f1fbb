"""All Milters of a session or message, in order; and macros.

An event is reported to each in turn, until one decides anything but to continue. Each sees the
changes of those before it.

The value of a macro comes from the first of: `known`, what session or message tell (smtpd:
daemons.smtpd.milters, cleanup: daemons.cleanup.milters); configuration; milter_macro_defaults.
Which macros go with an event: `_MACROS`, unless the Milter asked for others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from libmail.clients.milter import Dial, MilterLink
from libmail.dns.native import ServerAddresses
from libmail.milter.conversation import PASS, Act, Decision
from libmail.milter.macros import encode_macros, macro_names, parse_defaults
from libmail.milter.protocol import Command, Stage
from libmail.milter.settings import MilterSettings, parse_milters
from libmail.net.endpoint import Endpoint, EndpointOpener, parse_endpoint

__all__ = ["MilterChain", "MilterParams", "Milters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MilterParams:
    """The parameters of all Milters. Times in seconds."""

    mail_name: str
    mail_version: str
    milter_command_timeout: float
    milter_connect_macros: str
    milter_connect_timeout: float
    milter_content_timeout: float
    milter_data_macros: str
    milter_default_action: str
    milter_end_of_data_macros: str
    milter_end_of_header_macros: str
    milter_helo_macros: str
    milter_macro_daemon_name: str
    milter_macro_defaults: tuple[str, ...]
    milter_macro_v: str
    milter_mail_macros: str
    milter_protocol: str
    milter_rcpt_macros: str
    milter_unknown_command_macros: str
    myhostname: str


_MACROS: Final = {
    Command.CONNECT: (Stage.CONNECT, "milter_connect_macros"),
    Command.HELO: (Stage.HELO, "milter_helo_macros"),
    Command.MAIL: (Stage.MAIL, "milter_mail_macros"),
    Command.RCPT: (Stage.RCPT, "milter_rcpt_macros"),
    Command.DATA: (Stage.DATA, "milter_data_macros"),
    Command.HEADER: (Stage.END_OF_HEADER, "milter_end_of_header_macros"),
    Command.END_OF_HEADER: (Stage.END_OF_HEADER, "milter_end_of_header_macros"),
    Command.BODY: (Stage.END_OF_MESSAGE, "milter_end_of_data_macros"),
    Command.END_OF_BODY: (Stage.END_OF_MESSAGE, "milter_end_of_data_macros"),
}


class Milters:
    """The Milters of a configuration; made before the jail."""

    def __init__(self, params: MilterParams) -> None:
        self.params = params
        ours = {
            "v": params.milter_macro_v,
            "daemon_name": params.milter_macro_daemon_name,
            "j": params.myhostname,
        }
        given = {name: value for name, value in ours.items() if value}
        self._configured = parse_defaults(params.milter_macro_defaults) | given
        self._lists = {
            command: (int(stage), str(getattr(params, parameter)))
            for command, (stage, parameter) in _MACROS.items()
        }
        self._general = MilterSettings(
            "",
            params.milter_connect_timeout,
            params.milter_command_timeout,
            params.milter_content_timeout,
            params.milter_default_action,
            params.milter_protocol,
        )
        self._addresses = ServerAddresses()

    def parse(self, elements: Sequence[str]) -> list[MilterSettings]:
        """Parse the elements of smtpd_milters. Raises ValueError with the problem."""
        found = parse_milters(elements, self._general)
        for one in found:
            parse_endpoint(one.endpoint)
        return found

    def dial(self, settings: MilterSettings) -> Dial:
        """The function that connects to a Milter."""
        return EndpointOpener(_endpoint(settings.endpoint), lambda: self._addresses).open_socket

    def macros(
        self, link: MilterLink, command: Command, known: Callable[[str], str | None]
    ) -> bytes | None:
        """The macros that go with an event; None for no list of them.

        known: values of the session or message.
        """
        found = self._lists.get(command)
        if found is None:
            names = self.params.milter_unknown_command_macros
        else:
            stage, ours = found
            names = link.asked.get(stage, ours)
        return encode_macros(macro_names(names), known, self._configured) if names else None


@lru_cache(64)
def _endpoint(text: str) -> Endpoint:
    """As `parse_endpoint`, for the same one again and again."""
    return parse_endpoint(text)


class MilterChain:
    """The Milters of one session or message."""

    def __init__(self, milters: Milters, links: Sequence[MilterLink]) -> None:
        self.milters = milters
        self.links = links

    async def event(
        self, command: Command, data: bytes, macro: Callable[[str], str | None]
    ) -> Decision:
        """Report an event to all that want it. Returns the first decision but to continue.

        macro: values of the session or message.
        """
        held = PASS
        for link in self.links:
            told = link.wants(command) or link.notes(command)
            macros = self.milters.macros(link, command, macro) if told else None
            decision = await link.event(command, data, macros)
            if decision is PASS:
                continue
            if decision.act is not Act.HOLD:
                return decision
            held = decision  # the others may still reject
        return held

    def close(self) -> None:
        """The session is over."""
        for link in self.links:
            link.close()
