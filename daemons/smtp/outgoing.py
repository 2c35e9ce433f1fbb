"""A message in the form for one server: commands and content, as its extensions allow."""

from collections.abc import Sequence
from typing import Final

from daemons.smtp.checks import ContentChecks
from daemons.smtp.content import Content, ended, goes_as_queued
from daemons.smtp.failure import Failure, NamedServer
from daemons.smtp.generic import GenericMaps
from daemons.smtp.settings import Flags, Settings
from libmail.agents.delivery import Delivery
from libmail.ipc.messages import EnvelopeFlag, Recipient
from libmail.message.downgrade import Downgrade
from libmail.queue.file import ContentFlag
from libmail.queue.origin import origin_of
from libmail.smtp.client import Extensions, Phase
from libmail.smtp.client_commands import Sender, mail_command, rcpt_command
from libmail.smtp.xforward import Source, known_commands
from libmail.text.quoting import header_address

__all__ = ["Outgoing"]

# Plain numbers: operators of enum flags cost more than all else here.
_SMTPUTF8: Final = int(EnvelopeFlag.SMTPUTF8)
_TLS_OPTIONAL: Final = int(EnvelopeFlag.TLS_OPTIONAL)
_REQUIRETLS: Final = int(EnvelopeFlag.REQUIRETLS)
_EIGHTBIT: Final = int(EnvelopeFlag.EIGHTBIT)
_DSN_FULL: Final = int(EnvelopeFlag.DSN_FULL)
_DSN_HEADERS: Final = int(EnvelopeFlag.DSN_HEADERS)
_EIGHTBIT_HEADER: Final = int(ContentFlag.EIGHTBIT_HEADER)
_NO_FLAGS: Final = Flags()
_EIGHTBIT_BODY: Final = int(ContentFlag.EIGHTBIT_BODY)
_MIME_CONTENT: Final = int(ContentFlag.MIME_CONTENT)


