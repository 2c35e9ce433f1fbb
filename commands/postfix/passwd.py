"""postfix passwd: give a login of smtpd_sasl_type = table a password.

Writes: the source of the table, which only its owner may read afterwards; has postmap(1) index it.
The password is read from the terminal, twice, or from a line of standard input; only its hash is
kept, see libmail.sasl.passwords.
"""

from __future__ import annotations

import getpass
import io
import os
import re
import subprocess
import sys
from typing import Final

from libmail.config import Config, read_master_cf
from libmail.config.edited_file import edit_file
from libmail.config.programs import program_directory
from libmail.files.safe_open import safe_open
from libmail.log import Fatal
from libmail.sasl.passwords import hash_password
from libmail.tables.registry import split_spec, without_proxy
from libmail.tables.table import TableConfigError

__all__ = ["set_password", "with_entry"]

_INDEXED: Final = ("btree", "cdb", "dbm", "hash", "lmdb")
_PLAIN: Final = "texthash"
# What stands in a source, and in an SMTP session, without quotes.
_LOGIN: Final = re.compile(r'[^\s"\\#\x00-\x1f\x7f][^\s"\\\x00-\x1f\x7f]{0,254}')
_BLANK: Final = " \t\r\v\f"


def set_password(config: Config, login: str) -> None:
    """Ask for a password, and write its hash into the table. Raises Fatal, ConfigError."""
    if not _LOGIN.fullmatch(login):
        raise Fatal(f"not a login: {login!a}")
    spec = _table(config)
    kind, path = split_spec(spec)
    if kind not in (*_INDEXED, _PLAIN):
        raise Fatal(f"{spec}: postfix passwd changes no table of this type")
    try:
        entry = hash_password(_password())
    except ValueError as error:
        raise Fatal(str(error)) from None
    _make_secret(path)
    edit_file(path, lambda text: with_entry(text, login, entry))
    if kind in _INDEXED:
        program = program_directory(config, "command_directory") + "/postmap"
        done = subprocess.run([program, "-c", config.directory, spec], check=False)
        if done.returncode != 0:
            raise Fatal(f"{spec}: postmap could not index it")


def _table(config: Config) -> str:
    """The one that smtpd looks logins up in, by main.cf or by an entry of master.cf."""
    services = read_master_cf(config.directory)
    own = [config.override(one.overrides, service_name=one.name) for one in services]
    found = {
        without_proxy(each.text("smtpd_sasl_path"))
        for each in (config, *own)
        if each.text("smtpd_sasl_type") == "table"
    }
    if not found:
        raise Fatal("no service has smtpd_sasl_type = table")
    if len(found) > 1:
        raise Fatal(f"there is more than one table of logins: {' '.join(sorted(found))}")
    try:
        split_spec(spec := found.pop())
    except TableConfigError as error:
        raise Fatal(f"smtpd_sasl_path: {error}") from None
    return spec


def _password() -> str:
    """Raises Fatal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    try:
        first = getpass.getpass("Password: ")
        if first != getpass.getpass("Again: "):
            raise Fatal("these passwords differ")
    except (EOFError, KeyboardInterrupt):
        raise Fatal("no password was given") from None
    return first


def _make_secret(path: str) -> None:
    """Have a file, which is its owner's alone. Raises Fatal."""
    try:
        fd = safe_open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    except OSError as error:
        raise Fatal(f"open {path}: {error.strerror}") from None


def with_entry(text: str, login: str, value: str) -> str:
    """The source of a table with this entry, in place of others that the login has."""
    entry, out, ours = f"{login} {value}\n", list[str](), False
    for line in io.StringIO(text, newline="\n"):
        content = line.lstrip(_BLANK)
        if content.strip() and not content.startswith("#"):
            if content == line:  # not the rest of the line before
                ours = content.split(None, 1)[0].lower() == login.lower()
                if ours and entry:
                    out.append(entry)
                    entry = ""
            if ours:
                continue
        out.append(line)
    if entry:
        if out and not out[-1].endswith("\n"):
            out.append("\n")
        out.append(entry)
    return "".join(out)
