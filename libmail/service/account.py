"""The account that the mail system runs under, and whether there is root to become it."""

import os

from libmail.config import Config
from libmail.log import Fatal
from libmail.privileges import Identity, identity_of

__all__ = ["mail_account"]


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
