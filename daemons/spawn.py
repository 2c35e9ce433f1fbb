"""spawn(8): an external command for each connection, as inetd does it.

called by: whoever connects to the socket of the service. asks: nobody. writes: nothing.
tells: nobody. needs: root, to run the command as another user.

The command's standard input, output and error are the connection. One command at a time in a
process, so the maxproc column limits the commands that run.
"""

import os
import socket
from dataclasses import dataclass
from typing import Final

from libmail.execution.runner import CommandFailed, Surroundings, exported, run_on_socket
from libmail.execution.user import command_user
from libmail.log import LOG, Fatal
from libmail.privileges import Identity
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE"]


@dataclass(frozen=True, slots=True)
class SpawnParams:
    """Parameters of spawn(8)."""

    export_environment: tuple[str, ...]
    mail_network_user: str
    mail_owner: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The command of the service."""

    user: Identity
    argv: tuple[str, ...]
    environment: dict[str, str]
    place: Surroundings


def _prepare(startup: Startup) -> Settings | Fatal:
    """Or what is wrong with the service in master.cf: clients are not to wait for an answer."""
    config = startup.config
    params = config.load(SpawnParams)
    place = Surroundings(time_limit=config.seconds(f"{startup.service}_time_limit"))
    try:
        user, argv = _attributes(startup.arguments, params.mail_owner, params.mail_network_user)
    except Fatal as err:
        return err
    return Settings(user, argv, exported(params.export_environment), place)


def _attributes(
    arguments: tuple[str, ...], mail_owner: str, mail_network_user: str
) -> tuple[Identity, tuple[str, ...]]:
    """user= and argv=, which all that follows belongs to. Raises Fatal."""
    user: Identity | None = None
    for number, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "user":
            user = command_user(value, mail_owner, mail_network_user)
        elif name == "argv":
            if user is None or not value:
                break
            return user, (value, *arguments[number + 1 :])
        else:
            raise Fatal(f"unknown attribute name: {argument}")
    raise Fatal(f"missing {'user' if user is None else 'argv'}= attribute")


async def _serve(settings: Settings, connection: socket.SocketType) -> None:
    user, name = settings.user, settings.argv[0]
    if os.geteuid() not in (0, user.uid):
        LOG.warning(f"cannot run commands as {user.name} without root")
        connection.close()
        return
    try:
        result = await run_on_socket(
            settings.argv, connection, user, settings.environment, settings.place
        )
    except CommandFailed as err:
        LOG.fatal(f"spawn_command: {err}")
        return
    if result.status is not None and result.status < 0:
        LOG.warning(f"command {name} killed by signal {-result.status}")
    elif result.status:
        LOG.warning(f"command {name} exit status {result.status}")


async def _start(settings: Settings | Fatal, runtime: Runtime) -> Handlers:
    async def session(connection: socket.SocketType) -> None:
        try:
            if isinstance(settings, Fatal):
                connection.close()
                LOG.fatal(str(settings))
                runtime.retire()
            else:
                await _serve(settings, connection)
        finally:
            runtime.session_ended()

    def accept(connection: socket.SocketType) -> None:
        runtime.spawn(session(connection))

    return Handlers(connection=accept)


SERVICE: Final = Service("spawn", _prepare, _start, one_client=True, commands=True)
