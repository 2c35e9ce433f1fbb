"""RSET, NOOP, QUIT and HELP."""

from typing import Final

from daemons.smtpd.answer import Answer, answer
from daemons.smtpd.session import Session
from libmail.smtp.reply import Reply

__all__ = ["help_", "noop", "quit_", "rset"]

_OK: Final = answer(Reply(250, "2.0.0", "Ok"))
_BYE: Final = answer(Reply(221, "2.0.0", "Bye"))


async def rset(session: Session, _: str) -> Answer:
    """RSET: forget the transaction."""
    session.drop_transaction()
    return _OK


async def noop(_: Session, __: str) -> Answer:
    """NOOP: does nothing."""
    return _OK


async def quit_(_: Session, __: str) -> Answer:
    """QUIT: ends the session."""
    return _BYE


async def help_(session: Session, _: str) -> Answer:
    """HELP: lists all commands, also those that this client may not give."""
    return answer(Reply(214, "2.0.0", f"Commands: {' '.join(sorted(session.verbs))}"))
