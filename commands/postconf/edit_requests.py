"""What the arguments of -e, -X and -# ask to change, checked before a file is touched."""

from __future__ import annotations

import os

from commands.postconf import editing, master_view
from libmail.config import ConfigError
from libmail.config.edited_file import edit_file
from libmail.config.main_cf import SPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from commands.postconf.options import Request

__all__ = ["edit"]


def edit(request: Request) -> None:
    """Change main.cf or master.cf."""
    change = editing.Change(request.edit)
    if not request.arguments:
        if change is editing.Change.SET:
            raise ConfigError("-e requires name=value argument")
        raise ConfigError("missing service argument")
    name = "main.cf" if request.target == "p" else "master.cf"
    for argument in request.arguments:
        editing.check_argument(argument, name)
    path = os.path.join(request.directory, name)
    match request.target:
        case "M":
            entries = dict(_entry_change(text, change) for text in request.arguments)
            edit_file(path, lambda old: editing.edit_master_entries(old, change, entries))
        case "F":
            fields = [_field_change(text, "Fe", "field_name") for text in request.arguments]
            edit_file(path, lambda old: editing.edit_master_fields(old, fields))
        case "P":
            options = [_option_change(text, change) for text in request.arguments]
            edit_file(path, lambda old: editing.edit_master_options(old, options))
        case _:
            settings = editing.name_values(request.arguments, change)
            edit_file(path, lambda old: editing.edit_main(old, change, settings, path))


def _entry_change(
    text: str, change: editing.Change
) -> tuple[tuple[str, str], master_view.MasterLine | None]:
    pattern, _, value = text.partition("=")
    parts = pattern.strip(SPACES).split("/")
    if len(parts) != 2 or not all(parts):
        raise ConfigError("-Me, -MX or -M# requires service_name/type")
    key = parts[0], parts[1]
    if change is not editing.Change.SET:
        if "=" in text:
            raise ConfigError("-MX or -M# requires service_name/type without value")
        return key, None
    if "=" not in text:
        raise ConfigError(f"missing '=' after attribute name: \"{text}\"")
    try:
        return key, master_view.parse_entry(value.strip(SPACES))
    except ValueError as error:
        raise ConfigError(f'{error}: "{text}"') from None


def _field_change(text: str, option: str, what: str) -> tuple[tuple[str, str, str], str]:
    pattern, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"missing '=' after attribute name: \"{text}\"")
    parts = pattern.strip(SPACES).split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise ConfigError(f"-{option} or -{option[0]}X requires service_name/type/{what}")
    return (parts[0], parts[1], parts[2]), value.strip(SPACES)


def _option_change(text: str, change: editing.Change) -> tuple[tuple[str, str, str], str | None]:
    removing = change is editing.Change.REMOVE
    key, value = _field_change(text + "=" if removing else text, "Pe", "parameter")
    if key[2] == "*":
        raise ConfigError("-Pe does not accept wild-card parameter name")
    if any(space in value for space in SPACES):
        raise ConfigError("-Pe does not accept whitespace in parameter value")
    return key, None if removing else value
