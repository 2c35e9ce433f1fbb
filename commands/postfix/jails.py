"""postfix check: what services see from inside the queue directory, where they are confined to it.

Copies of system files there must be those of the system, and name servers must answer.
"""

from __future__ import annotations

import asyncio
import filecmp
import os
from collections.abc import Iterator, Sequence
from typing import Final

from libmail.config import Config, ServiceEntry
from libmail.dns.answers import DnsError, TempFail
from libmail.dns.resolver import Resolver
from libmail.privileges import Identity, Jail, enter_jail

__all__ = ["copies_that_differ", "dns_problems"]

_COPIES: Final = ("etc", "lib", "lib64", "usr")
_ASKING: Final = ("smtpd", "smtp", "lmtp", "postscreen", "dnsblog")
_READING: Final = (*_ASKING, "local", "pipe", "proxymap", "qmqpd", "spawn", "virtual")
_PATIENCE: Final = 1.0  # seconds for a name server
_NO_ANSWER: Final = 1  # exit status of the process in the jail
_NO_JAIL: Final = 2


def copies_that_differ(queue_directory: str, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    """A line for each file in the jail that is not what the system has, if anybody reads it."""
    if not any(one.chroot and one.command in _READING for one in entries):
        return
    for top in _COPIES:
        for folder, _, names in os.walk(os.path.join(queue_directory, top)):
            for name in names:
                path = os.path.join(folder, name)
                original = "/" + os.path.relpath(path, queue_directory)
                if not _same(path, original):
                    yield f"{path} and {original} differ"


def _same(path: str, original: str) -> bool:
    try:
        return not os.path.isfile(path) or filecmp.cmp(path, original, shallow=False)
    except OSError:
        return False


def dns_problems(config: Config, entries: Sequence[ServiceEntry], owner: Identity) -> Iterator[str]:
    """A line for the services in a jail, if name servers do not answer there. Needs root."""
    confined = [one for one in entries if one.chroot and one.command in _ASKING]
    if not confined or config.bool("disable_dns_lookups"):
        return
    resolver = Resolver()
    queue = config.text("queue_directory")
    child = os.fork()
    if child == 0:
        os._exit(_ask_from(Jail(queue, owner, no_new_privs=True), resolver))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        names = ", ".join(f"{one.name}/{one.type}" for one in confined)
        what = "no name server answers" if status == _NO_ANSWER else "cannot enter the jail"
        yield f"services {names}: {what} from inside {queue}; see /etc/resolv.conf"


def _ask_from(jail: Jail, resolver: Resolver) -> int:
    """In a process of its own: the exit status."""
    try:
        enter_jail(jail)
    except OSError:
        return _NO_JAIL
    try:
        answered = asyncio.run(_answers(resolver))
    except (OSError, RuntimeError):
        answered = False
    return 0 if answered else _NO_ANSWER


async def _answers(resolver: Resolver) -> bool:
    """Whether a name server says anything, be it that there is no such name."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await resolver.lookup("localhost", "A")
    except (TempFail, TimeoutError):
        return False
    except DnsError:
        pass
    return True
