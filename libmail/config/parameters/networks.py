"""Addresses and protocols of this machine, networks, DNS."""

from __future__ import annotations

from libmail.config.declare import BOOL, ENUM, LIST, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("inet_interfaces", LIST, "all", "*"),
    Parameter("inet_protocols", LIST, "all", "*"),
    Parameter("proxy_interfaces", LIST, "", "*"),
    Parameter("mynetworks", LIST, "", "*"),
    Parameter("mynetworks_style", ENUM("class subnet host"),
              "${{$compatibility_level} <level {2} ? {subnet} : {host}}", "*"),
    Parameter("disable_dns_lookups", BOOL, "no", "smtp lmtp posttls-finger"),
    Parameter("dns_ncache_ttl_fix_enable", BOOL, "no", "*"),
    Parameter("dnssec_probe", STR(), "ns:.", "smtp posttls-finger"),
    Parameter("ignore_mx_lookup_error", BOOL, "no", "smtp posttls-finger"),
    Parameter("ignore_srv_lookup_error", BOOL, "no", "smtp lmtp posttls-finger"),
    Parameter("allow_srv_lookup_fallback", BOOL, "no", "smtp lmtp posttls-finger"),
    Parameter("use_srv_lookup", LIST, "", "smtp lmtp posttls-finger"),
)  # fmt: skip
