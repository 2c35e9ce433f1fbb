"""Delivery to system users, aliases, .forward files, commands."""

from __future__ import annotations

from libmail.config.declare import BOOL, LIST, RAW, SIZE, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("alias_database", LIST, "$default_database_type:/etc/aliases", "newaliases"),
    Parameter("alias_maps", LIST, "$default_database_type:/etc/aliases", "local"),
    Parameter("allow_mail_to_commands", LIST, "alias, forward", "local"),
    Parameter("allow_mail_to_files", LIST, "alias, forward", "local"),
    Parameter("allow_min_user", BOOL, "no", "trivial-rewrite"),
    Parameter("biff", BOOL, "yes", "local"),
    Parameter("command_execution_directory", RAW, "", "local"),
    Parameter("command_expansion_filter", STR(1),
              "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "local"),
    Parameter("command_time_limit", TIME("s", 1), "1000s", "local pipe spawn"),
    Parameter("default_delivery_status_filter", LIST, "", "*"),
    Parameter("execution_directory_expansion_filter", STR(1),
              "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "local"),
    Parameter("expand_owner_alias", BOOL, "no", "local"),
    Parameter("fallback_transport", STR(), "", "local"),
    Parameter("fallback_transport_maps", LIST, "", "local"),
    Parameter("forward_expansion_filter", STR(1),
              "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "local"),
    Parameter("forward_path", RAW,
              "$home/.forward${recipient_delimiter}${extension}, $home/.forward", "local"),
    Parameter("frozen_delivered_to", BOOL, "yes", "local"),
    Parameter("home_mailbox", STR(), "", "local"),
    Parameter("local_command_shell", STR(), "", "local"),
    Parameter("local_delivery_status_filter", LIST, "$default_delivery_status_filter", "local"),
    Parameter("luser_relay", RAW, "", "local"),
    Parameter("mail_spool_directory", STR(1), "/var/mail", "local"),
    Parameter("mailbox_command", RAW, "", "local"),
    Parameter("mailbox_command_maps", LIST, "", "local"),
    Parameter("mailbox_delivery_lock", LIST, "fcntl, dotlock", "local postlock"),
    Parameter("mailbox_size_limit", SIZE(), "51200000", "local"),
    Parameter("mailbox_transport", STR(), "", "local"),
    Parameter("mailbox_transport_maps", LIST, "", "local"),
    Parameter("owner_request_special", BOOL, "yes", "local"),
    Parameter("pipe_delivery_status_filter", LIST, "$default_delivery_status_filter", "pipe"),
    Parameter("prepend_delivered_header", LIST, "command, file, forward", "local"),
    Parameter("require_home_directory", BOOL, "no", "local"),
    Parameter("reset_owner_alias", BOOL, "no", "local"),
    Parameter("strict_mailbox_ownership", BOOL, "yes", "local virtual"),
    Parameter("sun_mailtool_compatibility", BOOL, "no", "local"),
)  # fmt: skip
