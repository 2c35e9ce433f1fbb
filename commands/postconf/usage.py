"""Which settings something makes use of; the others are perhaps mistyped, and warned about.

A setting is used if its name is declared, a service's own, a restriction class, mentioned in
another value, or one of a table (`mysql:NAME` reads NAME_hosts).
"""

from __future__ import annotations

from libmail.config.core import COMPUTED
from libmail.config.declare import split_list
from libmail.config.declared import all_parameters, find
from libmail.config.expand import references
from libmail.config.main_cf import SPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from libmail.config import Config

__all__ = [
    "CLIENT_SETTINGS",
    "ClientTable",
    "client_tables",
    "unused_names",
    "values_with_tables",
]  # fmt: skip

_SQL = """
    additional_conditions domain expansion_limit query result_format select_field table where_field
"""
_LDAP = """
    bind bind_dn bind_pw cache cache_expiry cache_size chase_referrals debuglevel dereference
    domain expansion_limit leaf_result_attribute query_filter recursion_limit result_attribute
    result_filter result_format sasl_authz_id sasl_mechs sasl_minssf sasl_realm scope
    search_base server_host server_port size_limit special_result_attribute start_tls
    terminal_result_attribute timeout tls_ca_cert_dir tls_ca_cert_file tls_cert
    tls_cipher_suite tls_key tls_random_file tls_require_cert version
"""
_MYSQL = """
    charset dbname hosts idle_interval option_file option_group password require_result_set
    retry_interval tls_CAfile tls_CApath tls_cert_file tls_ciphers tls_key_file tls_verify_cert
    user
"""
_PGSQL = "dbname encoding hosts idle_interval password retry_interval select_function user"
_MONGODB = """
    collection dbname domain expansion_limit filter options projection query_filter
    result_attribute result_format uri
"""
_MEMCACHE = """
    backup data_size_limit domain flags key_format line_size_limit max_try memcache retry_pause
    timeout ttl
"""
CLIENT_SETTINGS = {
    "ldap": frozenset(_LDAP.split()),
    "memcache": frozenset(_MEMCACHE.split()),
    "mongodb": frozenset(_MONGODB.split()),
    "mysql": frozenset((_SQL + _MYSQL).split()),
    "pgsql": frozenset((_SQL + _PGSQL).split()),
    "sqlite": frozenset((_SQL + "dbpath").split()),
}
"""The settings of each kind of database client: ldap_table(5), mysql_table(5) and so on."""
AROUND_TABLES = ("proxy", "debug")
AROUND_LISTS = ("pipemap", "unionmap")


class ClientTable:
    """A database client that some value names. name: of a file, or what its settings begin with."""

    __slots__ = ("kind", "name")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name

    @property
    def has_file(self) -> bool:
        """Whether its settings are in a file of its own instead of in main.cf."""
        return self.name.startswith(("/", "."))

    def parameters(self) -> set[str]:
        """What main.cf may set for it."""
        return {f"{self.name}_{setting}" for setting in CLIENT_SETTINGS[self.kind]}


def client_tables(texts: Iterable[str]) -> Iterator[ClientTable]:
    """The database clients in values, also those inside other tables and groups."""
    for text in texts:
        if ":" in text:
            yield from _clients_in(text)


def _clients_in(text: str) -> Iterator[ClientTable]:
    for word in split_list(text):
        inner = word
        while inner.startswith("{"):
            inner = inner[1:].rpartition("}")[0].strip(SPACES)
        if inner != word:
            yield from _clients_in(inner)
            continue
        kind, _, name = word.partition(":")
        while kind in AROUND_TABLES:
            kind, _, name = name.partition(":")
        if kind in AROUND_LISTS:
            yield from _clients_in(name)
        elif kind in CLIENT_SETTINGS and name:
            yield ClientTable(kind, name)


def values_with_tables(config: Config, services: Container[str]) -> list[str]:
    """The expanded values in main.cf that may name tables: those of parameters of the system, of
    services and of restriction classes. Raises ExpansionError."""
    classes = config.list("smtpd_restriction_classes")
    texts: list[str] = []
    for name in config.names():
        declared = find(name)
        if declared is not None and not declared.kind.expanded:
            continue
        if declared is not None or name in services or name in classes:
            texts.append(config.text(name))
    return texts


def unused_names(
    config: Config, services: frozenset[str], options: Sequence[str]
) -> tuple[str, ...]:
    """The names in main.cf that nothing uses, in file order.

    services: the parameters that services of master.cf have by their names. options: values of
    -o options in master.cf, which refer to names, too. Raises ExpansionError.
    """
    parameters = all_parameters()
    known = parameters.keys() | COMPUTED | services
    if known.issuperset(config.names()):
        return ()
    known.update(config.list("smtpd_restriction_classes"))
    for text in (*options, *(config.raw(name) or "" for name in config.names())):
        known.update(references(text))
    for parameter in parameters.values():
        if "$" in parameter.default:
            known.update(references(parameter.default))
    for table in client_tables((*options, *values_with_tables(config, services))):
        if not table.has_file:
            known |= table.parameters()
    return tuple(name for name in config.names() if name not in known)
