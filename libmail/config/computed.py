"""Defaults that depend on the machine or the process: host name, domain, networks, process id."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libmail.config.core import Config

__all__ = ["default"]

DEFAULT_DOMAIN = "localdomain"


def default(config: Config, name: str) -> str:
    """The value of one of libmail.config.core.COMPUTED. Raises ConfigError (mynetworks)."""
    match name:
        case "myhostname":
            return _host_name(config)
        case "mydomain":
            return _domain(config)
        case "mynetworks":
            from libmail.config.interfaces import mynetworks

            return mynetworks(
                config.text("mynetworks_style"),
                config.list("inet_interfaces"),
                config.list("inet_protocols"),
            )
        case "process_id":
            return str(os.getpid())
        case "process_name":
            return config.process_name
        case "service_name":
            return config.service_name
        case _:
            return config.directory


def _host_name(config: Config) -> str:
    """The machine's name; without a dot, with the domain (if one is set) behind it."""
    name = os.uname().nodename
    if "." in name:
        return name
    domain = config.text("mydomain") if config.is_set("mydomain") else DEFAULT_DOMAIN
    return f"{name}.{domain}"


def _domain(config: Config) -> str:
    """$myhostname without its first label."""
    name = config.text("myhostname") if config.is_set("myhostname") else _host_name(config)
    return name.partition(".")[2] or DEFAULT_DOMAIN
