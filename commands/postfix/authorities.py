"""postfix check: clients that are to verify servers of the Internet trust somebody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.tls.certificate_files import views

__all__ = ["authority_problems"]

_STS_TABLE: Final = "mta-sts:"


def authority_problems(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    """A line for each client that uses policies of MTA-STS and has no authorities."""
    found: dict[str, None] = {}
    for one in views(config, entries):
        for prefix in ("smtp", "lmtp"):
            with suppress(ConfigError):  # whoever reads it complains
                if _lacks_authorities(one, prefix):
                    found[prefix] = None
    for prefix in found:
        yield (
            f"{prefix}_tls_policy_maps has the table {_STS_TABLE}, and neither {prefix}_tls_CApath"
            f" nor {prefix}_tls_CAfile is set: no certificate is good, and mail to domains with"
            " a policy waits"
        )


def _lacks_authorities(config: Config, prefix: str) -> bool:
    """Raises ConfigError."""
    if _STS_TABLE not in config.text(f"{prefix}_tls_policy_maps"):
        return False
    trusted = (config.text(f"{prefix}_tls_CAfile"), config.text(f"{prefix}_tls_CApath"))
    return not (any(trusted) or config.bool("tls_append_default_CA"))
