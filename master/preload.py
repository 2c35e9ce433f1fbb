"""What must be in memory before a child is forked: programs, and what libraries load late.

After its jail a child may not be able to read a single file. Name services, the time zone and
modules that libraries import at first use are therefore used once here.
"""

import concurrent.futures.thread
import encodings.idna
import gc
import grp
import importlib
import importlib.util
import pwd
import socket
import time
from collections.abc import Iterable
from typing import Final

from libmail.config import Config, computed
from libmail.config.declared import all_parameters
from libmail.log import Fatal
from libmail.sasl.server import uses_cyrus
from libmail.service.skeleton import Service
from libmail.tables.registry import TABLE_TYPES, open_table
from libmail.tables.table import TableConfigError
from libmail.tls.errors import LibraryMissing

__all__ = ["LATE_MODULES", "freeze", "load_for", "load_program", "use_name_services"]

_TLS: Final = (
    "libmail.tls.connection",
    "daemons.smtp.handshakes",
    "libmail.handshakes.server",
)
_TLS_SWITCHES: Final = (
    *("smtpd_tls_security_level", "smtpd_use_tls", "smtpd_enforce_tls", "smtpd_tls_wrappermode"),
    *("postscreen_tls_security_level", "postscreen_use_tls", "postscreen_enforce_tls"),
    *("smtp_tls_security_level", "smtp_use_tls", "smtp_enforce_tls"),
    *("smtp_tls_policy_maps", "smtp_tls_per_site"),
    *("lmtp_tls_security_level", "lmtp_use_tls", "lmtp_enforce_tls"),
    *("lmtp_tls_policy_maps", "lmtp_tls_per_site"),
)
_CYRUS: Final = "libmail.clients.cyrus"
_WITH_PATTERNS: Final = ("pcre", "regexp")  # load a C library when a table is opened

LATE_MODULES: Final = (computed, concurrent.futures.thread, encodings.idna)
"""Imported here only because others import them when they are first needed."""


def load_program(command: str) -> Service[object] | None:
    """The built-in service of that name (last column of master.cf); None if there is none.

    Raises Fatal when it cannot be loaded.
    """
    name = f"daemons.{command.replace('-', '_')}"
    if not name.replace(".", "").isidentifier() or importlib.util.find_spec(name) is None:
        return None
    try:
        module = importlib.import_module(name)
    except ImportError as err:
        raise Fatal(f"cannot load {command}: {err}") from err
    service: object = getattr(module, "SERVICE", None)
    return service if isinstance(service, Service) else None


def load_for(config: Config, services: Iterable[Config] = ()) -> None:
    """Load what every child would load on its own: parameters, table types in use, TLS.

    services: the configuration as each service has it.
    """
    texts = [parameter.default for parameter in all_parameters().values()]
    texts += [config.raw(name) or "" for name in (*config.names(), "default_database_type")]
    for kind, module in TABLE_TYPES.items():
        if any(f"{kind}:" in text for text in texts) or kind in texts:
            try:
                importlib.import_module(module)
                if kind in _WITH_PATTERNS:
                    open_table(f"{kind}:{{{{/x/ y}}}}", strict=True)
            except (ImportError, TableConfigError):
                pass  # a program that opens such a table says what is missing
    if any(_uses_tls(own) for own in (config, *services)):
        for name in _TLS:
            try:
                importlib.import_module(name)
            except LibraryMissing:
                pass  # likewise
    if any(uses_cyrus(own) for own in (config, *services)):
        try:
            importlib.import_module(_CYRUS)
        except ImportError:
            pass  # likewise


def _uses_tls(config: Config) -> bool:
    """Whether a program with this configuration loads OpenSSL."""
    return any(config.text(name).lower() not in ("", "no", "none") for name in _TLS_SWITCHES)


def use_name_services() -> None:
    """Make the C library load what it needs to look up users, groups, hosts and local time."""
    time.localtime()
    pwd.getpwuid(0)
    grp.getgrgid(0)
    for look_up in (
        lambda: pwd.getpwnam("no-such-user"),
        lambda: grp.getgrnam("no-such-group"),
        lambda: socket.getservbyname("smtp", "tcp"),
        lambda: socket.getaddrinfo("localhost", 25, type=socket.SOCK_STREAM),
        lambda: socket.getnameinfo(("127.0.0.1", 25), 0),
    ):
        try:
            look_up()
        except (KeyError, OSError):
            pass  # the answer does not matter


def freeze() -> None:
    """Keep the collector from touching what exists now: touched pages would become private."""
    gc.collect()
    gc.freeze()
