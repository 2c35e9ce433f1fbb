"""Changing the text of main.cf and master.cf: everything that is not asked for stays as it is."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from commands.postconf.master_view import MasterLine, check_field, matches, parse_entry
from commands.postconf.report import warn
from libmail.config import ConfigError
from libmail.config.main_cf import SPACES, split_name_value
from libmail.config.master_words import COLUMNS, split_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Change", "edit_main", "edit_master_entries", "edit_master_fields",
           "edit_master_options", "name_values"]  # fmt: skip

OPTIONS = {
    "main.cf": "-e, -X, or -# accepts",
    "master.cf": "-Me, -Fe, -Pe, -X, or -# accept",
}


class Change(Enum):
    """What happens to the settings or entries named."""

    SET = "e"
    REMOVE = "X"
    COMMENT = "#"


def name_values(arguments: Sequence[str], change: Change) -> dict[str, str]:
    """The names to change, with values for SET. Raises ConfigError."""
    found: dict[str, str] = {}
    for argument in arguments:
        name, value = _name_value(argument, change)
        if name in found and change is Change.SET:
            warn(f"ignoring earlier request: '{name} = {found[name]}'")
            del found[name]
        found[name] = value
    return found


def _name_value(argument: str, change: Change) -> tuple[str, str]:
    check_argument(argument)
    if change is not Change.SET:
        name = argument.strip(SPACES)
        if "=" in name:
            raise ConfigError("-X or -# requires names without value")
        if not name:
            raise ConfigError("-X or -# requires non-blank parameter names")
        return name, ""
    try:
        return split_name_value(argument)
    except ValueError as error:
        raise ConfigError(f'{error}: "{argument.strip(SPACES)}"') from None


def check_argument(argument: str, file: str = "main.cf") -> None:
    """Raise ConfigError for an argument that would become more or less than one setting."""
    if "\n" in argument:
        raise ConfigError(f"{OPTIONS[file]} no multi-line input")
    if "\0" in argument:
        raise ConfigError(f"{OPTIONS[file]} no null bytes")
    if argument.lstrip(SPACES).startswith("#"):
        raise ConfigError(f"{OPTIONS[file]} no comment input")


def edit_main(text: str, change: Change, settings: Mapping[str, str], file: str) -> str:
    """main.cf with the settings changed; new ones come at the end."""
    seen: set[str] = set()
    lines: list[str] = []
    for name, block in _blocks(text, _setting_name):
        if name is None or name not in settings:
            lines.extend(block)
            continue
        if name in seen:
            warn(f'{file}: multiple entries for "{name}"')
        seen.add(name)
        value = f"{name} = {settings[name]}" if change is Change.SET else None
        lines.extend(_changed(block, change, value))
    if change is Change.SET:
        missing = settings.keys() - seen
        new = [f"{n} = {v}" for n, v in settings.items() if n in missing]
        return _joined(lines, new)
    return "".join(lines)


def edit_master_entries(
    text: str, change: Change, entries: Mapping[tuple[str, str], MasterLine | None]
) -> str:
    """master.cf with the entries (name, type) replaced, removed or commented out; "*" is any."""
    seen: set[tuple[str, str]] = set()
    lines: list[str] = []
    for key, block in _blocks(text, _entry_key):
        hits = [one for one in entries if key is not None and matches(MasterLine(key), *one)]
        if not hits:
            lines.extend(block)
            continue
        entry = entries[hits[-1]]
        twice, value = hits[-1] in seen, entry.text(True) if entry is not None else None
        seen.update(hits)
        lines.extend(_changed(block, change, None if twice else value))
    new = [e.text(True) for key, e in entries.items() if e is not None and key not in seen]
    return _joined(lines, new) if new else "".join(lines)


def edit_master_fields(text: str, settings: Sequence[tuple[tuple[str, str, str], str]]) -> str:
    """master.cf with ((service, type, column), value) changed in all entries that match."""
    edits: list[_EntryEdit] = []
    for (name, kind, column), value in settings:
        if column == "*":
            raise ConfigError("-Fe does not accept wild-card field name")
        if column not in COLUMNS:
            raise ConfigError(f'invalid service attribute name: "{column}"')
        position = COLUMNS.index(column)
        if position < 7:
            if any(space in value for space in SPACES):
                raise ConfigError("-Fe does not accept whitespace in non-command field")
            check_field(position, value, value)
        edits.append((name, kind, f"{name}/{kind}/{column}={value}", _set_field(position, value)))
    return _edit_matching(text, edits)


def edit_master_options(
    text: str, settings: Sequence[tuple[tuple[str, str, str], str | None]]
) -> str:
    """master.cf with ((service, type, parameter), value) set, or removed where it is None."""
    edits = [
        (name, kind, _request(name, kind, parameter, value), _set_option(parameter, value))
        for (name, kind, parameter), value in settings
    ]
    return _edit_matching(text, edits)


if TYPE_CHECKING:
    _EntryEdit = tuple[str, str, str, Callable[[MasterLine], MasterLine]]


def _request(name: str, kind: str, parameter: str, value: str | None) -> str:
    text = f"{name}/{kind}/{parameter}"
    return text if value is None else f"{text}={value}"


def _set_option(parameter: str, value: str | None) -> Callable[[MasterLine], MasterLine]:
    return lambda entry: entry.with_option(parameter, value)


def _set_field(position: int, value: str) -> Callable[[MasterLine], MasterLine]:
    def change(entry: MasterLine) -> MasterLine:
        if position < 7:
            columns = (*entry.fields[:position], value, *entry.fields[position + 1 :])
            return MasterLine(columns, entry.args)
        if not value.strip(SPACES):
            raise ConfigError('field "command" must not be empty')
        return parse_entry(" ".join((*entry.fields[:7], value)))

    return change


def _edit_matching(text: str, edits: Sequence[_EntryEdit]) -> str:
    used: set[str] = set()
    lines: list[str] = []
    for key, block in _blocks(text, _entry_key):
        hits = [edit for edit in edits if key is not None and _hit(key, edit)]
        if not hits:
            lines.extend(block)
            continue
        entry = _parse_block(block)
        for _, _, request, change in hits:
            entry = change(entry)
            used.add(request)
        lines.extend(_changed(block, Change.SET, entry.text(True), True))
    for _, _, request, _ in edits:
        if request not in used:
            warn(f'unmatched service_name/type: "{request}"')
    return "".join(lines)


def _hit(key: tuple[str, str], edit: _EntryEdit) -> bool:
    return matches(MasterLine(key), edit[0], edit[1])


def _parse_block(block: Sequence[str]) -> MasterLine:
    content = "".join(line.rstrip("\n") for line in block if not _is_comment(line))
    try:
        return parse_entry(content.strip(SPACES))
    except ValueError as error:
        raise ConfigError(f'{error}: "{content}"') from None


def _changed(
    block: Sequence[str], change: Change, value: str | None, at_end: bool = False
) -> list[str]:
    """The lines of a setting after the change; comments between them stay."""
    if change is Change.COMMENT:
        return [line if _is_comment(line) else f"#{line}" for line in block]
    kept = [line for line in block if _is_comment(line)]
    if value is None:
        return kept
    return [*kept, value + "\n"] if at_end else [value + "\n", *kept]


def _blocks(text: str, name_of: Callable[[str], _Key]) -> Iterator[tuple[_Key | None, list[str]]]:
    """(name, lines) of every setting; (None, lines) of comments and whatever is in between.

    Lines keep their ends. The comments behind a setting's last line belong to no setting.
    """
    lines = _split(text)
    position = 0
    while position < len(lines):
        start = position
        position += 1
        if _is_comment(lines[start]) or lines[start][0] in SPACES:
            yield None, lines[start:position]
            continue
        last = position
        while position < len(lines):
            if not _is_comment(lines[position]):
                if lines[position][0] not in SPACES:
                    break
                last = position + 1
            position += 1
        position = last
        yield name_of(lines[start]), lines[start:last]


if TYPE_CHECKING:
    from typing import TypeVar

    _Key = TypeVar("_Key")


def _split(text: str) -> list[str]:
    lines = text.split("\n")
    ended = [line + "\n" for line in lines[:-1]]
    return [*ended, lines[-1]] if lines[-1] else ended


def _is_comment(line: str) -> bool:
    stripped = line.lstrip(SPACES)
    return not stripped or stripped[0] == "#"


def _setting_name(line: str) -> str:
    name = line.partition("=")[0]
    for space in SPACES:
        name = name.partition(space)[0]
    return name


def _entry_key(line: str) -> tuple[str, str]:
    words = split_words(line)
    return words[0], words[1] if len(words) > 1 else ""


def _joined(lines: Sequence[str], new: Sequence[str]) -> str:
    text = "".join(lines)
    if text and new and not text.endswith("\n"):
        text += "\n"
    return text + "".join(f"{line}\n" for line in new)
