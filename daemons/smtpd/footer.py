"""What becomes of a refusal before the client gets it: another text, a footer; see postconf(5)."""

from daemons.smtpd.prepared import Prepared
from libmail.log import LOG
from libmail.smtp.reply import Reply, ReplySyntax, parse_reply
from libmail.tables.table import TableRetry

__all__ = ["filtered", "reject_footer"]


async def filtered(prepared: Prepared, reply: Reply) -> Reply:
    """The reply that smtpd_reject_filter_maps have in place of a refusal, or the refusal."""
    maps = prepared.reject_maps
    try:
        found = await maps.find(reply.line) if maps else None
    except TableRetry:
        return reply  # the table has warned; a refusal it is
    if found is None:
        return reply
    try:
        other = parse_reply(found.split("\n"))
    except ReplySyntax:
        LOG.warning(f'{maps.title}: bad reply "{found}" in place of "{reply.line}"')
        return reply
    if other.positive:
        LOG.warning(f'{maps.title}: reply "{found}" in place of "{reply.line}" is no refusal')
        return reply
    return other


async def reject_footer(prepared: Prepared, reply: Reply) -> str:
    """What smtpd_reject_footer_maps have for it, or else smtpd_reject_footer; "" for none."""
    usual = prepared.params.smtpd_reject_footer
    if not prepared.footer_maps:
        return usual
    try:
        return await prepared.footer_maps.find(reply.line) or usual
    except TableRetry:
        return usual  # the table has warned; the reply is true without
