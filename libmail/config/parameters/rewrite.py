"""Completing addresses and finding the way of a recipient."""

from __future__ import annotations

from libmail.config.declare import BOOL, LIST, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("allow_percent_hack", BOOL, "yes", "trivial-rewrite",
              "Rewrite user%domain to user@domain."),
    Parameter("allow_untrusted_routing", BOOL, "no", "smtpd",
              "Relay addresses with a route in them for anyone."),
    Parameter("append_at_myorigin", BOOL, "yes", "trivial-rewrite",
              "Complete user to user@$myorigin."),
    Parameter("append_dot_mydomain", BOOL,
              "${{$compatibility_level} <level {1} ? {yes} : {no}}",
              "trivial-rewrite",
              "Complete user@host to user@host.$mydomain."),
    Parameter("default_transport", STR(), "smtp", "trivial-rewrite qmgr",
              "transport:nexthop for all other domains."),
    Parameter("empty_address_default_transport_maps_lookup_key", STR(1), "<>", "trivial-rewrite",
              "What is looked up for the empty sender in "
              "sender_dependent_default_transport_maps."),
    Parameter("empty_address_relayhost_maps_lookup_key", STR(1), "<>", "trivial-rewrite",
              "What is looked up for the empty sender in sender_dependent_relayhost_maps."),
    Parameter("local_transport", STR(1), "local:$myhostname", "trivial-rewrite",
              "transport:nexthop for domains in mydestination."),
    Parameter("propagate_unmatched_extensions", LIST,
              "canonical, virtual",
              "cleanup trivial-rewrite",
              "Tables whose results keep the address extension of what was looked up."),
    Parameter("relay_transport", STR(1), "relay", "trivial-rewrite",
              "transport:nexthop for relay domains."),
    Parameter("relayhost", STR(), "", "trivial-rewrite smtp",
              "Next hop for domains that are neither ours nor in transport_maps."),
    Parameter("relocated_maps", LIST, "", "qmgr trivial-rewrite",
              "Tables with the new addresses of users who have moved."),
    Parameter("relocated_prefix_enable", BOOL, "yes", "trivial-rewrite",
              "Put the usual words before the text of relocated_maps."),
    Parameter("resolve_dequoted_address", BOOL, "yes", "trivial-rewrite",
              "Look for @, ! and % also in quoted local parts."),
    Parameter("resolve_null_domain", BOOL, "no", "trivial-rewrite",
              "Take user@ for a local address."),
    Parameter("resolve_numeric_domain", BOOL, "no", "trivial-rewrite",
              "Take user@1.2.3.4 for user@[1.2.3.4]."),
    Parameter("sender_dependent_default_transport_maps", LIST, "", "trivial-rewrite",
              "Tables with the default transport, by sender."),
    Parameter("sender_dependent_relayhost_maps", LIST, "", "trivial-rewrite",
              "Tables with the relay host, by sender."),
    Parameter("swap_bangpath", BOOL, "yes", "trivial-rewrite",
              "Rewrite site!user to user@site."),
    Parameter("transport_maps", LIST, "", "trivial-rewrite",
              "Tables with transport:nexthop, by recipient and domain."),
    Parameter("virtual_transport", STR(1), "virtual", "trivial-rewrite",
              "transport:nexthop for virtual mailbox domains."),
)  # fmt: skip
