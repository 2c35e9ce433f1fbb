"""smtp-source(1): send messages by SMTP or LMTP, many at a time, to see what a server can bear."""

from collections.abc import Sequence
from typing import Final

import uvloop

from commands.smtp_source.message import Messages
from commands.smtp_source.session import Session
from libmail.load.command_line import parse, run
from libmail.load.traffic import Traffic, read_plan

__all__ = ["main"]

_PROGRAM: Final = "smtp-source"
_USAGE: Final = (
    "usage: smtp-source [-46AcdLNov] [-C count] [-f from] [-F file] [-l length] [-m messages]"
    " [-M host_name] [-r recipients] [-R interval] [-s sessions] [-S subject] [-t to]"
    " [-T window] [-w interval] [inet:]host[:port] | unix:path"
)
_LETTERS: Final = "46AcC:df:F:l:Lm:M:Nor:R:s:S:t:T:vw:"


def _send(arguments: Sequence[str]) -> None:
    options = parse(arguments, _LETTERS, 1)
    plan = read_plan(options, options.words[0], "24" if "-L" in options else "smtp")
    messages = Messages(plan, options)
    traffic = Traffic(plan, lambda mine: Session(mine, messages))
    try:
        uvloop.run(traffic.run())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def main(arguments: Sequence[str]) -> int:
    """Run smtp-source; returns the exit status. arguments: without the program's name."""
    return run(_PROGRAM, _USAGE, lambda: _send(arguments))
