"""The reply to EHLO (RFC 5321 §4.1.1.1), and smtpd_discard_ehlo_keywords.

To announce another keyword: its place in `_ORDER` and `_LOGGED`, and either the `keyword` of a row
in `daemons.smtpd.verbs.VERBS` or, where it is no command of its own, a function in `_EXTENSIONS`.
What it depends on, besides the configuration, has to be among `_conditions`: clients with the same
ones get the same reply.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from daemons.smtpd.answer import Answer, answer
from libmail.smtp.reply import Reply

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["ALMOST_ALL", "Announcements", "logged", "offers_smtputf8"]

# The keywords in the order of the reply, by their names in smtpd_discard_ehlo_keywords.
_ORDER: Final = (
    "PIPELINING", "SIZE", "VRFY", "ETRN", "STARTTLS", "AUTH", "VERP", "XCLIENT", "XFORWARD",
    "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING", "REQUIRETLS",
)  # fmt: skip
_MOST_MADE: Final = 64  # there are few kinds of clients, unless a table has many
ALMOST_ALL: Final = frozenset(_ORDER) - {"ENHANCEDSTATUSCODES"}
"""Keywords to hide from a client that a Milter rejects at EHLO."""

# The keywords in the order of the log line that names hidden ones.
_LOGGED: Final = (
    "8BITMIME", "AUTH", "ETRN", "PIPELINING", "SIZE", "VERP", "VRFY", "XCLIENT", "XFORWARD",
    "ENHANCEDSTATUSCODES", "DSN", "STARTTLS", "SMTPUTF8", "CHUNKING", "REQUIRETLS",
)  # fmt: skip


def _size(session: "Session") -> str:
    limit = session.server.params.message_size_limit
    return f"SIZE {limit}" if limit else "SIZE"


def _auth(session: "Session") -> str:
    """With broken_sasl_auth_clients also in the older form, AUTH=."""
    names = session.login.announced
    both = names and session.server.logins.params.broken_sasl_auth_clients
    return f"AUTH {names}\nAUTH={names}" if both else f"AUTH {names}" if names else ""


def _requiretls(session: "Session") -> str:
    """Within TLS only, RFC 8689 §2."""
    known = session.server.params.requiretls_enable and session.facts.tls is not None
    return "REQUIRETLS" if known else ""


_EXTENSIONS: Final[Mapping[str, Callable[["Session"], str]]] = {
    "PIPELINING": lambda _: "PIPELINING",
    "SIZE": _size,
    "AUTH": _auth,
    "VERP": lambda session: "XVERP" if session.may_verp else "",
    "ENHANCEDSTATUSCODES": lambda _: "ENHANCEDSTATUSCODES",
    "8BITMIME": lambda _: "8BITMIME",
    "DSN": lambda _: "DSN",
    "SMTPUTF8": lambda session: "SMTPUTF8" if session.server.params.smtputf8_enable else "",
    "REQUIRETLS": _requiretls,
}


def offers_smtputf8(session: "Session") -> bool:
    """Whether a client may ask for SMTPUTF8."""
    return session.server.params.smtputf8_enable and "SMTPUTF8" not in session.discard


def logged(discard: frozenset[str]) -> str:
    """The list of hidden keywords, for the log."""
    return ", ".join([keyword for keyword in _LOGGED if keyword in discard])


class Announcements:
    """The answers to EHLO of a process, by their conditions."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Answer] = {}

    def answer_for(self, session: "Session") -> Answer:
        """The answer to EHLO for the client of the session."""
        conditions = _conditions(session)
        found = self._made.get(conditions)
        if found is None:
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            found = self._made[conditions] = answer(_reply(session))
        return found


def _conditions(session: "Session") -> tuple[object, ...]:
    """All that the reply depends on besides the configuration; no transaction is under way."""
    allowed = session.authorization
    return (session.discard, session.facts.tls is None, session.login.announced, session.may_verp,
            allowed.xclient, allowed.xforward)  # fmt: skip


def _reply(session: "Session") -> Reply:
    verbs = {verb.keyword: verb.announced for verb in session.verbs.values() if verb.keyword}
    known = {**_EXTENSIONS, **verbs}
    shown = [word for word in _ORDER if word in known and word not in session.discard]
    lines = [known[word](session) for word in shown]
    return Reply(250, "", "\n".join([session.server.params.myhostname, *filter(None, lines)]))
