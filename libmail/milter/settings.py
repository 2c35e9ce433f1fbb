"""Which Milters there are: smtpd_milters, non_smtpd_milters and smtpd_milter_maps.

An element is `inet:host:port`, `unix:path` or, with settings of its own, `{ endpoint, name = value,
... }`; the names are those of the milter_* parameters without their prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from libmail.config.declare import TIME
from libmail.milter.conversation import VERSIONS

__all__ = ["MilterSettings", "parse_milters"]

_SECONDS: Final = TIME("s", 1)


@dataclass(frozen=True, slots=True)
class MilterSettings:
    """One Milter. endpoint: as configured. Times in seconds. protocol: the newest version."""

    endpoint: str
    connect_timeout: float
    command_timeout: float
    content_timeout: float
    default_action: str
    protocol: str

    @property
    def version(self) -> int:
        """The newest version of the protocol to speak; milter_protocol may name extensions, too,
        which newer versions have anyway."""
        return int(self.protocol.replace(",", " ").split()[0])


def parse_milters(elements: Sequence[str], defaults: MilterSettings) -> list[MilterSettings]:
    """Elements of a list of Milters; defaults: values of the milter_* parameters.

    Raises ValueError with the complaint.
    """
    return [_parse(element, defaults) for element in elements]


def _parse(element: str, defaults: MilterSettings) -> MilterSettings:
    found = replace(defaults, endpoint=element)
    if element.startswith("{"):
        if not element.endswith("}"):
            raise ValueError(f'missing "}}" in Milter: {element}')
        endpoint, *settings = _split(element[1:-1])
        found = replace(defaults, endpoint=endpoint)
        for setting in settings:
            found = _changed(found, setting)
    _check_version(found.protocol)
    return found


def _changed(settings: MilterSettings, text: str) -> MilterSettings:
    name, _, value = (part.strip() for part in text.partition("="))
    match name:
        case "connect_timeout":
            return replace(settings, connect_timeout=_seconds(name, value))
        case "command_timeout":
            return replace(settings, command_timeout=_seconds(name, value))
        case "content_timeout":
            return replace(settings, content_timeout=_seconds(name, value))
        case "default_action":
            return replace(settings, default_action=value)
        case "protocol":
            return replace(settings, protocol=value)
    raise ValueError(f"unknown Milter setting: {text}")


def _seconds(name: str, text: str) -> float:
    value = _SECONDS.parse(name, text)
    assert isinstance(value, float)
    return value


def _split(text: str) -> list[str]:
    """At commas; braces hold a value together."""
    parts, depth, start = [], 0, 0
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _check_version(text: str) -> None:
    word = text.replace(",", " ").split()[:1]
    if not word or not word[0].isdigit() or int(word[0]) not in VERSIONS:
        raise ValueError(f"bad milter_protocol: {text}")
