"""postfix upgrade-configuration: add services to master.cf that the programs of today ask for.

A master.cf that is older than a program lacks its services; what the administrator has written
there stays as it is. Services whose program does not exist are not added.
"""

import os
from typing import Final

from commands.postfix.effects import is_built_in
from commands.postfix.report import info
from libmail.config import Config, read_master_cf
from libmail.config.edited_file import edit_file

__all__ = ["upgrade_configuration"]

# What other programs find by name, as in the master.cf of Postfix.
_NEEDED: Final = """\
pickup     unix  n       -       n       60      1       pickup
cleanup    unix  n       -       n       -       0       cleanup
qmgr       unix  n       -       n       300     1       qmgr
tlsmgr     unix  -       -       n       1000?   1       tlsmgr
rewrite    unix  -       -       n       -       -       trivial-rewrite
bounce     unix  -       -       n       -       0       bounce
defer      unix  -       -       n       -       0       bounce
trace      unix  -       -       n       -       0       bounce
verify     unix  -       -       n       -       1       verify
flush      unix  n       -       n       1000?   0       flush
proxymap   unix  -       -       n       -       -       proxymap
proxywrite unix  -       -       n       -       1       proxymap
smtp       unix  -       -       n       -       -       smtp
relay      unix  -       -       n       -       -       smtp
showq      unix  n       -       n       -       -       showq
error      unix  -       -       n       -       -       error
retry      unix  -       -       n       -       -       error
discard    unix  -       -       n       -       -       discard
local      unix  -       n       n       -       -       local
virtual    unix  -       n       n       -       -       virtual
lmtp       unix  -       -       n       -       -       lmtp
anvil      unix  -       -       n       -       1       anvil
scache     unix  -       -       n       -       1       scache
postlog    unix-dgram n  -       n       -       1       postlogd
"""


def upgrade_configuration(config: Config) -> None:
    """Add what is missing. Raises ConfigError."""
    path = f"{config.directory}/master.cf"
    present = {(entry.name, _kind(entry.type)) for entry in read_master_cf(config.directory)}
    added = ""
    for line in _NEEDED.splitlines():
        name, kind, *_, command = line.split()
        if (name, _kind(kind)) not in present and is_built_in(command):
            added += f"{line}\n"
            info(f"Editing {path}, adding missing entry for {name} service")
    if added:
        edit_file(os.path.realpath(path), lambda old: _ended(old) + added)


def _kind(kind: str) -> str:
    """Services of one kind share their names; a fifo is an old form of the unix type."""
    return "unix" if kind == "fifo" else kind


def _ended(text: str) -> str:
    """The text with an end of its last line."""
    return text if not text or text.endswith("\n") else f"{text}\n"
