"""Which users may do something: authorized_submit_users and its like (postconf(5)).

Root and the mail system itself always may. Users are known by the number that the kernel tells
(`Connection.credentials`), and matched by name.
"""

import os
import pwd
import re
from contextlib import suppress

from libmail.config import Config
from libmail.files.freshness import register
from libmail.log import LOG
from libmail.smtp.address import split_address
from libmail.tables.maps import Maps, split_extension
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["AuthorizedUsers", "LocalSenders", "UserNames", "open_local_senders"]

_ANYONE = "static:anyone"
_ANY_SENDER = ("static:*",)
_SEPARATORS = re.compile(r"[,\s]+")


class UserNames:
    """Login names by number, also behind a jail (chroot), from where the accounts cannot be seen.

    There it is the file of the accounts that counts, which stays open; accounts from elsewhere
    (nsswitch.conf(5)) have no names there.
    """

    def __init__(self, path: str = "/etc/passwd") -> None:
        self.path = path
        self._fd = -1
        with suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        register(self)

    def find(self, uid: int) -> str | None:
        """The login name; None if there is none."""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return None if os.path.exists(self.path) else self._in_file(uid)

    def _in_file(self, uid: int) -> str | None:
        if self._fd < 0:
            return None
        content = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        for line in content.decode("utf-8", "surrogateescape").split("\n"):
            name, _, number = [*line.split(":", 3), "", ""][:3]
            if number == str(uid):
                return name
        return None

    @property
    def replaced(self) -> bool:
        """Whether a new process would know more: the file is another one now."""
        return self._fd >= 0 and os.fstat(self._fd).st_nlink == 0 and not os.path.exists(self.path)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class AuthorizedUsers:
    """The users that a parameter lists."""

    def __init__(
        self, parameter: str, value: str, action: str, options: TableOptions | None = None
    ) -> None:
        """action: what they may do, as in "User bob(2002) is not allowed to ..."."""
        self._action = action
        self._everyone = value == _ANYONE
        self._users = StringList(parameter, value, options)
        self._names = UserNames()

    def name_of(self, uid: int) -> str:
        """The login name, "unknown" if there is none."""
        return self._names.find(uid) or "unknown"

    async def allows(self, uid: int) -> bool:
        """Whether this user may. Raises TableRetry."""
        if self._everyone or uid in (0, os.getuid()):
            return True
        return await self._users.match(self.name_of(uid))

    def refusal_of(self, uid: int) -> str:
        """The words for a user who may not."""
        return f"User {self.name_of(uid)}({uid}) is not allowed to {self._action}"

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
        self._names = UserNames()

    async def refusal(self, uid: int, sender: str) -> str:
        """The words for a user who may not send as this; "" if he may. Raises TableRetry."""
        if self._maps is None or await self._allows(self._maps, uid, sender):
            return ""
        return f"{sender}({uid}): not authorized to use sender='{sender}'"

    async def _allows(self, maps: Maps, uid: int, sender: str) -> bool:
        login = self._names.find(uid) or f"uid:{uid}"
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
