"""Records of a reply as the system has them, and the texts of errors."""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.resolver
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.NS import NS
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

from libmail.dns.answers import DnsAnswer, DnsError, DnsRecord, Invalid
from libmail.dns.hostname import valid_hostaddr, valid_hostname
from libmail.log import LOG

__all__ = ["answer_of", "error_text", "malformed", "name_text"]


def error_text(name: str, rrtype: str, why: str) -> str:
    """Why there are no records: for the log, and for reports."""
    return f"Host or domain name not found. Name service error for name={name} type={rrtype}: {why}"


def malformed(name: str, rrtype: str) -> Invalid:
    """The error for a reply that no name server should give."""
    text = error_text(name, rrtype, "Malformed or unexpected name server reply")
    return Invalid(name, rrtype, text)


def name_text(name: dns.name.Name) -> str:
    """Without the dot at the end."""
    return name.to_text(omit_final_dot=True)


def answer_of(
    name: str, rrtype: str, reply: dns.resolver.Answer, validated: bool, ttl: int
) -> DnsAnswer | DnsError:
    """The usable records of a reply, best preference first; an error if there are none.

    name: as it was asked for. ttl: seconds. validated: by the name server, with DNSSEC.
    """
    owner = name_text(reply.canonical_name)
    records = []
    for rdata in reply.rrset or ():
        record = _record(owner, rrtype, ttl, rdata)
        if record is not None:
            records.append(record)
    if not records:
        return malformed(name, rrtype)
    records.sort(key=lambda record: record.preference)
    return DnsAnswer(name, owner, rrtype, tuple(records), validated, ttl)


def _record(owner: str, rrtype: str, ttl: int, rdata: dns.rdata.Rdata) -> DnsRecord | None:
    """Turn one record of a reply into ours; None, with a warning, for one that cannot be used."""
    if isinstance(rdata, A | AAAA):
        return DnsRecord(owner, rrtype, ttl, str(rdata.address))
    if isinstance(rdata, TXT):
        text = b"".join(rdata.strings).decode("utf-8", "surrogateescape")
        return DnsRecord(owner, rrtype, ttl, text)
    if isinstance(rdata, MX):
        host = _host(owner, rrtype, name_text(rdata.exchange))
        return None if host is None else DnsRecord(owner, rrtype, ttl, host, rdata.preference)
    if isinstance(rdata, SRV):
        host = _host(owner, rrtype, name_text(rdata.target))
        if host is None:
            return None
        return DnsRecord(owner, rrtype, ttl, host, rdata.priority, rdata.weight, rdata.port)
    if isinstance(rdata, PTR | CNAME | NS):
        host = _host(owner, rrtype, name_text(rdata.target))
        return None if host is None else DnsRecord(owner, rrtype, ttl, host)
    return DnsRecord(owner, rrtype, ttl, rdata.to_text())


def _host(owner: str, rrtype: str, host: str) -> str | None:
    if host in (".", "@", "") and rrtype in ("MX", "SRV"):
        return ""  # "no service here", RFC 7505 and RFC 2782
    where = f"in resource data of {rrtype} record for {owner}: {host[:100]}"
    if valid_hostaddr(host):
        LOG.warning(f"numeric domain name {where}")
        return host
    if valid_hostname(host, wildcard=True):
        return host
    LOG.warning(f"malformed domain name {where}")
    return None
