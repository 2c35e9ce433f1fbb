"""Which users may do something: authorized_submit_users and its like (postconf(5)).

Root and the mail system itself always may. Users are known by the number that the kernel tells
(`Connection.credentials`), and matched by name.
"""

import os
import pwd

from libmail.log import LOG
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["AuthorizedUsers", "user_name"]

_ANYONE = "static:anyone"


def user_name(uid: int) -> str:
    """The login name, "unknown" if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "unknown"


class AuthorizedUsers:
    """The users that a parameter lists."""

    def __init__(
        self, parameter: str, value: str, action: str, options: TableOptions | None = None
    ) -> None:
        """action: what they may do, as in "User bob(2002) is not allowed to ..."."""
        self._action = action
        self._everyone = value == _ANYONE
        self._users = StringList(parameter, value, options)

    async def allows(self, uid: int) -> bool:
        """Whether this user may. Raises TableRetry."""
        if self._everyone or uid in (0, os.getuid()):
            return True
        return await self._users.match(user_name(uid))

    def refusal_of(self, uid: int) -> str:
        """The words for a user who may not."""
        return f"User {user_name(uid)}({uid}) is not allowed to {self._action}"

    async def refusal(self, uid: int) -> str:
        """The words for a user of postqueue(1) who may not, or about whom a table does not answer.

        Else "". They are logged, too.
        """
        try:
            if await self.allows(uid):
                return ""
        except TableRetry as err:
            LOG.warning(str(err))
        refusal = self.refusal_of(uid)
        with LOG.instead_of("postqueue"):
            LOG.fatal(refusal)
        return refusal
