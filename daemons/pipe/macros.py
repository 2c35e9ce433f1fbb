"""The command line of pipe(8): words with macros for the message and its recipients.

A word that holds a macro about a recipient becomes as many words as there are recipients.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from daemons.pipe.attributes import Flags
from libmail.ipc.messages import DeliverRequest, Envelope, Recipient
from libmail.queue.origin import origin_of
from libmail.smtp.address import quote_local, split_address
from libmail.tables.maps import split_extension

__all__ = ["BadMacro", "CommandLine", "Style"]

_MESSAGE: Final = frozenset(
    ("client_address", "client_helo", "client_hostname", "client_port", "client_protocol", "envid",
     "nexthop", "queue_id", "sasl_method", "sasl_sender", "sasl_username", "sender", "size")
)  # fmt: skip
_RECIPIENT: Final = frozenset(
    ("domain", "extension", "mailbox", "original_recipient", "recipient", "user")
)
# $$, ${name}, $(name), $name, and what is wrong: a bracket that does not end, nothing at all.
_REFERENCE: Final = re.compile(r"\$(?:(\$)|\{([^{}]*)\}|\(([^()]*)\)|(\w+)|([{(]?))", re.ASCII)


class BadMacro(Exception):
    """A word cannot be understood; the text says why."""


class Style(NamedTuple):
    """What a service does to addresses. null_sender: stands for the null sender."""

    flags: Flags
    null_sender: str
    delimiters: str


class _Part(NamedTuple):
    """text, and behind it the value of the macro `name`, if there is one."""

    text: str
    name: str


class CommandLine:
    """Words with macros. The constructor raises BadMacro."""

    def __init__(self, words: Sequence[str], style: Style, where: str) -> None:
        """where: of the words, for the complaint."""
        self._words = [tuple(_parts(word, where)) for word in words]
        self._style = style

    def expand(self, request: DeliverRequest, envelope: Envelope) -> list[str]:
        """The command line for a request. envelope: of its message."""
        message = _of_message(request, envelope, self._style)
        each: list[Mapping[str, str]] = [
            {**message, **_of_recipient(recipient, self._style)} for recipient in request.recipients
        ]
        found: list[str] = []
        for word in self._words:
            if any(part.name in _RECIPIENT for part in word):
                found += [_text(word, values) for values in each]
            else:
                found.append(_text(word, message))
        return found


def _parts(word: str, where: str) -> Iterator[_Part]:
    done = 0
    for match in _REFERENCE.finditer(word):
        text = word[done : match.start()]
        done = match.end()
        if match[1]:
            yield _Part(text + "$", "")
            continue
        if match[5]:
            raise BadMacro(f'truncated macro reference: "{word}"')
        name = match[2] or match[3] or match[4] or ""
        if not name:
            raise BadMacro(f'empty macro name: "{word}"')
        if name not in _MESSAGE and name not in _RECIPIENT:
            raise BadMacro(f'{where}: unknown macro name: "{name}"')
        yield _Part(text, name)
    yield _Part(word[done:], "")


def _text(word: Iterable[_Part], values: Mapping[str, str]) -> str:
    # What is not there ("") and not a macro ("" too) adds nothing.
    return "".join(part.text + values.get(part.name, "") for part in word)


def _of_message(request: DeliverRequest, envelope: Envelope, style: Style) -> dict[str, str]:
    origin = origin_of(envelope)
    nexthop = request.nexthop
    sender = request.sender or style.null_sender
    return {
        "client_address": origin.address,
        "client_helo": origin.helo,
        "client_hostname": origin.name,
        "client_port": origin.port,
        "client_protocol": origin.protocol,
        "envid": request.dsn_envid,
        "nexthop": nexthop.lower() if style.flags.fold_domain else nexthop,
        "queue_id": request.queue_id,
        "sasl_method": envelope.sasl_method,
        "sasl_sender": envelope.sasl_sender,
        "sasl_username": envelope.sasl_username,
        "sender": quote_local(sender) if style.flags.quote else sender,
        "size": str(request.size),
    }


def _of_recipient(recipient: Recipient, style: Style) -> dict[str, str]:
    address = _folded(recipient.address, style.flags)
    mailbox, domain = split_address(address)
    user, extension = split_extension(mailbox, style.delimiters)
    original = _folded(recipient.orig_rcpt or recipient.address, style.flags)
    return {
        "domain": domain,
        "extension": extension[1:],
        "mailbox": mailbox,
        "original_recipient": quote_local(original) if style.flags.quote else original,
        "recipient": quote_local(address) if style.flags.quote else address,
        "user": user,
    }


def _folded(address: str, flags: Flags) -> str:
    """The flags h and u."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = address, ""
    if flags.fold_user:
        local = local.lower()
    return local + at + (domain.lower() if flags.fold_domain else domain)
