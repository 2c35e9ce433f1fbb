"""`:include:/file/name`: a list of destinations in a file."""

import errno
import os
import stat

from daemons.local.budget import Budget, ListTooLarge
from daemons.local.lines import read_members
from daemons.local.outcomes import bounced, deferred, misconfigured
from daemons.local.params import Settings
from daemons.local.stage import Expansion, Origin, Stage
from daemons.local.user import ROOT, CannotAct, act_as, user_of_id
from libmail.agents.delivery import Bounced, Outcome
from libmail.log import LOG
from libmail.privileges import Actor

__all__ = ["read_include"]


def _broken(problem: str) -> Bounced:
    LOG.warning(problem)
    return bounced("5.3.5", "mail system configuration error")


def read_include(
    actor: Actor, settings: Settings, stage: Stage, path: str, budget: Budget
) -> Expansion | Outcome:
    """In a thread: expand an :include: file; path: absolute.

    Commands and files in it get the rights of the user whose .forward names it, or else those of
    the file's owner.
    """
    if not path.startswith("/"):
        return _broken(f":include:{path} uses a relative path")
    me = stage.rights.identity if stage.rights else (ROOT if settings.is_root else None)
    identity = me or settings.default.identity
    try:
        act_as(actor, identity)
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return _broken(f":include: file {path} is not a regular file")
        if status.st_mode & stat.S_IWOTH:
            return _broken(f":include: file {path} is world writable")
        rights = stage.rights
        if rights is None and status.st_uid:
            actor.restore()
            rights = user_of_id(status.st_uid)
            if rights is None:
                LOG.warning(f"cannot find username for uid {status.st_uid}")
                reason = f"{path}: cannot find file owner"
                return deferred(reason)
            identity = rights.identity
        if stage.rights:
            budget.by_user()
        members = read_members(actor, path, identity, budget)
    except (CannotAct, ListTooLarge) as err:
        return misconfigured(str(err))
    except OSError as err:
        doing = "lookup" if err.errno == errno.ENOENT else "open"
        return _broken(f"unable to {doing} :include: file {path}: {err.strerror}")
    inner = stage._replace(origin=Origin.INCLUDE, rights=rights, level=stage.level + 1)
    return Expansion(inner, members)
