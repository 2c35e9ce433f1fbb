"""user= of pipe(8) and spawn(8): whose rights a command takes.

Neither root nor an account of the mail system: a command gets what strangers send, and whoever
breaks out of it must not own the queue, nor be taken for what faces the network.
"""

import grp
import os
import pwd

from libmail.log import Fatal
from libmail.privileges import Identity

__all__ = ["command_user"]


def command_user(text: str, mail_owner: str, mail_network_user: str) -> Identity:
    """The rights that "user" or "user:group" means; the supplementary groups are left out.

    An empty group is that of the user. Without root, the only user there is owns the mail system,
    too. Raises Fatal.
    """
    name, _, group = text.partition(":")
    try:
        account = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise Fatal(f"get_service_attr: unknown username: {name}") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group else account.pw_gid
    except (KeyError, ValueError):
        raise Fatal(f"get_service_attr: unknown group: {group}") from None
    user = Identity(name, account.pw_uid, gid, (gid,))
    if os.geteuid() == 0:
        _check(user, mail_owner, mail_network_user)
    return user


def _check(user: Identity, mail_owner: str, mail_network_user: str) -> None:
    owner = pwd.getpwnam(mail_owner)
    problem = ""
    if user.uid == 0:
        problem = "root privileges"
    elif user.uid == owner.pw_uid:
        problem = f"mail system owner {mail_owner}"
    elif user.gid == 0:
        problem = "privileged group id 0"
    elif user.gid == owner.pw_gid:
        problem = f"mail system owner {mail_owner} group id {user.gid}"
    elif user.name == mail_network_user:
        problem = f"mail_network_user {mail_network_user}"
    if problem:
        raise Fatal(f"user= command-line attribute specifies {problem}")
