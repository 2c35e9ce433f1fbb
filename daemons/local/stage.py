"""An address on its way through aliases, .forward and :include: files."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from daemons.local.user import User
from libmail.ipc.messages import Recipient
from libmail.message.addresses import AddressField, Mailbox
from libmail.smtp.address import split_address
from libmail.tables.maps import split_extension

__all__ = ["MAX_LEVEL", "Expansion", "Origin", "SeenFilter", "Stage", "members_of"]

MAX_LEVEL: Final = 100


class Origin(Enum):
    """Where an address was found; the values are those of allow_mail_to_commands."""

    ENVELOPE = ""
    ALIAS = "alias"
    FORWARD = "forward"
    INCLUDE = "include"


class Stage(NamedTuple):
    """An address and how we came to it.

    recipient: what is logged, and where to deliver. sender: the envelope sender, or the owner of an
    alias. delivered_to: for the Delivered-To header. owner: of the alias, or the user of the
    .forward file, that the address comes from, "" if it has none: who else it names gets the mail
    as a new message. expanded: the alias or user name that named the address. unmatched: the
    extension that no table has used. rights: of whom to deliver to files and commands; None: of
    nobody in particular.
    """

    recipient: Recipient
    sender: str
    delivered_to: str
    owner: str = ""
    origin: Origin = Origin.ENVELOPE
    expanded: str = ""
    unmatched: str = ""
    rights: User | None = None
    level: int = 0
    local: str = ""
    user: str = ""
    extension: str = ""
    delimiter: str = ""
    domain: str = ""

    def at(self, address: str, delimiters: str) -> "Stage":
        """The stage for an address, with its parts; delimiters: recipient_delimiter."""
        local, domain = split_address(address)
        local = local.casefold()
        user, extension = split_extension(local, delimiters)
        recipient = self.recipient
        if recipient.address != address:
            recipient = recipient._replace(address=address)
        return self._replace(
            recipient=recipient,
            local=local,
            user=user,
            extension=extension[1:],
            delimiter=extension[:1] or delimiters[:1],
            domain=domain,
        )


@dataclass(frozen=True, slots=True)
class Expansion:
    """What an alias, a .forward or an :include: file names.

    stage: what the members inherit. told: all that verify(8) is told of it, instead of what becomes
    of the members; "" where they are asked.
    """

    stage: Stage
    members: tuple[Mailbox, ...]
    told: str = ""


class SeenFilter:
    """Remembers what was delivered to for a recipient; at most duplicate_filter_limit of them."""

    def __init__(self, limit: int) -> None:
        """limit: 0 for none."""
        self._limit = limit
        self._seen: set[tuple[object, ...]] = set()

    def been_here(self, *what: object) -> bool:
        """Whether `what` was asked about before."""
        if what in self._seen:
            return True
        if not self._limit or len(self._seen) < self._limit:
            self._seen.add(what)
        return False


def members_of(text: str) -> tuple[Mailbox, ...]:
    """The members in the value of an alias, or in a line of a file."""
    return tuple(member for member in AddressField(text).mailboxes if member.address)
