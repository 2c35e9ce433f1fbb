"""Addresses and protocols of this machine, networks, DNS."""

from __future__ import annotations

from libmail.config.declare import BOOL, ENUM, LIST, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("inet_interfaces", LIST, "all", "*",
              "Addresses on which mail is received: all, loopback-only, or addresses and "
              "names."),
    Parameter("inet_protocols", LIST, "all", "*",
              "Internet protocols to use: all, ipv4, ipv6."),
    Parameter("proxy_interfaces", LIST, "", "*",
              "Addresses of address translators and proxies in front of this machine."),
    Parameter("mynetworks", LIST, "", "*",
              "Networks whose clients may relay."),
    Parameter("mynetworks_style", ENUM("class subnet host"),
              "${{$compatibility_level} <level {2} ? {subnet} : {host}}",
              "*",
              "Which networks are trusted while mynetworks is not set."),
    Parameter("disable_dns_lookups", BOOL, "no", "smtp lmtp",
              "Use the system's host names instead of the DNS."),
    Parameter("dns_ncache_ttl_fix_enable", BOOL, "no", "*",
              "Work around resolvers that give no lifetime with a negative answer."),
    Parameter("dnssec_probe", STR(), "ns:.", "smtp posttls-finger",
              "A DNS question that tells whether the resolver validates; empty asks none."),
    Parameter("ignore_mx_lookup_error", BOOL, "no", "smtp",
              "Use the address of a domain whose MX lookup fails."),
    Parameter("ignore_srv_lookup_error", BOOL, "no", "smtp",
              "Go on with MX or addresses where an SRV lookup fails."),
    Parameter("allow_srv_lookup_fallback", BOOL, "no", "smtp",
              "Use MX or addresses where a domain has no SRV records."),
    Parameter("use_srv_lookup", LIST, "", "smtp",
              "Services whose servers are found by SRV records."),
)  # fmt: skip
