"""The words of a master.cf entry, master(5): what the system and postconf(1) understand alike.

Loaded by short-lived commands, so it imports next to nothing.
"""

from __future__ import annotations

from libmail.config.main_cf import SPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COLUMNS", "SERVICE_TYPES", "options_end", "split_options", "split_words", "ungroup"]

SERVICE_TYPES = ("inet", "unix", "unix-dgram", "fifo", "pass")
COLUMNS = (
    "service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command",
)  # fmt: skip


def split_words(content: str) -> list[str]:
    """The words of an entry; a `{ group }` is one word, with its braces."""
    words: list[str] = []
    position = 0
    while True:
        while position < len(content) and content[position] in SPACES:
            position += 1
        if position == len(content):
            return words
        start, depth = position, 0
        grouped = content[start] == "{"
        while position < len(content) and (depth or content[position] not in SPACES):
            if grouped:
                depth += (content[position] == "{") - (content[position] == "}")
            position += 1
        words.append(content[start:position])


def ungroup(word: str) -> str:
    """The word without the braces of a group and the white space inside them.

    Raises ValueError for a group that does not end, or not with its closing brace.
    """
    if not word.startswith("{"):
        return word
    depth = 0
    for position, char in enumerate(word):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            if position + 1 != len(word):
                raise ValueError(f"syntax error after '}}' in \"{word}\"")
            return word[1:position].strip(SPACES)
    raise ValueError(f"missing '}}' in \"{word}\"")


def split_options(words: Sequence[str]) -> list[str]:
    """The arguments with each `-o` and its value as words of their own: `-vo a=b`, `-oa=b`."""
    end = options_end(words)
    found: list[str] = []
    value = False
    for word in words[:end]:
        if value or not word.startswith("-") or word == "--":
            found.append(word)
            value = False
            continue
        letters, option, rest = word[1:].partition("o")
        if letters or not option:
            found.append(f"-{letters}")
        if option:
            found += ["-o", rest] if rest else ["-o"]
            value = not rest
    return [*found, *words[end:]]


def options_end(words: Sequence[str]) -> int:
    """How many of the arguments are options; they end at the first word that is none.

    What follows belongs to the command, such as a `-o` behind the argv= of pipe(8).
    """
    position = 0
    while position < len(words) and (word := words[position]).startswith("-") and word != "-":
        position += 2 if word.find("o") == len(word) - 1 else 1
        if word == "--":
            break
    return min(position, len(words))
