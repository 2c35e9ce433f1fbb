"""XCLIENT and XFORWARD: trusted clients speak for others."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from daemons.smtpd.answer import Answer, answer, by_policy, restarted
from daemons.smtpd.session import Session
from libmail.lookup.facts import Client, NameStatus, Sasl
from libmail.lookup.xclient import (
    TEMPORARY,
    UNAVAILABLE,
    UNKNOWN,
    XCLIENT,
    XFORWARD,
    BadAttribute,
    Forwarded,
    address,
    attributes,
    host_name,
    neutral,
    port,
)
from libmail.smtp.reply import Reply

__all__ = ["xclient", "xclient_names", "xclient_off", "xforward", "xforward_names", "xforward_off"]

_OK: Final = answer(Reply(250, "2.0.0", "Ok"))
_SILENT: Final = frozenset(("IDENT", "SOURCE"))  # attributes that do not describe the client
_PROTOCOLS: Final = ("SMTP", "ESMTP")


def xclient_off(session: Session) -> Answer | None:
    """smtpd_authorized_xclient_hosts."""
    return _off(session, session.authorization.xclient)


def xforward_off(session: Session) -> Answer | None:
    """smtpd_authorized_xforward_hosts."""
    return _off(session, session.authorization.xforward)


def _off(session: Session, trusted: bool) -> Answer | None:
    if session.transaction is not None:
        return answer(Reply(503, "5.5.1", "Error: MAIL transaction in progress"))
    if not trusted:
        return by_policy(Reply(550, "5.7.0", "Error: insufficient authorization"))
    return None


def xclient_names(_: Session) -> str:
    """The attributes that EHLO announces."""
    return " ".join(XCLIENT)


def xforward_names(_: Session) -> str:
    """The attributes that EHLO announces."""
    return " ".join(XFORWARD)


# XCLIENT


async def xclient(session: Session, argument: str) -> Answer:
    """XCLIENT attribute=value ...: the session starts over, with another client."""
    if not argument:
        return answer(Reply(501, "5.5.4", "Syntax: XCLIENT attribute=value..."))
    facts = session.facts
    try:
        found = attributes("XCLIENT", argument, XCLIENT)
        client = _client(facts.client, found, ipv6=session.server.options.ipv6)
        helo, protocol = _introduction(found)
        sasl = _login(facts.sasl, found)
    except BadAttribute as err:
        return answer(Reply(501, "5.5.4", str(err)))
    session.drop_transaction()
    session.tally.transcript.clear()
    facts.client, facts.helo_name, facts.protocol, facts.sasl = client, helo, protocol, sasl
    facts.deferrals.clear()
    allowed = await session.server.clients.authorization(client)
    session.authorization = replace(session.authorization, xclient=allowed.xclient)
    return restarted(await session.welcome())


def _client(client: Client, found: Iterable[tuple[str, str]], *, ipv6: bool) -> Client:
    """Raises BadAttribute."""
    for name, value in found:
        away = value.upper() == UNAVAILABLE
        match name:
            case "NAME":
                text, status = _name(name, value)
                client = client._replace(name=text, name_status=status)
                if status is NameStatus.OK:
                    client = client._replace(reverse_name=text, reverse_status=status)
            case "REVERSE_NAME":
                text, status = _name(name, value)
                client = client._replace(reverse_name=text, reverse_status=status)
            case "ADDR":
                shown = UNKNOWN if away else address(name, value, ipv6=ipv6)
                client = client._replace(address=shown)
            case "PORT":
                client = client._replace(port=UNKNOWN if away else port(name, value))
            case "DESTADDR":
                shown = UNKNOWN if away else address(name, value, ipv6=ipv6)
                client = client._replace(server_address=shown)
            case "DESTPORT":
                client = client._replace(server_port=UNKNOWN if away else port(name, value))
    return client


def _name(name: str, value: str) -> tuple[str, NameStatus]:
    """A host name, and how it was found."""
    if value.upper() == UNAVAILABLE:
        return UNKNOWN, NameStatus.NOT_FOUND
    if value.upper() == TEMPORARY:
        return UNKNOWN, NameStatus.TRY_AGAIN
    return host_name(name, value), NameStatus.OK


def _introduction(found: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """(HELO name, protocol); "" and "SMTP" where not given. Raises BadAttribute."""
    helo, protocol = "", "SMTP"
    for name, value in found:
        if name == "HELO":
            helo = "" if value.upper() == UNAVAILABLE else neutral(value)
        elif name == "PROTO":
            protocol = _protocol(value)
    return helo, protocol


def _protocol(value: str) -> str:
    if value.upper() not in _PROTOCOLS:
        raise BadAttribute(f"Bad PROTO syntax: {value}")
    return value.upper()


def _login(sasl: Sasl | None, found: Iterable[tuple[str, str]]) -> Sasl | None:
    for name, value in found:
        if name == "LOGIN":
            sasl = None if value.upper() == UNAVAILABLE else Sasl("XCLIENT", _printable(value))
    return sasl


def _printable(value: str) -> str:
    return "".join([char if char.isprintable() else "?" for char in value])


# XFORWARD


async def xforward(session: Session, argument: str) -> Answer:
    """XFORWARD attribute=value ...: where the next message comes from; may be given in parts."""
    if not argument:
        return answer(Reply(501, "5.5.4", "Syntax: XFORWARD attribute=value..."))
    try:
        found = attributes("XFORWARD", argument, XFORWARD)
        session.forwarded = _forwarded(
            session.forwarded or Forwarded(), found, ipv6=session.server.options.ipv6
        )
    except BadAttribute as err:
        return answer(Reply(501, "5.5.4", str(err)))
    return _OK


def _forwarded(known: Forwarded, found: Iterable[tuple[str, str]], *, ipv6: bool) -> Forwarded:
    """Raises BadAttribute."""
    for name, value in found:
        away = value.upper() == UNAVAILABLE
        if not known.name and name not in _SILENT:
            known = known._replace(name=UNKNOWN, address=UNKNOWN, port=UNKNOWN)
        match name:
            case "NAME":
                known = known._replace(name=UNKNOWN if away else host_name(name, value))
            case "ADDR":
                shown = UNKNOWN if away else address(name, value, ipv6=ipv6)
                known = known._replace(address=shown)
            case "PORT":
                known = known._replace(port=UNKNOWN if away else port(name, value))
            case "PROTO":
                known = known._replace(protocol="" if away else neutral(value))
            case "HELO":
                known = known._replace(helo="" if away else neutral(value))
            case "IDENT":
                known = known._replace(ident="" if away else neutral(value))
            case "SOURCE":
                if value.upper() not in ("LOCAL", "REMOTE"):
                    raise BadAttribute(f"Bad SOURCE syntax: {value}")
                known = known._replace(local=value.upper() == "LOCAL")
    return known
