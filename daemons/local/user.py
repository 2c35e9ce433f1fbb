"""The system's users: whom to deliver to, and whose rights to take on.

The user database may take its time, so it is asked in threads, too.
"""

import os
import pwd
from dataclasses import dataclass

from libmail.privileges import Actor, Identity

__all__ = [
    "ROOT",
    "CannotAct",
    "User",
    "act_as",
    "default_user",
    "find_user",
    "require_rights",
    "user_of_id",
]


class CannotAct(Exception):
    """This process has not got the rights of that user, nor can it get them (rootless mode)."""


@dataclass(frozen=True, slots=True)
class User:
    """An account. name, home and shell are "" for default_privs, which stand for no user."""

    name: str
    home: str
    shell: str
    identity: Identity


ROOT = Identity("root", 0, 0, (0,))


def _user(entry: pwd.struct_passwd) -> User:
    # Mail is delivered with the primary group alone, as the original does.
    identity = Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, (entry.pw_gid,))
    return User(entry.pw_name, entry.pw_dir, entry.pw_shell, identity)


def default_user(entry: pwd.struct_passwd) -> User:
    """The rights for what belongs to no user."""
    return User("", "", "", _user(entry).identity)


def find_user(name: str) -> User | None:
    """Look up an account by name."""
    if not name or "\0" in name:
        return None
    try:
        return _user(pwd.getpwnam(name))
    except KeyError:
        return None


def user_of_id(uid: int) -> User | None:
    """Look up an account by number."""
    try:
        return _user(pwd.getpwuid(uid))
    except KeyError:
        return None


def act_as(actor: Actor, identity: Identity) -> None:
    """Have the rights of a user from now on. Raises CannotAct."""
    try:
        actor.become(identity)
    except PermissionError as err:
        raise _cannot_act(identity) from err


def require_rights(identity: Identity) -> None:
    """For the event loop: whether commands can be run as a user. Raises CannotAct."""
    if os.geteuid() not in (0, identity.uid):
        raise _cannot_act(identity)


def _cannot_act(identity: Identity) -> CannotAct:
    return CannotAct(f"cannot deliver as user {identity.name} without root privileges")
