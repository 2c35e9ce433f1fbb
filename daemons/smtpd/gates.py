"""The checks that every command passes before its function runs.

`read` checks the line itself, `look_ahead` what was sent behind it, `refusal` whether this client
may give the command now.
"""

from typing import TYPE_CHECKING, Final

from daemons.smtpd.answer import Answer, SessionEnded, answer, by_policy
from daemons.smtpd.events import ImproperPipelining
from daemons.smtpd.secrets import masked
from daemons.smtpd.verb import Verb
from libmail.log import LOG
from libmail.lookup.context import LookupFailure
from libmail.smtp.reply import Reply
from libmail.smtp.server import BareNewline, Command
from libmail.text.escapes import escaped

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["NOT_ENCRYPTED", "bare_newline_reply", "look_ahead", "read", "refusal", "split",
           "too_early"]  # fmt: skip

NOT_ENCRYPTED: Final = answer(Reply(530, "5.7.0", "Must issue a STARTTLS command first"))

_SHOWN: Final = 100  # octets of unexpected input in the log
_SHOWN_COMMAND: Final = 30  # octets of a command that is too long
_SPACE: Final = " \t\r"


async def read(session: "Session", event: Command) -> str | Reply:
    """The command line, decoded and filtered, or the reply that refuses it. Raises SessionEnded.

    What is ASCII, not too long and ends in CRLF needs but to be decoded and recorded, if nothing is
    filtered.
    """
    line = event.line.decode("utf-8", "surrogateescape")
    shown = session.tally.heard(event.line)
    if event.too_long:
        return _too_long(session, shown)
    if session.server.commands.filters:
        line = await _filtered(session, line)
    if event.bare_newline:
        await _note_bare_newline(session)
    if not line.isascii() and not _is_text(session, line):
        return Reply(500, "5.5.2", "Error: bad UTF-8 syntax")
    return line


def _too_long(session: "Session", line: bytes) -> Reply:
    """The refusal of a line that exceeds line_length_limit."""
    params = session.server.params
    text = escaped(line[:_SHOWN_COMMAND].decode("utf-8", "replace"))
    LOG.warning(f"{session.client}: request longer than {params.line_length_limit}: {text}...")
    return Reply(500, "5.5.2", f"{params.myhostname} Error: command too long")


async def _filtered(session: "Session", line: str) -> str:
    server = session.server
    try:
        found = await server.commands.replaced(line)
    except LookupFailure:
        await session.send(Reply(421, "4.3.0", f"{server.params.myhostname} Error: command filter"))
        raise SessionEnded from None
    if found is None:
        return line
    LOG.info(f'{session.client}: replacing command "{_shown(line)}" with "{_shown(found)}"')
    return found


def _shown(command: str) -> str:
    """A command, or its replacement, for the log: without secrets."""
    octets = command.encode("utf-8", "surrogateescape")
    return masked(octets, after_secret=False)[1].decode("utf-8", "surrogateescape")[:_SHOWN]


async def _note_bare_newline(session: "Session") -> None:
    setting = session.server.params.smtpd_forbid_bare_newline
    if setting == "note":
        LOG.info(f"bare <LF> received after {session.facts.where} from {session.client}")
    elif setting == "reject" and session.dialogue.core.newlines is BareNewline.REJECT:
        session.log("reject", "bare <LF> received")
        await session.send(bare_newline_reply(session))
        raise SessionEnded


def bare_newline_reply(session: "Session") -> Reply:
    """The refusal of a line that ends in LF alone."""
    params = session.server.params
    code = params.smtpd_forbid_bare_newline_reject_code
    return Reply(code, f"{code // 100}.5.2", f"{params.myhostname} Error: bare <LF> received")


def _is_text(session: "Session", line: str) -> bool:
    """With smtputf8_enable, a line that is not ASCII has to be UTF-8."""
    if not session.server.params.smtputf8_enable:
        return True
    return not any("\udc80" <= char <= "\udcff" for char in line)


def split(line: str) -> tuple[str, str]:
    """(first word, rest) of a command line, without the white space between them."""
    word, _, argument = line.strip(_SPACE).partition(" ")
    if "\t" in word or "\r" in word:
        line = line.strip(_SPACE)
        at = next(at for at, char in enumerate(word) if char in _SPACE)
        word, argument = line[:at], line[at:]
    return word, argument.lstrip(_SPACE)


async def look_ahead(session: "Session", verb: Verb) -> None:
    """Detect improper pipelining, RFC 2920 §3.1. Raises SessionEnded."""
    facts = session.facts
    if facts.improper_pipelining or verb.ends or session.server.stand_alone:
        return
    if verb.last or facts.protocol != "ESMTP":
        await too_early(session)


async def too_early(session: "Session") -> None:
    """The client has sent data before it was allowed to. Raises SessionEnded."""
    facts = session.facts
    facts.improper_pipelining = True
    shown = session.tally.shown(session.dialogue.core.peek(_SHOWN)).decode("utf-8", "replace")
    LOG.event(ImproperPipelining(facts.where, session.client, escaped(shown)))
    if session.server.params.smtpd_forbid_unauth_pipelining:
        await session.send(Reply(554, "5.5.0", "Error: SMTP protocol synchronization"))
        raise SessionEnded


def refusal(session: "Session", verb: Verb, argument: str) -> Answer | None:
    """The refusal of a command that this client may not give now; None if it may."""
    if session.access_denied and not verb.ends:
        return session.overdue or by_policy(
            Reply(503, "5.7.0", f"Error: access denied for {session.facts.client.shown}")
        )
    if session.server.options.must_encrypt and not (verb.before_tls or session.facts.tls):
        return NOT_ENCRYPTED
    if argument and verb.no_argument:
        return answer(Reply(501, "5.5.4", f"Syntax: {verb.name}"))
    return None if verb.off is None else verb.off(session)
