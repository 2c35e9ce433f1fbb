"""postfix oauth2: have the owner of a mailbox agree that we log in as him (RFC 8628).

Writes: the account's file in oauth2_directory, if there is none yet; its refresh token, below
data_directory, with the rights of mail_owner. oauth2(8) takes it from there.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from commands.postfix.report import info
from libmail.config import Config
from libmail.files.safe_open import safe_open
from libmail.log import Fatal
from libmail.oauth.account import (
    MARK,
    PROVIDERS,
    Account,
    AccountError,
    account_names,
    account_text,
    parse_account,
    read_account,
    valid_account,
)
from libmail.oauth.answers import Device, Tokens, Trouble, Why, is_token
from libmail.oauth.endpoint import TokenEndpoint
from libmail.oauth.store import Busy, TokenStore
from libmail.privileges import acting_as
from libmail.service.account import mail_account

__all__ = ["agree", "until_agreed"]

_USAGE: Final = "usage: postfix oauth2 account [token]"
_SLOWER: Final = 5.0  # seconds, RFC 8628 §3.5
_BUSY_LIMIT: Final = 60.0  # seconds in which oauth2(8) may use the old token
_BUSY_PAUSE: Final = 0.2


def agree(config: Config, words: list[str]) -> None:
    """Get a refresh token for an account, and keep it. Raises Fatal, ConfigError.

    words: the account, and `token` if somebody has one already.
    """
    if len(words) not in (1, 2) or words[1:] not in ([], ["token"]):
        raise Fatal(_USAGE)
    name, given = words[0], len(words) == 2
    if not valid_account(name):
        raise Fatal(f"not a name of an account: {name!a}")
    directory = config.text("oauth2_directory")
    try:
        new = name not in account_names(directory)
        if new:
            _write_account(directory, name)
        account = read_account(directory, name)
        endpoint = TokenEndpoint(account, config.text("mail_name"))
    except AccountError as error:
        raise Fatal(str(error)) from None
    token = _secret("Refresh token: ") if given else asyncio.run(_consent(endpoint))
    if not is_token(token):
        raise Fatal("not a refresh token")
    _keep(config, account, token)
    info(f"account {name}: the refresh token is kept")
    if new:
        print(f"In a table of smtp_sasl_password_maps, the password is {MARK}{name}:")
        print(f"    [server]:587  user:{MARK}{name}")
        print('Then use "postfix reload".')


# the account


def _write_account(directory: str, name: str) -> None:
    """Ask for the settings of a new account, and write its file. Raises Fatal, AccountError."""
    path = f"{directory}/{name}"
    provider = _asked(f"Provider ({', '.join(PROVIDERS)}, or the token server's https address): ")
    settings = {"provider": provider}
    if provider not in PROVIDERS:
        settings = {
            "token_endpoint": provider,
            "device_endpoint": _asked("Address where devices are authorized (may be empty): "),
            "scope": _asked("Scope (may be empty): "),
        }
    settings["client_id"] = _asked("Client id: ")
    settings["client_secret"] = _secret("Client secret (may be empty): ")
    text = account_text(settings)
    parse_account(name, text, path)
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(safe_open(path, flags), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Fatal(f"{path}: {error.strerror}") from None


def _asked(question: str) -> str:
    """A line of the terminal or standard input. Raises Fatal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    try:
        return input(question).strip()
    except (EOFError, KeyboardInterrupt):
        raise Fatal("nothing was written") from None


def _secret(question: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    try:
        return getpass.getpass(question).strip()
    except (EOFError, KeyboardInterrupt):
        raise Fatal("nothing was written") from None


# the consent


async def _consent(endpoint: TokenEndpoint) -> str:
    """Show where to agree, and wait for it; the refresh token. Raises Fatal."""
    try:
        device = await endpoint.device()
        print(
            f"Open {device.address} in a browser and enter the code {device.user_code}", flush=True
        )
        tokens = await until_agreed(device, endpoint.agreed, time.monotonic, asyncio.sleep, info)
    except Trouble as trouble:
        raise Fatal(f"nobody has agreed: {trouble}") from None
    if not tokens.refresh:
        raise Fatal("the token server gave no refresh token: does the scope ask for one?")
    return tokens.refresh


async def until_agreed(
    device: Device,
    ask: Callable[[Device], Awaitable[Tokens]],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    tell: Callable[[str], None],
) -> Tokens:
    """Ask at the pace that the server wants until somebody has agreed. Raises Trouble.

    A server that cannot be reached is asked half as often each time, RFC 8628 §3.5.
    """
    interval, end = device.interval, clock() + device.life
    while clock() < end:
        await sleep(interval)
        try:
            return await ask(device)
        except Trouble as trouble:
            if trouble.why is Why.SLOWER:
                interval += _SLOWER
            elif trouble.why in (Why.BROKEN, Why.THROTTLED):
                tell(f"{trouble}; trying again")
                interval = max(2 * interval, trouble.pause)
            elif trouble.why is not Why.PENDING:
                raise
    raise Trouble(Why.CONSENT, "the code has expired")


def _keep(config: Config, account: Account, token: str) -> None:
    """Raises Fatal."""
    owner, _ = mail_account(config)
    store = TokenStore(config.text("data_directory"))
    end = time.monotonic() + _BUSY_LIMIT
    while True:
        try:
            with acting_as(owner), store.locked(account.name):
                store.write(account.name, token)
        except Busy:
            if time.monotonic() > end:
                raise Fatal(f"account {account.name}: somebody else uses it") from None
            time.sleep(_BUSY_PAUSE)
        except OSError as error:
            raise Fatal(f"cannot keep the refresh token: {error.strerror}") from None
        else:
            return
