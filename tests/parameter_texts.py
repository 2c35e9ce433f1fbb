"""Reads libmail/config/parameters/docs: what each parameter is for, in words.

A file has the texts of the area of the same name (families.txt those of
libmail.config.families, restrictions.txt those of smtpd's restrictions). A line that begins at the
margin names a parameter, or says `name (as other)` for one that is what another is, for another
program; the indented lines below are its paragraphs, and those that are indented further an
example. The name of a restriction is followed by its argument. `literals` are in backquotes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["FOLDER", "Block", "Text", "parse", "read_all"]

FOLDER: Final = Path(__file__).resolve().parents[1] / "libmail/config/parameters/docs"
_HEADING: Final = re.compile(r"(\w+)(?: \(as (\w+)\)| ([\w:=]+))?")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9$`<])")


class Block(NamedTuple):
    """A paragraph, or (example) lines that stay as they are."""

    text: str
    example: bool = False

    def sentences(self) -> list[str]:
        """What a paragraph consists of; a few sentences may come as one."""
        return [part for part in _SENTENCE_END.split(self.text) if part]


class Text(NamedTuple):
    """What is said about a parameter. other: the one whose text applies, too, or ""."""

    name: str
    other: str
    blocks: tuple[Block, ...]
    argument: str = ""


def parse(source: str) -> dict[str, Text]:
    """The texts of a file, by name. Raises ValueError for what has no place in it."""
    found: dict[str, Text] = {}
    for section in re.split(r"^(?=\S)", source, flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        match = _HEADING.fullmatch(heading)
        if match is None:
            raise ValueError(f"neither a name nor indented: {heading}")
        if match[1] in found:
            raise ValueError(f"twice: {heading}")
        found[match[1]] = Text(match[1], match[2] or "", tuple(_blocks(body)), match[3] or "")
    return found


def _blocks(body: str) -> list[Block]:
    parts = (part for part in re.split(r"\n{2,}", body.strip("\n")) if part.strip())
    return [_block([line[4:] for line in part.split("\n")]) for part in parts]


def _block(lines: list[str]) -> Block:
    if all(line.startswith("    ") for line in lines):
        return Block("\n".join(line[4:] for line in lines), example=True)
    return Block(" ".join(line.strip() for line in lines))


def read_all() -> dict[str, dict[str, Text]]:
    """The texts of all files, by the files' names without suffix."""
    return {path.stem: parse(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.txt"))}