class Outgoing:
    """One message on its way out, for any number of servers."""

    def __init__(
        self,
        delivery: Delivery,
        settings: Settings,
        addresses: dict[str, str],
        header: bytes | None,
        checks: ContentChecks | None = None,
        generic: GenericMaps | None = None,
    ) -> None:
        """addresses: envelope addresses that smtp_generic_maps change.

        header: the rewritten header, None to send that of the file. checks: smtp_header_checks and
        its kin, which then also apply `generic` to the header.
        """
        self._delivery = delivery
        self._settings = settings
        self._addresses = addresses
        self._header = header
        self._checks = checks
        self._generic = generic
        self._changes = settings.changes_content or header is not None or checks is not None

    def obstacle(self, server: NamedServer, offered: Extensions) -> Failure | None:
        """Why the message cannot be sent to this server; None if it can."""
        size = self._delivery.request.size
        if offered.size and size > offered.size:
            text = f"message size {size} exceeds size limit {offered.size} of server {server.name}"
            return Failure("5.3.4", text)
        if not offered.smtputf8 and self.needs_smtputf8:
            text = "message requires SMTPUTF8, but no server was found that supports SMTPUTF8"
            last = f"{text}. The last attempted server was {server.name}"
            return Failure("5.6.7", last, elsewhere=True)
        return None

    @property
    def asks_for_nothing(self) -> bool:
        """Whether no server lacks what the message needs: SMTPUTF8, REQUIRETLS."""
        return not self._delivery.request.envelope_flags & (_SMTPUTF8 | _REQUIRETLS)

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a server with SMTPUTF8 can take the message."""
        request = self._delivery.request
        if not request.envelope_flags & _SMTPUTF8:
            return False
        return (
            bool(self._delivery.file.preamble.flags & _EIGHTBIT_HEADER)
            or not request.sender.isascii()
            or any(not recipient.address.isascii() for recipient in request.recipients)
        )

    @property
    def tls_optional(self) -> bool:
        """Whether the sender prefers arrival to protection: TLS-Required: no (RFC 8689 §5)."""
        return (
            self._delivery.request.envelope_flags & (_TLS_OPTIONAL | _REQUIRETLS) == _TLS_OPTIONAL
        )

    @property
    def requires_tls(self) -> bool:
        """Whether it came with REQUIRETLS (RFC 8689 §4.1)."""
        return bool(self._delivery.request.envelope_flags & _REQUIRETLS)

    def source(self, offered: Extensions) -> list[tuple[Phase, bytes]]:
        """The XFORWARD commands, none unless that is wanted and understood."""
        if not offered.xforward or not self._settings.params.smtp_send_xforward_command:
            return []
        envelope = self._delivery.envelope
        origin, own = origin_of(envelope), self._delivery.request.queue_id
        source = Source(
            name=origin.name,
            address=origin.address,
            port=origin.port,
            protocol=origin.protocol,
            helo=origin.helo,
            ident=envelope.log_ident or (own if envelope.client_address else ""),
            local=envelope.rewrite_context == "local",
        )
        return known_commands(source, offered)

    def mail(
        self, offered: Extensions, *, logged_in: bool = False, requiretls: bool = False
    ) -> bytes:
        """The MAIL command. requiretls: pass that on. Raises UnsafeAddress."""
        request = self._delivery.request
        flags = request.envelope_flags
        ret = "FULL" if flags & _DSN_FULL else ""
        params = self._settings.params
        # Without 8BITMIME the content may be converted, which changes its size.
        as_is = offered.eightbit or params.disable_mime_output_conversion
        sender = Sender(
            self._addresses.get(request.sender, request.sender),
            request.size if as_is else None,
            "8BITMIME" if flags & _EIGHTBIT else "",
            bool(flags & _SMTPUTF8),
            request.dsn_envid,
            ret or ("HDRS" if flags & _DSN_HEADERS else ""),
            logged_in and params.smtp_send_dummy_mail_auth,
            requiretls,
        )
        return mail_command(sender, offered, quote=params.smtp_quote_rfc821_envelope)

    def rcpts(self, recipients: Sequence[Recipient], offered: Extensions) -> list[bytes]:
        """The RCPT commands. Raises UnsafeAddress."""
        quote, addresses = self._settings.params.smtp_quote_rfc821_envelope, self._addresses
        utf8 = bool(self._delivery.request.envelope_flags & _SMTPUTF8)
        return [
            rcpt_command(
                addresses.get(one.address, one.address), one, offered, smtputf8=utf8, quote=quote
            )
            for one in recipients
        ]

    def as_queued(self, offered: Extensions) -> bytes | None:
        """All of the content and its end, if it is small and goes out as it is in the file.

        Else None: see `content`.
        """
        file = self._delivery.file
        if self._changes or not goes_as_queued(file) or self._converts(offered):
            return None
        content = file.small_content()
        return None if content is None else ended(content)

    def _converts(self, offered: Extensions) -> bool:
        """Whether 7-bit content is made of it."""
        if offered.eightbit or self._settings.params.disable_mime_output_conversion:
            return False
        return bool(
            self._delivery.file.preamble.flags & (_EIGHTBIT_BODY | _MIME_CONTENT)
            or self._delivery.request.envelope_flags & _EIGHTBIT
        )

    async def content(self, recipients: Sequence[Recipient], offered: Extensions) -> Content:
        """What follows DATA. Raises LocalTrouble."""
        file = self._delivery.file
        convert = self._converts(offered)
        header, checks = self._header, None
        if self._checks is not None and self._generic is not None:
            checks = self._checks.begin(
                self._delivery.request.queue_id, self._generic, convert=convert
            )
            header, convert = await checks.header(file.header()), False
        return Content(
            file,
            convert=Downgrade(self._settings.mime_limits) if convert else None,
            prefix=self._prefix(recipients[0]) if recipients else b"",
            header=header,
            checks=checks if checks is not None and checks.body_too else None,
            line_limit=self._settings.params.smtp_line_length_limit,
        )

    def _prefix(self, recipient: Recipient) -> bytes:
        """Header fields of flags=DOR, which needs requests with a single recipient."""
        flags = self._settings.flags
        if flags == _NO_FLAGS:
            return b""
        text = ""
        if flags.return_path:
            text += f"Return-Path: <{header_address(self._delivery.request.sender)}>\r\n"
        if flags.original_to:
            text += f"X-Original-To: {header_address(recipient.orig_rcpt or recipient.address)}\r\n"
        if flags.delivered_to:
            text += f"Delivered-To: {header_address(recipient.address)}\r\n"
        return text.encode("utf-8", "surrogateescape")
