"""What the lists that one recipient stands for may cost: lists within lists have no end otherwise.

Lists are aliases, .forward files and :include: files. Those of a user can be made by anybody who
has an account, those of the administrator can be large.
"""

from typing import Final

__all__ = ["Budget", "ListTooLarge"]

_MAX_LISTS: Final = 1000
_USER_OCTETS: Final = 1 << 20
_USER_MEMBERS: Final = 10_000
_ADMIN_OCTETS: Final = 64 << 20
_ADMIN_MEMBERS: Final = 1_000_000


class ListTooLarge(Exception):
    """Says what is too large, and what would be allowed."""


class Budget:
    """For one recipient. octets, members: what its files may hold from now on."""

    __slots__ = ("_by_user", "_lists", "members", "octets")

    def __init__(self) -> None:
        self._lists = _MAX_LISTS
        self._by_user = False
        self.octets = _ADMIN_OCTETS
        self.members = _ADMIN_MEMBERS

    @property
    def spent(self) -> bool:
        """Whether a list was refused: who is told that need not hear of all others."""
        return self._lists < 0

    def take_list(self) -> bool:
        """Whether one more list may be expanded."""
        self._lists -= 1
        return self._lists >= 0

    def by_user(self) -> None:
        """A user says from now on what is delivered to."""
        if not self._by_user:
            self._by_user = True
            self.octets = min(self.octets, _USER_OCTETS)
            self.members = min(self.members, _USER_MEMBERS)

    def take_octets(self, path: str, size: int) -> None:
        """A file of `size` is to be read. Raises ListTooLarge."""
        if size > self.octets:
            raise ListTooLarge(f"{path}: more than {self.octets} octets of lists for one recipient")
        self.octets -= size

    def take_members(self, path: str, count: int) -> None:
        """So many are in a file. Raises ListTooLarge."""
        if count > self.members:
            problem = f"more than {self.members} members of lists for one recipient"
            raise ListTooLarge(f"{path}: {problem}")
        self.members -= count
