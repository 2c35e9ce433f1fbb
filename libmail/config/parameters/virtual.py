"""Delivery to mailboxes that belong to no system user."""

from __future__ import annotations

from libmail.config.declare import INT, LIST, SIZE, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("virtual_delivery_status_filter", LIST, "$default_delivery_status_filter", "virtual",
              "Tables that replace the status of a delivery."),
    Parameter("virtual_gid_maps", LIST, "", "virtual",
              "Tables with the numerical group of a mailbox."),
    Parameter("virtual_mailbox_base", STR(), "", "virtual",
              "Directory before every result of virtual_mailbox_maps."),
    Parameter("virtual_mailbox_domains", LIST, "$virtual_mailbox_maps", "smtpd trivial-rewrite",
              "Domains that are delivered to virtual mailboxes."),
    Parameter("virtual_mailbox_limit", SIZE(), "51200000", "virtual",
              "Octets of a mailbox file; 0 is no limit."),
    Parameter("virtual_mailbox_lock", LIST, "fcntl, dotlock", "virtual",
              "How mailbox files are locked: fcntl, flock, dotlock."),
    Parameter("virtual_mailbox_maps", LIST, "", "smtpd virtual",
              "Tables with the mailbox of an address; with a slash at the end it is a "
              "Maildir."),
    Parameter("virtual_minimum_uid", INT(1), "100", "virtual",
              "The smallest result of virtual_uid_maps that is taken."),
    Parameter("virtual_uid_maps", LIST, "", "virtual",
              "Tables with the numerical user of a mailbox."),
)  # fmt: skip
