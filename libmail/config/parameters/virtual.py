"""Delivery to mailboxes that belong to no system user."""

from __future__ import annotations

from libmail.config.declare import INT, LIST, SIZE, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("virtual_delivery_status_filter", LIST, "$default_delivery_status_filter", "virtual"),
    Parameter("virtual_gid_maps", LIST, "", "virtual"),
    Parameter("virtual_mailbox_base", STR(), "", "virtual"),
    Parameter("virtual_mailbox_domains", LIST, "$virtual_mailbox_maps", "trivial-rewrite"),
    Parameter("virtual_mailbox_limit", SIZE(), "51200000", "virtual"),
    Parameter("virtual_mailbox_lock", LIST, "fcntl, dotlock", "virtual"),
    Parameter("virtual_mailbox_maps", LIST, "", "smtpd virtual"),
    Parameter("virtual_minimum_uid", INT(1), "100", "virtual"),
    Parameter("virtual_uid_maps", LIST, "", "virtual"),
)  # fmt: skip
