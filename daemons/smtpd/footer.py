"""The footer of refusals: which one it is, see postconf(5)."""

from daemons.smtpd.prepared import Prepared
from libmail.smtp.reply import Reply
from libmail.tables.table import TableRetry

__all__ = ["reject_footer"]


async def reject_footer(prepared: Prepared, reply: Reply) -> str:
    """What smtpd_reject_footer_maps have for it, or else smtpd_reject_footer; "" for none."""
    usual = prepared.params.smtpd_reject_footer
    if not prepared.footer_maps:
        return usual
    try:
        return await prepared.footer_maps.find(reply.line) or usual
    except TableRetry:
        return usual  # the table has warned; the reply is true without
