"""Which users may do something: authorized_submit_users and its like (postconf(5)).

Root and the mail system itself always may. Users are known by the number that the kernel tells
(`Connection.credentials`), and matched by name.
"""

import os
import pwd
import re

from libmail.config import Config
from libmail.log import LOG
from libmail.smtp.address import split_address
from libmail.tables.maps import Maps, split_extension
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["AuthorizedUsers", "LocalSenders", "open_local_senders", "user_name"]

_ANYONE = "static:anyone"
_ANY_SENDER = ("static:*",)
_SEPARATORS = re.compile(r"[,\s]+")


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


class LocalSenders:
    """Which envelope senders users of this machine may give: local_login_sender_maps (postconf(5)).

    Nobody is excepted, neither root nor the mail system.
    """

    def __init__(self, maps: Maps | None, null_key: str, delimiters: str) -> None:
        """maps: None if everybody may give any. null_key: what stands for the null sender."""
        self._maps = maps
        self._null_key = null_key
        self._delimiters = delimiters

    async def refusal(self, uid: int, sender: str) -> str:
        """The words for a user who may not send as this; "" if he may. Raises TableRetry."""
        if self._maps is None or await self._allows(self._maps, uid, sender):
            return ""
        return f"{sender}({uid}): not authorized to use sender='{sender}'"

    async def _allows(self, maps: Maps, uid: int, sender: str) -> bool:
        try:
            login = pwd.getpwuid(uid).pw_name
        except KeyError:
            login = f"uid:{uid}"
        patterns = _SEPARATORS.split(await maps.find(login) or "")
        if "*" in patterns or not sender:
            return "*" in patterns or self._null_key in patterns
        local, domain = split_address(sender)
        base, _ = split_extension(local, self._delimiters)
        wanted = {f"{base}@{domain}".lower(), f"@{domain}".lower()} if domain else {base.lower()}
        return any(pattern.lower() in wanted for pattern in patterns)


def open_local_senders(config: Config) -> LocalSenders:
    """Read the parameters, open the tables. Raises ConfigError, TableConfigError."""
    title = "local_login_sender_maps"
    specs = config.list(title)
    maps = None if specs == _ANY_SENDER else Maps(title, specs, TableOptions.of(config))
    null_key = config.text("empty_address_local_login_sender_maps_lookup_key")
    return LocalSenders(maps, null_key, config.text("recipient_delimiter"))
