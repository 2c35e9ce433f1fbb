"""Completing addresses and finding the way of a recipient."""

from __future__ import annotations

from libmail.config.declare import BOOL, LIST, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("allow_percent_hack", BOOL, "yes", "trivial-rewrite smtp lmtp"),
    Parameter("allow_untrusted_routing", BOOL, "no", "smtpd"),
    Parameter("append_at_myorigin", BOOL, "yes", "trivial-rewrite smtp lmtp"),
    Parameter("append_dot_mydomain", BOOL,
              "${{$compatibility_level} <level {1} ? {yes} : {no}}", "trivial-rewrite smtp lmtp"),
    Parameter("default_transport", STR(), "smtp", "trivial-rewrite"),
    Parameter("empty_address_default_transport_maps_lookup_key", STR(1), "<>", "trivial-rewrite"),
    Parameter("empty_address_relayhost_maps_lookup_key", STR(1), "<>", "trivial-rewrite"),
    Parameter("local_transport", STR(1), "local:$myhostname", "trivial-rewrite"),
    Parameter("propagate_unmatched_extensions", LIST,
              "canonical, virtual", "cleanup local smtp lmtp"),
    Parameter("relay_transport", STR(1), "relay", "trivial-rewrite"),
    Parameter("relayhost", STR(), "", "trivial-rewrite smtp"),
    Parameter("relocated_maps", LIST, "", "trivial-rewrite"),
    Parameter("relocated_prefix_enable", BOOL, "yes", "trivial-rewrite"),
    Parameter("resolve_dequoted_address", BOOL, "yes", "trivial-rewrite"),
    Parameter("resolve_null_domain", BOOL, "no", "trivial-rewrite"),
    Parameter("resolve_numeric_domain", BOOL, "no", "trivial-rewrite"),
    Parameter("sender_dependent_default_transport_maps", LIST, "", "trivial-rewrite"),
    Parameter("sender_dependent_relayhost_maps", LIST, "", "trivial-rewrite"),
    Parameter("swap_bangpath", BOOL, "yes", "trivial-rewrite smtp lmtp"),
    Parameter("transport_maps", LIST, "", "trivial-rewrite"),
    Parameter("virtual_transport", STR(1), "virtual", "trivial-rewrite"),
)  # fmt: skip
