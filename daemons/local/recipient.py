"""The way of one recipient: aliases, .forward, mailbox, unknown - in this order, and recursively.

What an alias or a .forward file names is delivered at once if it is a local address, a file or a
command; everything else leaves as a new message, when all the rest went well. So do the members of
a list that has an owner, and of :include: files, so that one of them in trouble does not have the
list expanded again. A recipient is done when nothing that it was expanded to is to be tried again.

What may wait for a file system or the user database is done by threads, in `_find` and where `act`
is called; the coroutine waits meanwhile, so that it all is one sequence. For a user without a
.forward file who has a mailbox it is one such step.
"""

import asyncio
import os
import time
from contextlib import suppress
from functools import partial
from typing import Final

from daemons.local.alias import find_alias
from daemons.local.budget import Budget, ListTooLarge
from daemons.local.clients import Clients
from daemons.local.command import deliver_to_command, deliver_to_user_command
from daemons.local.dotforward import read_forward
from daemons.local.expansion import expanded_leniently, values_of
from daemons.local.forward import Forwarder
from daemons.local.include import read_include
from daemons.local.mailbox import Appending, place_of
from daemons.local.outcomes import bounced, deferred, deliverable, delivered, misconfigured
from daemons.local.params import Settings
from daemons.local.stage import MAX_LEVEL, Expansion, Origin, SeenFilter, Stage
from daemons.local.user import CannotAct, User, act_as, find_user
from libmail.agents.delivery import Bounced, Deferred, Delivery, Outcome, Sent
from libmail.agents.handover import hand_over
from libmail.config import ConfigError
from libmail.files.commit import Steps
from libmail.ipc.messages import DsnNotify, Recipient, ResolveFlag
from libmail.log import LOG
from libmail.message.addresses import Mailbox
from libmail.message.delivered_to import had_before
from libmail.privileges import Actor
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.address import split_address, unquote, xtext_encode
from libmail.tables.maps import Maps
from libmail.tables.table import TableRetry

__all__ = ["RecipientDelivery"]

_INCLUDE: Final = ":include:"
_MAILER_DAEMON: Final = "mailer-daemon"
_REQUIRED: Final = (_MAILER_DAEMON, "postmaster")
_DOUBLE_BOUNCE: Final = "double-bounce"
_TURN: Final = 64  # members of a list, before other deliveries go on


