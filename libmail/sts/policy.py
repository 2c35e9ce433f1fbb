"""MTA-STS policies (RFC 8461 §3): the record of a domain that announces one, and its file.

Both are text of strangers: bounded, taken apart in one pass, and what breaks the grammar is no
policy at all. A policy keeps only what was understood, so that nothing else of the file can get
into tables, logs and reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from libmail.dns.hostname import ascii_domain, valid_hostaddr, valid_hostname

__all__ = [
    "LONGEST_LIFE",
    "MOST_OCTETS",
    "Mode",
    "Policy",
    "PolicyInvalid",
    "parse_policy",
    "policy_domain",
    "policy_id",
    "valid_id",
]

MOST_OCTETS: Final = 1 << 16
LONGEST_LIFE: Final = 31_557_600  # seconds; a larger max_age counts as this, RFC 8461 §3.2
_VERSION: Final = "STSv1"
_RECORD: Final = f"v={_VERSION};"
_LONGEST_RECORD: Final = 4096
_LONGEST_DOMAIN: Final = 244  # "_mta-sts." goes in front
_MOST_PATTERNS: Final = 500
_MOST_OF_PATTERNS: Final = 20_000  # characters of all of them
# sts-id = %s"id=" 1*32(ALPHA / DIGIT)                                       RFC 8461 §3.1
_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)
# sts-ext-name = (ALPHA / DIGIT) *31(ALPHA / DIGIT / "_" / "-" / ".")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", re.ASCII)
# sts-ext-value = 1*(%x21-3A / %x3C / %x3E-7E)
_VALUE: Final = re.compile(r"[!-:<>-~]+")
_LIFE: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_NEXTHOP: Final = re.compile(r"(?:inet:)?(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::[^:]*)?")


class PolicyInvalid(Exception):
    """The file is no policy. The text says why, and has nothing of the file."""


class Mode(Enum):
    """What becomes of mail whose policy is not met, RFC 8461 §5."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


_MODES: Final = {mode.value: mode for mode in Mode}


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy. mx: patterns of MX hosts in small letters, `mx.example.com` or `*.example.com`.

    max_age: seconds for which it may be kept.
    """

    mode: Mode
    mx: tuple[str, ...]
    max_age: int

    @property
    def lines(self) -> tuple[str, ...]:
        """As reports tell it (RFC 8460 §4.4)."""
        hosts = (f"mx: {pattern}" for pattern in self.mx)
        version, mode = f"version: {_VERSION}", f"mode: {self.mode.value}"
        return version, mode, *hosts, f"max_age: {self.max_age}"


def valid_id(text: str) -> bool:
    """Whether it may be the id of a policy."""
    return _ID.fullmatch(text) is not None


def policy_domain(nexthop: str) -> str:
    """The domain whose policy holds for a next hop, in ASCII and small letters; "" for none.

    nexthop: with or without brackets and port (a smart host is a domain like any other, RFC 8461
    §3.4). Addresses, paths and single words have no policy.
    """
    match = _NEXTHOP.fullmatch(nexthop) if len(nexthop) <= 2 * _LONGEST_DOMAIN else None
    name = ascii_domain((match[1] or match[2] or "") if match else "").lower()
    good = "." in name and len(name) <= _LONGEST_DOMAIN and valid_hostname(name)
    return name if good and not valid_hostaddr(name) else ""


def policy_id(texts: Iterable[str]) -> str:
    """The id in the record among those of `_mta-sts.DOMAIN`, RFC 8461 §3.1; "" for none.

    Several records are as good as none, and so is one with a mistake.
    """
    found = [text for text in texts if text.startswith(_RECORD)]
    if len(found) != 1 or len(found[0]) > _LONGEST_RECORD:
        return ""
    fields = [field.strip(" \t") for field in found[0].removeprefix(_RECORD).split(";")]
    if not fields[-1]:
        fields.pop()
    known = ""
    for field in fields:
        name, _, value = field.partition("=")
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            return ""
        if name == "id" and not known:
            if not valid_id(value):
                return ""
            known = value
    return known


def parse_policy(data: bytes) -> Policy:
    """The policy in a file, RFC 8461 §3.2. Raises PolicyInvalid.

    Fields that are not known are passed over, and so are empty lines, which some servers send.
    """
    if len(data) > MOST_OCTETS:
        raise PolicyInvalid("policy too long")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise PolicyInvalid("policy is not text") from None
    fields: dict[str, str] = {}
    hosts: dict[str, None] = {}
    for line in text.split("\n"):
        stripped = line.removesuffix("\r").rstrip(" \t")
        if not stripped:
            continue
        name, value = _field(stripped)
        if name == "mx":
            hosts[_pattern(value)] = None
        else:
            fields.setdefault(name, value)  # of a field that is repeated the first one counts
    return _policy(fields, tuple(hosts))


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    value = value.lstrip(" \t")
    if not (colon and value and _NAME.fullmatch(name)):
        raise PolicyInvalid("a line of the policy is no field")
    if not value.isprintable():
        raise PolicyInvalid("control character in the policy")
    return name, value


def _pattern(value: str) -> str:
    """A host, or with `*` in place of its first label, RFC 8461 §4.1."""
    name = value.removeprefix("*.").lower()
    good = valid_hostname(name) and not valid_hostaddr(name)
    if not good:
        raise PolicyInvalid("malformed mx in the policy")
    return value.lower()


def _policy(fields: dict[str, str], hosts: tuple[str, ...]) -> Policy:
    if fields.get("version") != _VERSION:
        raise PolicyInvalid("policy of an unknown version")
    mode = _MODES.get(fields.get("mode", ""))
    if mode is None:
        raise PolicyInvalid("policy without a mode that is known")
    life = fields.get("max_age", "")
    if not _LIFE.fullmatch(life):
        raise PolicyInvalid("policy without max_age")
    if mode is not Mode.NONE and not hosts:
        raise PolicyInvalid("policy without mx")
    if len(hosts) > _MOST_PATTERNS or sum(map(len, hosts)) > _MOST_OF_PATTERNS:
        raise PolicyInvalid("policy with too many mx")
    return Policy(mode, hosts, min(int(life), LONGEST_LIFE))
