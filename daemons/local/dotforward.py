"""~/.forward: where a user wants the mail to go."""

import os
import stat

from daemons.local.budget import Budget
from daemons.local.expansion import values_of
from daemons.local.lines import read_members
from daemons.local.params import Settings
from daemons.local.stage import Expansion, Origin, SeenFilter, Stage
from daemons.local.user import User, act_as
from libmail.config import ConfigError
from libmail.log import LOG
from libmail.privileges import Actor

__all__ = ["read_forward"]


def _paths(settings: Settings, stage: Stage, user: User) -> list[tuple[str, bool]]:
    """The names to try, and whether the extension is a part of them."""
    values = values_of(stage, user)
    allowed = settings.params.forward_expansion_filter
    paths: list[tuple[str, bool]] = []
    for item in settings.plan.forward_path:
        try:
            path = item.expanded(values, allowed)
        except ConfigError as err:
            LOG.warning(f"forward_path: {err}")
            continue
        if path:
            paths.append((path, "extension" in item.names))
    return paths


def _usable(path: str, user: User) -> bool:
    """Whether there is such a file, and nobody else can have put it there."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode):
        LOG.warning(f"file {path} is not a regular file")
    elif status.st_uid not in (0, user.identity.uid):
        LOG.warning(f"file {path} has bad owner uid {status.st_uid}")
    elif status.st_mode & stat.S_IWOTH:
        LOG.warning(f"file {path} is world writable")
    else:
        return True
    return False


def read_forward(
    actor: Actor, settings: Settings, stage: Stage, user: User, seen: SeenFilter, budget: Budget
) -> Expansion | None:
    """In a thread: expand the first .forward file of the user that can be used; None to use the
    mailbox.

    So it is for a user who is named in the own file, and with an empty file. Raises CannotAct,
    ListTooLarge.
    """
    act_as(actor, user.identity)
    for path, matched in _paths(settings, stage, user):
        if not _usable(path, user):
            continue
        if seen.been_here("forward", path):
            return None
        try:
            budget.by_user()
            members = read_members(actor, path, user.identity, budget)
        except OSError as err:
            LOG.warning(f"cannot open file {path}: {err.strerror}")
            return None
        if not members:
            return None
        inner = stage._replace(
            origin=Origin.FORWARD,
            owner=stage.user,
            expanded=stage.local,
            rights=user,
            level=stage.level + 1,
        )
        if not settings.params.frozen_delivered_to:
            inner = inner._replace(delivered_to=stage.recipient.address)
        if matched or "forward" not in settings.params.propagate_unmatched_extensions:
            inner = inner._replace(unmatched="")
        return Expansion(inner, members, f"forward via file: {path}")
    return None
