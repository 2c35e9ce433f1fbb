"""pipe(8): give messages to an external command, one service of master.cf a command.

called by: qmgr, local (mailbox_transport). asks: nobody. writes: to the command, the done mark.
tells: bounce, defer, trace. needs: root, to run the command as another user.

One delivery at a time, so the maxproc column limits the commands that run.
"""

import os
from dataclasses import dataclass
from typing import Final

from daemons.pipe.attributes import Attributes, parse_attributes
from daemons.pipe.content import content
from daemons.pipe.macros import BadMacro, CommandLine, Style
from libmail.agents.delivery import (
    Bounced,
    Deferred,
    Delivery,
    DeliveryParams,
    DeliveryServices,
    Outcome,
    Sent,
    delivery_handlers,
)
from libmail.agents.recipient_headers import recipient_header_obstacle
from libmail.agents.status_filter import StatusFilter, open_status_filter
from libmail.execution.result import CommandResult, judge
from libmail.execution.runner import CommandFailed, Surroundings, exported, run_command
from libmail.log import LOG, Fatal
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE"]

_CONFIG_DSN: Final = "4.3.5"
_CONFIG_ERROR: Final = "mail system configuration error"
_OUTPUT_SHOWN: Final = 100  # characters of what a successful command has printed


@dataclass(frozen=True, slots=True)
class PipeParams:
    """Parameters of pipe(8)."""

    export_environment: tuple[str, ...]
    mail_network_user: str
    mail_owner: str
    pipe_delivery_status_filter: tuple[str, ...]
    recipient_delimiter: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process works with; the same for all messages.

    command: the command line, or what is wrong with it.
    """

    attributes: Attributes
    command: CommandLine | BadMacro
    environment: dict[str, str]
    place: Surroundings


@dataclass(frozen=True, slots=True)
class Prepared:
    """settings: or what is wrong with the attributes in master.cf."""

    service: str
    delivery: DeliveryParams
    status_filter: StatusFilter
    settings: Settings | Fatal


def _prepare(startup: Startup) -> Prepared:
    params = startup.config.load(PipeParams)
    status_filter = open_status_filter(
        startup.config, "pipe_delivery_status_filter", params.pipe_delivery_status_filter
    )
    try:
        settings: Settings | Fatal = _settings(startup, params)
    except Fatal as err:
        # Mail is not to wait in the active queue for a program that never comes up.
        settings = err
    delivery = startup.config.load(DeliveryParams)
    return Prepared(startup.service, delivery, status_filter, settings)


def _settings(startup: Startup, params: PipeParams) -> Settings:
    """Raises Fatal."""
    config, service = startup.config, startup.service
    attributes = parse_attributes(startup.arguments, params.mail_owner, params.mail_network_user)
    style = Style(attributes.flags, attributes.null_sender, params.recipient_delimiter)
    where = f"file {config.directory}/master.cf: service {service}"
    try:
        command: CommandLine | BadMacro = CommandLine(attributes.argv, style, where)
    except BadMacro as err:
        command = err
    limit = config.seconds(f"{service}_time_limit")
    place = Surroundings(attributes.root, attributes.folder, limit)
    return Settings(attributes, command, exported(params.export_environment), place)


class PipeDelivery:
    """Gives a message to the command, for all recipients of the request at a time."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._attributes = settings.attributes
        self._relay = service

    async def deliver(self, delivery: Delivery) -> None:
        """Serve a request."""
        outcome = self._obstacle(delivery) or await self._run(delivery)
        await delivery.finish_all(delivery.request.recipients, outcome)

    def _obstacle(self, delivery: Delivery) -> Outcome | None:
        """What is clear before the command runs."""
        request, flags = delivery.request, self._attributes.flags
        user = self._attributes.user
        if os.geteuid() not in (0, user.uid):
            return self._misconfigured(f"cannot run commands as {user.name} without root")
        if 0 < self._attributes.size_limit < request.size:
            return Bounced(dsn="5.2.3", reason="message too large", relay=self._relay)
        obstacle = recipient_header_obstacle(
            delivery,
            delivered_to=flags.delivered_to,
            original_to=flags.original_to,
            called="pipe flag",
        )
        if obstacle is not None:
            return obstacle
        if delivery.verify_only:
            reason = f"delivers to command: {self._attributes.argv[0]}"
            return Sent(dsn="2.0.0", reason=reason, relay=self._relay, action="deliverable")
        return None

    def _misconfigured(self, problem: str) -> Deferred:
        LOG.warning(problem)
        return Deferred(_CONFIG_DSN, _CONFIG_ERROR, self._relay)

    async def _run(self, delivery: Delivery) -> Outcome:
        settings, request = self._settings, delivery.request
        if isinstance(settings.command, BadMacro):
            return self._misconfigured(str(settings.command))
        try:
            result = await run_command(
                settings.command.expand(request, delivery.envelope),
                content(self._attributes, delivery.file, request.sender, request.recipients[0]),
                self._attributes.user,
                settings.environment,
                settings.place,
                program="pipe",
                function="pipe_command: ",
            )
        except CommandFailed as err:
            LOG.warning(str(err))
            return Deferred(dsn="4.3.0", reason=str(err), relay=self._relay)
        return self._outcome(result)

    def _outcome(self, result: CommandResult) -> Outcome:
        verdict = judge(self._attributes.argv[0], result)
        if verdict.kind == "sent":
            words = verdict.detail.rstrip()[:_OUTPUT_SHOWN]
            reason = f"delivered via {self._relay} service"
            return Sent(
                dsn=verdict.dsn,
                reason=f"{reason} ({words})" if words else reason,
                relay=self._relay,
                action="delivered" if self._attributes.flags.final else "relayed",
            )
        return verdict.failure(self._relay)


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    settings, service = prepared.settings, prepared.service

    async def refuse(delivery: Delivery) -> None:
        LOG.fatal(str(settings))
        delivery.fail_destination(_CONFIG_DSN, _CONFIG_ERROR)
        outcome = Deferred(_CONFIG_DSN, _CONFIG_ERROR, service)
        await delivery.finish_all(delivery.request.recipients, outcome)
        runtime.retire()

    agent = refuse if isinstance(settings, Fatal) else PipeDelivery(settings, service).deliver
    services = DeliveryServices.of(prepared.delivery, prepared.status_filter)
    return delivery_handlers(runtime, agent, services)


SERVICE: Final = Service("pipe", _prepare, _start, one_client=True, commands=True)
