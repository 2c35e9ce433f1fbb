"""aliases(5): looking up a name, and what its owner- companion changes."""

from dataclasses import replace
from functools import partial
from typing import Final

from daemons.local.clients import Clients
from daemons.local.outcomes import deferred
from daemons.local.params import AliasTable, Settings
from daemons.local.stage import Expansion, Origin, Stage, members_of
from daemons.local.user import user_of_id
from libmail.agents.delivery import Outcome
from libmail.clients.rewrite import RewriteClient
from libmail.log import LOG
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.address import quote_local
from libmail.tables.table import TableRetry

__all__ = ["Aliased", "find_alias"]

_SHOWN: Final = 1000  # characters of an alias in the log
Aliased = Expansion | Outcome | None


async def find_alias(settings: Settings, clients: Clients, stage: Stage, name: str) -> Aliased:
    """Expand `name`; None where there is no such alias.

    An alias that names itself means the user of that name; other loops end by their depth.
    """
    if stage.expanded == name:
        return None
    try:
        for table in settings.aliases:
            value = await table.maps.find(name)
            if value is not None:
                found = await _expand(settings, clients, stage, name, value, table)
                if isinstance(found, Expansion):
                    owned = await _owned(settings, clients.rewrite, found.stage, name)
                    return replace(found, stage=owned)
                return found
    except (TableRetry, ServiceUnavailable) as err:
        LOG.warning(str(err))
        return deferred("alias database unavailable")
    return None


async def _expand(
    settings: Settings, clients: Clients, stage: Stage, name: str, value: str, table: AliasTable
) -> Expansion | Outcome:
    rights = None
    if table.owner:
        rights = await clients.workers.run(partial(user_of_id, table.owner))
        if rights is None:
            LOG.warning(f"cannot find alias database owner for {table.maps.tables[0].spec}")
            return deferred("cannot find alias database owner")
    members = members_of(value)
    if not members:
        LOG.warning(f"no recipient in alias lookup result for {name}")
        return deferred("alias database unavailable")
    inner = stage._replace(expanded=name, origin=Origin.ALIAS, rights=rights, level=stage.level + 1)
    if not settings.params.frozen_delivered_to:
        inner = inner._replace(delivered_to=stage.recipient.address)
    return Expansion(inner, members, f"aliased to {value[:_SHOWN]}")


async def _owned(settings: Settings, rewrite: RewriteClient, stage: Stage, name: str) -> Stage:
    """Have failures told to owner-name, if there is such an alias.

    Raises TableRetry, ServiceUnavailable.
    """
    params = settings.params
    special = name.startswith("owner-") or name.endswith("-request")
    owner = f"owner-{name}"
    owned = params.owner_request_special and not special
    value = await _find(settings, owner) if owned else None
    if value is None:
        return stage._replace(owner="") if params.reset_owner_alias else stage
    sender = quote_local(owner)
    if params.expand_owner_alias:
        members = members_of(value)
        if members:
            sender = members[0].address
    sender = await rewrite.rewrite("local", sender)
    # For the members this is another message, which nobody addressed to something else before.
    recipient = stage.recipient._replace(orig_rcpt="", dsn_orcpt="")
    return stage._replace(owner=owner, sender=sender, recipient=recipient)


async def _find(settings: Settings, name: str) -> str | None:
    for table in settings.aliases:
        value = await table.maps.find(name)
        if value is not None:
            return value
    return None
