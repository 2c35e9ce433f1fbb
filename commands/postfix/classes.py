"""postfix check: no domain is in two address classes, of which only one can count.

Source: ADDRESS_CLASS_README. Domains that stand in a list itself are looked for in the other lists,
which may be tables; what only tables have is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from libmail.config import Config
from libmail.tables.match import DomainList, StringList
from libmail.tables.registry import without_proxy
from libmail.tables.table import TableError, TableOptions, run_now

__all__ = ["class_problems"]

# As trivial-rewrite(8) asks: the first that has a domain wins.
_CLASSES = (
    ("mydestination", "local"),
    ("virtual_alias_domains", "virtual alias"),
    ("virtual_mailbox_domains", "virtual mailbox"),
    ("relay_domains", "relay"),
)


@dataclass(frozen=True, slots=True)
class AddressClass:
    """One class. domains: those that the list itself names."""

    parameter: str
    name: str
    place: str
    domains: tuple[str, ...]
    members: StringList | DomainList

    def has(self, domain: str) -> bool:
        """Whether the domain is in it; not, where a table gives no answer."""
        try:
            return run_now(self.members.match(domain))
        except TableError:
            return False


class _Silent:
    """Tables have been complained about elsewhere."""

    def warning(self, text: str, /) -> None:
        """Say nothing."""

    error = warning


def class_problems(config: Config) -> Iterator[str]:
    """A line for each domain of two classes, with the rule that wins."""
    classes = [_address_class(config, *names) for names in _CLASSES]
    for at, winner in enumerate(classes):
        for loser in classes[at + 1 :]:
            if (winner.name, loser.name) == ("local", "relay"):
                continue  # nobody is surprised: relay_domains is $mydestination by default
            both = [one for one in winner.domains if loser.has(one)]
            both += [one for one in loser.domains if one not in both and winner.has(one)]
            for domain in both:
                yield (
                    f"do not list domain {domain} in BOTH {winner.parameter} and "
                    f"{loser.parameter}: it is in {winner.place} and in {loser.place}; "
                    f"{winner.parameter} wins, so its mail is {winner.name} mail"
                )


def _address_class(config: Config, parameter: str, name: str) -> AddressClass:
    items = _items(config, parameter)
    options = TableOptions(config=config, utf8=config.bool("smtputf8_enable"), log=_Silent())
    parents = parameter in config.list("parent_domain_matches_subdomains")
    members: StringList | DomainList
    if parameter == "relay_domains":
        members = DomainList(parameter, items, options, parent=parents)
    else:
        members = StringList(parameter, items, options)
    origin = config.origin(parameter)
    place = f"{parameter} ({origin[0]}, line {origin[1]})" if origin else f"{parameter} (default)"
    domains = tuple(
        item.lower() for item in items if not {":", "/", "!"} & set(item) and item[:1] != "."
    )
    return AddressClass(parameter, name, place, domains, members)


def _items(config: Config, parameter: str) -> Sequence[str]:
    items = config.list(parameter)
    if parameter == "relay_domains" and not config.is_set(parameter):
        # The default before compatibility level 2 is $mydestination, which wins anyhow.
        return ()
    return [without_proxy(item) for item in items]
