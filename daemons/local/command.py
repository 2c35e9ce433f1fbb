"""Giving a message to a command: mailbox_command, or "|command" of an alias or .forward."""

from daemons.local.expansion import Template, values_of
from daemons.local.mailbox import command_content
from daemons.local.outcomes import bounced, deferred, deliverable, delivered, misconfigured
from daemons.local.params import Settings
from daemons.local.stage import Stage
from daemons.local.user import CannotAct, User, require_rights
from libmail.agents.delivery import Delivery, Outcome
from libmail.config import ConfigError
from libmail.execution.result import judge
from libmail.execution.runner import (
    CommandFailed,
    Surroundings,
    exported,
    resolve_argv,
    run_command,
)
from libmail.log import LOG
from libmail.queue.origin import origin_of
from libmail.service.workers import Workers
from libmail.text.allowed import sanitised

__all__ = ["deliver_to_command", "deliver_to_user_command"]


def _environment(
    settings: Settings, stage: Stage, delivery: Delivery, user: User
) -> dict[str, str]:
    envelope = delivery.envelope
    origin = origin_of(envelope)
    said = {
        "HOME": user.home,
        "SHELL": user.shell,
        "LOGNAME": stage.user,
        "USER": stage.user,
        "SENDER": stage.sender,
        "RECIPIENT": stage.recipient.address,
        "ORIGINAL_RECIPIENT": stage.recipient.orig_rcpt,
        "LOCAL": stage.local,
        "EXTENSION": stage.extension,
        "DOMAIN": stage.domain,
        "CLIENT_ADDRESS": origin.address,
        "CLIENT_HELO": origin.helo,
        "CLIENT_HOSTNAME": origin.name,
        "CLIENT_PROTOCOL": origin.protocol,
        "SASL_METHOD": envelope.sasl_method,
        "SASL_SENDER": envelope.sasl_sender,
        "SASL_USERNAME": envelope.sasl_username,
        "ENVID": delivery.request.dsn_envid,
    }
    allowed = frozenset(settings.params.command_expansion_filter)
    environment = exported(settings.params.export_environment)
    environment.update({name: sanitised(text, allowed) for name, text in said.items() if text})
    environment.setdefault("SENDER", "")  # also that of a report, which is nobody
    return environment


async def deliver_to_command(
    settings: Settings, workers: Workers, stage: Stage, delivery: Delivery, command: str
) -> Outcome:
    """A "|command" that an alias or .forward names; command: without the bar."""
    if stage.origin.value not in settings.params.allow_mail_to_commands:
        return bounced("5.7.1", "mail to command is restricted")
    return await deliver_to_user_command(settings, workers, stage, delivery, command)


def _folder(settings: Settings, stage: Stage, user: User) -> str | None:
    """command_execution_directory. Raises ConfigError."""
    text = settings.params.command_execution_directory
    if not text:
        return None
    allowed = settings.params.execution_directory_expansion_filter
    return Template.of(text).expanded(values_of(stage, user), allowed)


async def deliver_to_user_command(
    settings: Settings, workers: Workers, stage: Stage, delivery: Delivery, command: str
) -> Outcome:
    """mailbox_command, or what mailbox_command_maps says; stage.rights is the user."""
    user = settings.rights_of(stage)
    if delivery.verify_only:
        reason = f"delivers to command: {command}"
        return deliverable(reason)
    params = settings.params
    try:
        require_rights(user.identity)
        result = await run_command(
            resolve_argv(command, params.local_command_shell),
            command_content(settings, stage, delivery),
            user.identity,
            _environment(settings, stage, delivery, user),
            Surroundings(
                folder=_folder(settings, stage, user), time_limit=params.command_time_limit
            ),
            program="local",
            workers=workers,
        )
    except (CannotAct, ConfigError) as err:
        return misconfigured(str(err))
    except CommandFailed as err:
        LOG.warning(str(err))
        return deferred(str(err))
    verdict = judge(command, result)
    if verdict.kind == "sent":
        reason = f"delivered to command: {command}"
        return delivered(reason)
    return verdict.failure("local")
