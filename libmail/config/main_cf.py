"""main.cf as text: logical lines and `name = value` pairs, postconf(5) "File format".

A line that begins with white space continues the one before; empty lines and lines whose first
character is `#` (after white space) are skipped, also inside a continued line.
"""

from __future__ import annotations

from libmail.config.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SPACES", "Entry", "logical_lines", "parse_main_cf", "read_text", "split_name_value"]

SPACES = " \t\r\n\v\f"


class Entry:
    """One setting and where it came from. line is 0 for what no file said (options, `-o`)."""

    __slots__ = ("file", "line", "name", "value")

    def __init__(self, name: str, value: str, file: str, line: int) -> None:
        self.name = name
        self.value = value
        self.file = file
        self.line = line


def read_text(path: str) -> str:
    """The file's text, undecodable octets kept as surrogates. Raises ConfigError."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise ConfigError(f"open {path}: {error.strerror}") from error
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: null byte: only text is allowed")
    return data.decode("utf-8", "surrogateescape")


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first physical line, joined text) of every logical line.

    Text before the first proper line that begins with white space comes as a line of its own,
    with its white space, for the caller to complain about.
    """
    first = 0
    parts: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.lstrip(SPACES)
        if not stripped or stripped[0] == "#":
            continue
        if parts and line[0] in SPACES:
            parts.append(line)
            continue
        if parts:
            yield first, "".join(parts)
        first, parts = number, [line]
    if parts:
        yield first, "".join(parts)


def split_name_value(text: str) -> tuple[str, str]:
    """("name", "value") of `name = value`. Raises ValueError with the reason."""
    text = text.strip(SPACES)
    end = 0
    while end < len(text) and text[end] not in SPACES and text[end] != "=":
        end += 1
    rest = text[end:].lstrip(SPACES)
    if end == 0:
        raise ValueError("missing attribute name")
    if not rest.startswith("="):
        raise ValueError("missing '=' after attribute name")
    return text[:end], rest[1:].lstrip(SPACES)


def parse_main_cf(text: str, file: str) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """All settings in file order, and warnings. Raises ConfigError with file and line.

    A name may occur more than once: the last one counts.
    """
    entries: list[Entry] = []
    warnings: list[str] = []
    for line, content in logical_lines(text):
        if content[0] in SPACES:
            warnings.append(f'{file}: logical line must not start with whitespace: "{content}"')
            continue
        try:
            name, value = split_name_value(content)
        except ValueError as error:
            raise ConfigError(f'{file}, line {line}: {error}: "{content}"') from None
        entries.append(Entry(name, value, file, line))
    return tuple(entries), tuple(warnings)
