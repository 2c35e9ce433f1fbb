"""An OAuth account: who we are to a token server, and where that is.

A file of oauth2_directory, in the format of main.cf, in which `$` means nothing. Its name is that
of the account, by which smtp_sasl_password_maps refers to it: `user:{oauth2}account`. The refresh
token is not in it, as servers replace that at will (`libmail.oauth.store`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from libmail.config.main_cf import parse_main_cf
from libmail.files.safe_open import safe_open
from libmail.net.http import Url, parse_url

__all__ = [
    "MARK",
    "PROVIDERS",
    "Account",
    "AccountError",
    "account_names",
    "account_text",
    "parse_account",
    "read_account",
    "valid_account",
]

MARK: Final = "{oauth2}"
"""Begins the password of an entry that names an account."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}")
_LARGEST: Final = 1 << 16  # octets of a file
_MOST: Final = 1000  # accounts
_TEXT: Final = re.compile(r"[ -~]{0,4096}")

PROVIDERS: Final[Mapping[str, Mapping[str, str]]] = {
    "google": {
        "token_endpoint": "https://oauth2.googleapis.com/token",
        "device_endpoint": "https://oauth2.googleapis.com/device/code",
        "scope": "https://mail.google.com/",
    },
    "microsoft": {
        "token_endpoint": "https://login.microsoftonline.com/common/oauth2/v2.0/token",
        "device_endpoint": "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
        "scope": "https://outlook.office.com/SMTP.Send offline_access",
    },
}
"""What an account need not say itself."""

_SETTINGS: Final = frozenset(
    ("provider", "token_endpoint", "device_endpoint", "client_id", "client_secret", "scope",
     "authorities")
)  # fmt: skip


class AccountError(Exception):
    """A file of an account cannot be used. The text names it, and none of its secrets."""


@dataclass(frozen=True, slots=True)
class Account:
    """One of them. device: None where there is no such server. authorities: a file of certificates
    that the server's is verified with, "" for the system's. The repr has no secret."""

    name: str
    token: Url
    device: Url | None
    client_id: str
    client_secret: str
    scope: str
    authorities: str = ""

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    def identity(self) -> dict[str, str]:
        """Who we are, in a request, RFC 6749 §2.3.1."""
        secret = {"client_secret": self.client_secret} if self.client_secret else {}
        return {"client_id": self.client_id, **secret}


def valid_account(name: str) -> bool:
    """Whether this can be the name of an account, and of a file."""
    return _NAME.fullmatch(name) is not None


def account_names(directory: str) -> list[str]:
    """The accounts that have a file, [] where there is no such directory. Raises AccountError."""
    try:
        names = sorted(name for name in os.listdir(directory) if valid_account(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AccountError(f"{directory}: {error.strerror}") from None
    return names[:_MOST]


def read_account(directory: str, name: str) -> Account:
    """Read the file of an account. Raises AccountError."""
    path = f"{directory}/{name}"
    try:
        with open(safe_open(path, os.O_RDONLY), "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o026:
                raise AccountError(f"{path}: others than its owner may read or change it")
            data = file.read(_LARGEST)
    except OSError as error:
        raise AccountError(f"open {path}: {error.strerror}") from None
    return parse_account(name, data.decode("utf-8", "replace"), path)


def parse_account(name: str, text: str, path: str) -> Account:
    """The account of a file's text. Raises AccountError."""
    entries, warnings = parse_main_cf(text, path)
    if warnings:
        raise AccountError(warnings[0])
    found = {entry.name: entry.value for entry in entries}
    unknown = sorted(found.keys() - _SETTINGS)
    if unknown:
        raise AccountError(f"{path}: unknown setting: {unknown[0]}")
    provider = found.get("provider", "")
    if provider and provider not in PROVIDERS:
        raise AccountError(f"{path}: unknown provider: {provider}")
    values = {**PROVIDERS.get(provider, {}), **found}
    for key, value in values.items():
        if not _TEXT.fullmatch(value):
            raise AccountError(f"{path}: {key}: not plain text")
    for required in ("client_id", "token_endpoint"):
        if not values.get(required):
            raise AccountError(f"{path}: {required} is missing")
    return Account(
        name,
        _url(path, "token_endpoint", values["token_endpoint"]),
        _url(path, "device_endpoint", device)
        if (device := values.get("device_endpoint"))
        else None,
        values["client_id"],
        values.get("client_secret", ""),
        values.get("scope", ""),
        values.get("authorities", ""),
    )


def _url(path: str, key: str, text: str) -> Url:
    try:
        return parse_url(text)
    except ValueError as error:
        raise AccountError(f"{path}: {key}: {error}") from None


def account_text(settings: Mapping[str, str]) -> str:
    """The text of a file with these settings; what is empty is left out."""
    return "".join(f"{name} = {value}\n" for name, value in settings.items() if value)
