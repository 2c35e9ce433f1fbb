"""smtp-sink(1): take messages by SMTP or LMTP and forget them, or keep them, or refuse them."""

import os
from collections.abc import Sequence
from typing import Final

import uvloop

from commands.smtp_sink.counters import Counters
from commands.smtp_sink.server import Server
from commands.smtp_sink.session import Session
from commands.smtp_sink.settings import LETTERS, Settings, read_settings
from libmail.load.command_line import Options, parse, run
from libmail.load.listening import Listener, listening_sockets
from libmail.log import Fatal
from libmail.privileges import Jail, enter_jail, identity_of

__all__ = ["main"]

_PROGRAM: Final = "smtp-sink"
_USAGE: Final = (
    "usage: smtp-sink [-468acCeEFLNpPv] [-A delay] [-b reply] [-B reply] [-d dump-template]"
    " [-D dump-template] [-f commands] [-h host_name] [-H delay] [-m sessions] [-M messages]"
    " [-n sessions] [-q commands] [-Q commands] [-r commands] [-R directory] [-s commands]"
    " [-S start-string] [-t timeout] [-T window] [-u user] [-w delay] [-W command:delay[:odds]]"
    " [inet:][host]:port | unix:path backlog"
)


def _confine(options: Options) -> None:
    """Change the root directory and the user, as -R and -u say. Raises Fatal, OSError."""
    if "-u" not in options:
        if os.geteuid() == 0:
            raise Fatal("-u option is required when running as super-user")
        return
    try:
        user = identity_of(options.text("-u", ""))
    except KeyError:
        raise Fatal(f"unknown user: {options.text('-u', '')}") from None
    root = options.text("-R", "") or None
    enter_jail(Jail(root, user if os.geteuid() == 0 else None, no_new_privs=True))


async def _serve(server: Server) -> None:
    settings = server.settings
    listener = Listener(
        server.sockets,
        lambda mine: Session(server, mine),
        most=settings.most_sessions,
        window=settings.window,
    )
    server.counters.when_enough(listener.end)
    await listener.run()


def _start(arguments: Sequence[str]) -> None:
    options = parse(arguments, LETTERS, 2)
    settings: Settings = read_settings(options)
    sockets = listening_sockets(options.words[0], options.words[1], options)
    _confine(options)
    server = Server(settings, Counters(settings), sockets)
    try:
        uvloop.run(_serve(server))
    finally:
        server.counters.finish()


def main(arguments: Sequence[str]) -> int:
    """Run smtp-sink; returns the exit status. arguments: without the program's name."""
    return run(_PROGRAM, _USAGE, lambda: _start(arguments))
