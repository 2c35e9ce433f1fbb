"""DNS reply filters: records that tables say to overlook.

Called by: the resolver, before an answer is remembered. Parameters: smtp_dns_reply_filter,
lmtp_dns_reply_filter, smtpd_dns_reply_filter, see postconf(5).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from libmail.dns.answers import DnsAnswer, DnsRecord, Filtered, TempFail, is_null_mx
from libmail.log import LOG
from libmail.tables.maps import Maps
from libmail.tables.table import TableRetry

__all__ = ["ReplyFilter", "record_text"]

_HOSTS: Final = frozenset({"CNAME", "MX", "NS", "PTR", "SRV"})  # types whose value is a name


def record_text(record: DnsRecord) -> str:
    """A record as tables see it: "name. ttl IN type preference value"."""
    value = f"{record.value.removesuffix('.')}." if record.rrtype in _HOSTS else record.value
    if record.rrtype == "SRV":
        value = f"{record.preference} {record.weight} {record.port} {value}"
    elif record.rrtype == "MX":
        value = f"{record.preference} {value}"
    return f"{record.owner.removesuffix('.')}. {record.ttl} IN {record.rrtype} {value}"


class ReplyFilter:
    """Takes records out of answers; IGNORE is the only action there is."""

    def __init__(self, maps: Maps) -> None:
        """maps: titled with the name of the parameter."""
        self._maps = maps

    def __bool__(self) -> bool:
        """Whether anything is filtered."""
        return bool(self._maps)

    async def apply(self, answer: DnsAnswer) -> DnsAnswer | Filtered | TempFail:
        """The answer without the records to ignore; an error if none is left, or for a bad rule.

        That a domain accepts no mail (a null MX) cannot be overlooked.
        """
        if is_null_mx(answer.records):
            return answer
        kept = []
        where = f"Error looking up name={answer.name} type={answer.rrtype}"
        for record in answer.records:
            text = record_text(record)
            try:
                action = await self._maps.find(text)
            except TableRetry:
                action = ""
            if action is None:
                kept.append(record)
            elif action.upper() == "IGNORE":
                LOG.info(f"ignoring DNS RR: {text}")
            else:
                if action:
                    LOG.warning(f'{self._maps.title}: unknown DNS filter action: "{action}"')
                problem = f"{where}: Invalid DNS reply filter syntax"
                return TempFail(answer.name, answer.rrtype, problem)
        if not kept:
            problem = f"{where}: DNS reply filter drops all results"
            return Filtered(answer.name, answer.rrtype, problem)
        return replace(answer, records=tuple(kept))
