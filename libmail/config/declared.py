"""Finding a declaration by name, over the modules of libmail.config.parameters.

They are loaded one after the other until the name is found: a command that reads a few common
parameters does not pay for all of them. Whoever must not import anything later calls
all_parameters() once; Config.load does.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from libmail.config.declare import Parameter

__all__ = ["AREAS", "all_parameters", "find"]

AREAS = (
    "common", "services", "networks", "master", "smtpd", "smtpd_access", "cleanup", "rewrite",
    "qmgr", "smtp", "local", "virtual", "bounce", "verify", "proxymap",
    "tls_client", "tls_server", "tls", "sasl", "lmtp", "milter", "postscreen",
)  # fmt: skip


def find(name: str) -> Parameter | None:
    """The declaration of name; None if there is none."""
    for area in AREAS:
        parameter = _of(area).get(name)
        if parameter is not None:
            return parameter
    return None


def all_parameters() -> dict[str, Parameter]:
    """All declarations, by name."""
    return {name: parameter for area in AREAS for name, parameter in _of(area).items()}


def _of(area: str) -> Mapping[str, Parameter]:
    name = f"libmail.config.parameters.{area}"
    # import_module takes ten times as long to find what is there, and a daemon asks 20,000 times.
    module = sys.modules.get(name) or import_module(name)
    parameters: Mapping[str, Parameter] = module.PARAMETERS
    return parameters