class RecipientDelivery:
    """Delivers to one recipient of a request. The methods return whether that is final."""

    def __init__(
        self,
        settings: Settings,
        clients: Clients,
        delivery: Delivery,
        loops: frozenset[str],
    ) -> None:
        """loops: the addresses in the message's Delivered-To headers, in lower case."""
        self._settings = settings
        self._params = settings.params
        self._clients = clients
        self._delivery = delivery
        self._loops = loops
        self._seen = SeenFilter(settings.params.duplicate_filter_limit)
        self._budget = Budget()
        self._relaying = False  # what luser_relay says; that may be nobody, too
        self._told = False  # of an expansion, to who wants to hear of success
        self._forwarder = Forwarder(settings, clients.cleanup)

    async def deliver(self, recipient: Recipient) -> None:
        """Serve the recipient to its end."""
        request = self._delivery.request
        stage = Stage(recipient, request.sender, recipient.address)
        final = await self._recipient(stage, recipient.address)
        if final:
            if self._told:
                recipient = _without_success(recipient)
            for outcome in await self._forwarder.send(self._delivery):
                final = await self._report_for(recipient, outcome) and final
        self._delivery.close(recipient, final=final)

    async def _report(self, stage: Stage, outcome: Outcome) -> bool:
        # What fails in a list is the business of its owner.
        return_to = stage.sender if stage.sender != self._delivery.request.sender else None
        return await self._report_for(stage.recipient, outcome, return_to)

    async def _report_for(
        self, recipient: Recipient, outcome: Outcome, return_to: str | None = None
    ) -> bool:
        service = self._delivery.request.transport
        if service != outcome.relay:  # the log names the service, of which there may be several
            outcome = outcome._replace(relay=service)
        return await self._delivery.report(recipient, outcome, return_to=return_to)

    async def _recipient(self, stage: Stage, address: str) -> bool:
        """One local address: break loops, then the search order."""
        stage = stage.at(address, self._params.recipient_delimiter)
        if had_before(address, self._loops):
            reason = f"mail forwarding loop for {address}"
            looped = bounced("5.4.6", reason)
            return await self._report_for(stage.recipient, looped)
        if "/" in stage.extension:
            LOG.warning(
                f"{self._delivery.request.queue_id}: address with illegal extension: {stage.local}"
            )
            stage = stage._replace(extension="")
        if stage.local.startswith("\\"):
            plain = stage._replace(local=stage.local[1:], user=stage.user[1:])
            find = partial(find_user, plain.user)
            return await self._user(plain, await self._clients.workers.run(find))
        aliased = await self._alias(stage)
        if aliased is not None:
            return aliased
        if stage.extension or stage.unmatched:
            unmatched = stage.extension and stage.delimiter + stage.extension
            stage = stage._replace(unmatched=unmatched)
        if stage.origin is Origin.INCLUDE or (stage.owner and stage.owner != stage.user):
            return await self._indirect(stage)
        return await self._user_or_forward(stage)

    async def _alias(self, stage: Stage) -> bool | None:
        """None where neither the local part nor the user is an alias."""
        if stage.unmatched:
            stage = stage._replace(unmatched="")
        found = await find_alias(self._settings, self._clients, stage, stage.local)
        if found is None and stage.user != stage.local:
            if "alias" in self._params.propagate_unmatched_extensions:
                stage = stage._replace(unmatched=stage.delimiter + stage.extension)
            found = await find_alias(self._settings, self._clients, stage, stage.user)
        return None if found is None else await self._expansion(stage, found)

    async def _user_or_forward(self, stage: Stage) -> bool:
        """Whose mailbox it is, and whether a .forward file says something else."""
        plan = self._settings.plan
        lane = stage.user if plan.only_mailboxes and plan.appends else ""
        work = partial(self._find, self._appending(stage))
        found = await self._clients.workers.write(work, lane)
        if found is None or isinstance(found, User):
            return await self._user(stage, found)
        return await self._expansion(stage, found)

    def _appending(self, stage: Stage) -> Appending:
        return Appending(self._settings, stage, self._delivery, time.monotonic())

    def _find(self, appending: Appending, actor: Actor) -> Steps[User | Expansion | Outcome | None]:
        """In a thread: the user, what the .forward file says, or what came of it all."""
        stage = appending.stage
        actor.restore()
        user = find_user(stage.user)
        if user is None:
            return None
        settings = self._settings
        place = place_of(settings, stage, user) if settings.plan.only_mailboxes else None
        try:
            if self._params.require_home_directory:
                problem = _home_problem(actor, user)
                if problem is not None:
                    return problem
            found = read_forward(actor, settings, stage, user, self._seen, self._budget)
        except (CannotAct, ListTooLarge) as err:
            return misconfigured(str(err))
        if found is not None:
            return found
        if place is None or self._seen.been_here("mailbox", stage.local):
            return user
        return (yield from appending.to_user(actor, user, place))

    async def _expansion(self, stage: Stage, found: Expansion | Outcome) -> bool:
        """Deliver to all members."""
        if not isinstance(found, Expansion):
            return await self._report(stage, found)
        if self._delivery.probe and found.told:
            return await self._report(stage, deliverable(found.told))
        inner, recipient = found.stage, stage.recipient
        if self._budget.spent:
            return True
        if stage.level > MAX_LEVEL or not self._budget.take_list():
            LOG.warning(f"recipient nesting limit exceeded for {recipient.address}")
            return await self._report(stage, bounced("5.4.6", "recipient nesting limit exceeded"))
        if recipient.notify & DsnNotify.SUCCESS and found.stage.origin is not Origin.INCLUDE:
            inner = await self._tell_expansion(recipient, inner)
        if len(found.members) > 1:
            with suppress(ServiceUnavailable):  # then each is asked for
                addresses = [member.address for member in found.members]
                await self._clients.rewrite.prefetch(inner.sender, addresses)
        final = True
        for number, member in enumerate(found.members):
            if number % _TURN == _TURN - 1:  # what is known may be done without a wait
                await asyncio.sleep(0)
            final = await self._member(inner, member) and final
        return final

    async def _tell_expansion(self, recipient: Recipient, inner: Stage) -> Stage:
        """Success is reported here: what the members get asks for no such report (RFC 3461 §5)."""
        owned = inner.owner and inner.origin is Origin.ALIAS
        outcome = Sent(
            dsn="2.0.0",
            reason="alias expanded",
            relay="local",
            action="delivered" if owned else "expanded",
        )
        orcpt = recipient.dsn_orcpt or f"rfc822;{xtext_encode(recipient.address)}"
        told = recipient._replace(orig_rcpt=inner.recipient.orig_rcpt, dsn_orcpt=orcpt)
        await self._delivery.record_expansion(told, outcome)
        self._told = True
        return inner._replace(recipient=_without_success(inner.recipient))

    async def _member(self, stage: Stage, member: Mailbox) -> bool:
        """One destination that an alias, .forward or :include: file names."""
        text = member.plain
        if text.startswith("/"):
            return await self._file(stage, text)
        if text.startswith("~"):
            return await self._file_at_home(stage, text)
        if text.startswith("|"):
            return await self._command(stage, text[1:])
        if text.lower().startswith(_INCLUDE):
            return await self._include(stage, text[len(_INCLUDE) :])
        return await self._address(stage, member.address)

    async def _file(self, stage: Stage, path: str) -> bool:
        rights = self._settings.rights_of(stage).identity
        if self._seen.been_here("file", rights.uid, path):
            return True
        appending = self._appending(stage)

        def work(actor: Actor) -> Steps[Outcome]:
            return appending.to_file(actor, path)

        return await self._report(stage, await self._clients.workers.write(work, path))

    async def _file_at_home(self, stage: Stage, text: str) -> bool:
        """`~/file` is one in the home directory of whoever wrote it, of a user, that is."""
        home = stage.rights.home if stage.rights else ""
        if not text.startswith("~/"):
            return await self._report(
                stage, misconfigured(f"bad home directory syntax for: {text}")
            )
        if not home.startswith("/"):
            return await self._report(stage, misconfigured(f"unknown home directory for: {text}"))
        return await self._file(stage, home.rstrip("/") + text[1:])

    async def _command(self, stage: Stage, command: str) -> bool:
        rights = self._settings.rights_of(stage).identity
        if self._seen.been_here("command", rights.uid, command):
            return True
        outcome = await deliver_to_command(
            self._settings, self._clients.workers, stage, self._delivery, command
        )
        return await self._report(stage, outcome)

    async def _include(self, stage: Stage, path: str) -> bool:
        if self._seen.been_here("include", stage.rights and stage.rights.identity.uid, path):
            return True
        if self._budget.spent:
            return True
        if "include" not in self._params.propagate_unmatched_extensions:
            stage = stage._replace(unmatched="")

        def work(actor: Actor) -> Expansion | Outcome:
            return read_include(actor, self._settings, stage, path, self._budget)

        return await self._expansion(stage, await self._clients.workers.act(work))

    async def _address(self, stage: Stage, written: str) -> bool:
        """An address as it is written: make it complete, and find out who delivers to it."""
        try:
            address = await self._clients.rewrite.rewrite("local", written)
            route = await self._clients.rewrite.resolve(stage.sender, address)
        except ServiceUnavailable as err:
            LOG.warning(f"{self._delivery.request.queue_id}: {err}")
            return await self._report(stage, deferred("address resolver unavailable"))
        if route.flags & ResolveFlag.FAIL:
            return await self._report(stage, deferred("address resolver failure"))
        if route.flags & ResolveFlag.ERROR:
            reason = f"bad recipient address syntax: {unquote(written)}"
            return await self._report(stage, bounced("5.1.3", reason))
        address = _extended(route.recipient, stage.unmatched)
        if route.transport == self._delivery.request.transport:
            return await self._recipient(stage, address)
        recipient = stage.recipient._replace(address=address)
        return await self._indirect(stage._replace(recipient=recipient))

    async def _indirect(self, stage: Stage) -> bool:
        """Forward in a new message, at the end."""
        address = stage.recipient.address
        if self._seen.been_here("indirect", stage.sender, address):
            return True
        if self._delivery.verify_only:
            return await self._report(stage, deliverable(f"forwards to {address}"))
        self._forwarder.add(stage)
        return True

    async def _user(self, stage: Stage, user: User | None) -> bool:
        """The mailbox of a user, however it is reached, or what is done about unknown users."""
        if self._seen.been_here("mailbox", stage.local):
            if user is None and self._relaying:
                return await self._report(stage, _no_user(stage))
            return True
        params = self._params
        spec = await self._lookup(self._settings.mailbox_transports, stage.user)
        if isinstance(spec, Deferred):
            return await self._report(stage, spec)
        if spec := spec or params.mailbox_transport:
            return await self._pass(stage, spec)
        if user is None:
            return await self._unknown(stage)
        command = await self._lookup(self._settings.mailbox_commands, stage.user)
        if isinstance(command, Deferred):
            return await self._report(stage, command)
        stage = stage._replace(rights=user)
        if command := command or params.mailbox_command:
            outcome = await deliver_to_user_command(
                self._settings, self._clients.workers, stage, self._delivery, command
            )
        else:
            work = partial(self._deliver_to, self._appending(stage), user)
            outcome = await self._clients.workers.write(work, stage.user)
        return await self._report(stage, outcome)

    def _deliver_to(self, appending: Appending, user: User, actor: Actor) -> Steps[Outcome]:
        """In a thread: the mailbox, where there was something to find out before."""
        actor.restore()
        place = place_of(self._settings, appending.stage, user)
        return appending.to_user(actor, user, place)

    async def _unknown(self, stage: Stage) -> bool:
        params = self._params
        spec = await self._lookup(self._settings.fallback_transports, stage.user)
        if isinstance(spec, Deferred):
            return await self._report(stage, spec)
        if spec := spec or params.fallback_transport:
            return await self._pass(stage, spec)
        if stage.user in (*_REQUIRED, _DOUBLE_BOUNCE):
            return await self._report(stage, _discarded(stage.user))
        if params.luser_relay:
            return await self._relay_unknown(stage)
        return await self._report(stage, _no_user(stage))

    async def _relay_unknown(self, stage: Stage) -> bool:
        """luser_relay."""
        try:
            relay = expanded_leniently(self._params.luser_relay, values_of(stage, None))
        except ConfigError as err:
            return await self._report(stage, misconfigured(f"luser_relay: {err}"))
        relay = relay or _MAILER_DAEMON
        if self._seen.been_here("luser_relay", relay):
            return await self._report(stage, _no_user(stage))
        self._relaying = True
        try:
            return await self._address(stage._replace(unmatched=""), relay)
        finally:
            self._relaying = False

    async def _pass(self, stage: Stage, spec: str) -> bool:
        if spec.partition(":")[0] == self._delivery.request.transport:
            # It would come back here, and to one more process each time.
            problem = f"{stage.local}: transport {spec} would pass mail to itself"
            return await self._report(stage, misconfigured(problem))
        try:
            return await hand_over(
                self._delivery, stage.recipient, stage.sender, spec, self._params.ipc_timeout
            )
        except ServiceUnavailable as err:
            LOG.warning(f"{self._delivery.request.queue_id}: {err}")
            return await self._report(stage, deferred("mail transport unavailable"))

    async def _lookup(self, maps: Maps, user: str) -> str | Deferred | None:
        if not maps:
            return None
        try:
            return await maps.find(user)
        except TableRetry as err:
            LOG.warning(str(err))
            return deferred("table lookup failure")


def _without_success(recipient: Recipient) -> Recipient:
    """The recipient, without asking for a report of success."""
    notify = recipient.notify & ~DsnNotify.SUCCESS
    return recipient._replace(notify=notify or (DsnNotify.NEVER if recipient.notify else 0))


def _no_user(stage: Stage) -> Bounced:
    return bounced("5.1.1", f'unknown user: "{stage.user}"')


def _discarded(name: str) -> Sent:
    """What must have a reader is not returned, which would only make more of it."""
    if name == _DOUBLE_BOUNCE:
        reason = "undeliverable postmaster notification discarded"
    else:
        LOG.warning(f"required alias not found: {name}")
        reason = "discarded"
    return delivered(reason)


def _extended(address: str, extension: str) -> str:
    """The address with an extension ("+foo") put behind its local part."""
    if not extension:
        return address
    local, domain = split_address(address)
    return f"{local}{extension}@{domain}" if domain else local + extension


def _home_problem(actor: Actor, user: User) -> Deferred | None:
    """require_home_directory. Raises CannotAct."""
    act_as(actor, user.identity)
    try:
        os.stat(user.home)
    except OSError as err:
        reason = f"cannot access home directory {user.home}: {err.strerror}"
        return deferred(reason)
    return None
