"""What a parameter declaration says, and the types of parameter values.

Plain slotted classes instead of dataclasses: this module is loaded by every short-lived command,
and the dataclasses module alone takes longer to load than all declarations.
"""

from __future__ import annotations

from libmail.config.errors import BadName, ConfigError
from libmail.config.main_cf import SPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BOOL", "ENUM", "HOSTNAME", "INT", "LIST", "MODE", "ORIGIN", "RAW", "SIZE", "STR", "TIME",
    "Kind", "Parameter", "Value", "by_name",
    "split_list",
]  # fmt: skip

Value = bool | int | float | str | tuple[str, ...]

MAX_LINE = 2048  # octets
MAX_INT = 2**31 - 1
MAX_SIZE = 2**63 - 1
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Kind:
    """The type of a value.

    annotation: how a *Params field of this type is annotated. parse(name, text): the typed value
    of expanded text; raises ValueError with the complaint. allowed: completes "must be".
    """

    __slots__ = ("allowed", "annotation", "expanded", "name", "parse")

    def __init__(
        self,
        name: str,
        annotation: str,
        allowed: str,
        parse: Callable[[str, str], Value],
        expanded: bool = True,
    ) -> None:
        self.name = name
        self.annotation = annotation
        self.allowed = allowed
        self.parse = parse
        self.expanded = expanded


class Parameter:
    """One declaration. default: main.cf text, expanded like a user's. programs: readers ("*").

    What it is for says libmail/config/parameters/docs, of which postconf(5) is made.
    """

    __slots__ = ("default", "kind", "name", "programs")

    def __init__(self, name: str, kind: Kind, default: str, programs: str) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.programs = programs


def by_name(*parameters: Parameter) -> dict[str, Parameter]:
    """The declarations of an area as a mapping."""
    return {parameter.name: parameter for parameter in parameters}


def split_list(text: str) -> tuple[str, ...]:
    """The elements of a list: split at commas and white space, `{ ... }` groups kept whole."""
    if "{" not in text:
        for separator in ",\t\r\n\v\f":
            text = text.replace(separator, " ")
        return tuple(word for word in text.split(" ") if word)
    words: list[str] = []
    start, depth = -1, 0
    for position, char in enumerate(text):
        if depth == 0 and (char == "," or char in SPACES):
            if start >= 0:
                words.append(text[start:position])
                start = -1
            continue
        if start < 0:
            start = position
        depth += (char == "{") - (char == "}" and depth > 0)
    if start >= 0:
        words.append(text[start:])
    return tuple(words)


def INT(low: int = 0, high: int = MAX_INT) -> Kind:
    """A whole number from low to high, given in decimal."""

    def parse(name: str, text: str) -> int:
        value = _whole(text)
        if value is None:
            raise ValueError(f"bad numerical configuration: {name} = {text}")
        if not low <= value <= high:
            bound = f"{value} < {low}" if value < low else f"{value} > {high}"
            raise ValueError(f"invalid {name} parameter value {bound}")
        return value

    bounds = f" from {low} to {high}" if high < MAX_INT else f", at least {low}"
    return Kind("int", "int", f"a whole number{bounds}", parse)


def SIZE(low: int = 0) -> Kind:
    """A number of octets, at least low."""
    kind = INT(low, MAX_SIZE)
    bound = f", at least {low}" if low else ""
    return Kind("size", "int", f"a number of octets{bound}", kind.parse)


def TIME(unit: str = "s", low: float = 0) -> Kind:
    """A duration: number and s, m, h, d or w; a bare number counts in unit. Value in seconds.

    What follows the unit is not read: sites write `postscreen_dnsbl_ttl = 5m`, and a default makes
    `5mh` of it.
    """

    def parse(name: str, text: str) -> float:
        sign = text[:1] if text[:1] in "+-" else ""
        rest = text[len(sign) :].lstrip("0123456789")
        count = _whole(text[: len(text) - len(rest)])
        factor = UNITS.get((rest[:1] or unit).lower())
        if count is None or count < 0 or factor is None:
            raise ValueError(f"parameter {name}: bad time value or unit: {text}")
        if count * factor < low or count * factor > MAX_INT:
            bound = f"< {low:g}" if count * factor < low else f"> {MAX_INT}"
            raise ValueError(f"invalid {name} parameter value {count * factor} {bound}")
        return float(count * factor)

    shortest = f", at least {low:g} seconds" if low > 1 else ", not 0" if low else ""
    allowed = f"a number with unit s, m, h, d or w (none: {unit}){shortest}"
    return Kind("time", "float", allowed, parse)


def STR(shortest: int = 0) -> Kind:
    """Text of at least that many characters."""

    def parse(name: str, text: str) -> str:
        if len(text) < shortest:
            raise ValueError(f"bad string length {len(text)} < {shortest}: {name} = {text}")
        return text

    length = {0: "", 1: ", not empty"}.get(shortest, f" of at least {shortest} characters")
    return Kind("str", "str", f"text{length}", parse)


def ENUM(words: str) -> Kind:
    """One of the words, in any case; the value is in lower case."""
    known = words.split()

    def parse(name: str, text: str) -> str:
        if text.lower() not in known:
            raise ValueError(f"parameter {name}: unrecognized value: {text}")
        return text.lower()

    return Kind("enum", "str", "one of " + ", ".join(known), parse)


def _parse_bool(name: str, text: str) -> bool:
    word = text.lower()
    if word not in ("yes", "no"):
        raise ValueError(f"bad boolean configuration: {name} = {text}")
    return word == "yes"


def _parse_mode(name: str, text: str) -> int:
    if not 1 <= len(text) <= 5 or text.strip("01234567"):
        raise ValueError(f"parameter {name}: bad file permissions: {text}")
    return int(text, 8)


def _whole(text: str) -> int | None:
    """A decimal number of reasonable length, perhaps signed; None if it is none."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits or len(digits) > 19 or not (digits.isascii() and digits.isdigit()):
        return None
    return int(text)


def _parse_hostname(_name: str, text: str) -> str:
    from libmail.config.hostname import hostname_problem

    if problem := hostname_problem(text):
        raise BadName(problem)
    return text


def _parse_origin(name: str, text: str) -> str:
    """A domain, or the name of a file whose first line it is, as in Debian."""
    value = _first_line(name, text) if text.startswith("/") else text
    if not value:
        raise ValueError(f"bad string length 0 < 1: {name} = {text}")
    if any(char in value for char in ", \t\r\n"):
        raise ConfigError(f"{name} parameter setting must not contain multiple values: {value}")
    return value


def _first_line(name: str, path: str) -> str:
    """Without white space around it. Raises ConfigError for a file that does not have it."""
    try:
        with open(path, "rb") as file:
            line = file.readline(MAX_LINE).decode("utf-8", "surrogateescape").strip(SPACES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot open file: {error.strerror}") from None
    if not line:
        raise ConfigError(f"{name} file {path} is empty")
    return line


BOOL = Kind("bool", "bool", '"yes" or "no"', _parse_bool)
LIST = Kind("list", "tuple[str, ...]", "a list", lambda _name, text: split_list(text))
RAW = Kind("raw", "str", "text", lambda _name, text: text, expanded=False)
HOSTNAME = Kind("hostname", "str", "a host name", _parse_hostname)
ORIGIN = Kind("origin", "str", "a domain, or a file that begins with it", _parse_origin)
MODE = Kind("mode", "int", "octal file permissions", _parse_mode)
