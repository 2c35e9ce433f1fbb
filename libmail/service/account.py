"""The accounts that the mail system runs under, and whether there is root to become them."""

import os

from libmail.config import Config
from libmail.log import Fatal
from libmail.privileges import Identity, identity_of

__all__ = ["entry_group", "mail_account", "network_account"]


def mail_account(config: Config) -> tuple[Identity, bool]:
    """(mail_owner, whether this process is root). Raises Fatal for who cannot run the system."""
    name = config.text("mail_owner")
    try:
        owner = identity_of(name)
    except KeyError:
        raise Fatal(f"file {config.directory}/main.cf: parameter mail_owner: "
                    f"unknown user name value: {name}") from None  # fmt: skip
    if os.geteuid() == 0:
        if owner.uid == 0:
            raise Fatal(f"file {config.directory}/main.cf: parameter mail_owner: "
                        f"user {name} has privileged user ID 0")  # fmt: skip
        return owner, True
    if owner.uid != os.geteuid():
        raise Fatal(
            "to run the mail system without root, set mail_owner to your own account in "
            f"{config.directory}/main.cf (it is {name})"
        )
    return owner, False


def network_account(config: Config, owner: Identity, *, privileged: bool) -> Identity:
    """mail_network_user, whom services that face the network run as; mail_owner if there is none.

    It has the group of mail_owner, and the groups of both: what an administrator has opened to
    mail_owner by a group (sockets of Milters, saslauthd) is open to these services, too.
    privileged: there is root to become it. Raises Fatal for an account that is root.
    """
    name = config.text("mail_network_user")
    try:
        found = identity_of(name)
    except KeyError:
        return owner
    if not privileged or found.uid == owner.uid:
        return owner
    if found.uid == 0:
        raise Fatal(f"file {config.directory}/main.cf: parameter mail_network_user: "
                    f"user {name} has privileged user ID 0")  # fmt: skip
    return Identity(name, found.uid, owner.gid, tuple(dict.fromkeys(owner.groups + found.groups)))


def entry_group(account: Identity) -> int:
    """The group of mail_network_user by which it may enter `private`: no one else is in it."""
    return identity_of(account.name).gid
