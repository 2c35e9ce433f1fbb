"""tls_config_file and tls_config_name: which configuration of OpenSSL counts for a process.

The library has read its own file long before we are asked: Python's hashlib sees to that. What that
file says is undone where another one, or none, is to count. Called before contexts are made.
"""

from __future__ import annotations

from typing import Final

from libmail.tls.errors import TlsConfigError
from libmail.tls.library import CRYPTO, FFI, clear_problems, problems

__all__ = ["use_config_file"]

_OUR_NAME: Final = "postfix"
_IGNORE_MISSING_FILE: Final = 0x10
_FALL_BACK: Final = 0x20  # to the section of the library itself (openssl_conf)


def use_config_file(file: str, name: str) -> None:
    """Raises TlsConfigError: TLS cannot be used then.

    file: "default", "none" or a full name. name: of an application, "" for ours.
    """
    clear_problems()
    if file == "none":
        CRYPTO.CONF_modules_finish()
        return
    default = file == "default"
    if not default and not file.startswith("/"):
        reason = f"non-default tls_config_file = {file} is not an absolute pathname"
        raise TlsConfigError(f"{reason}, disabling TLS support")
    if not default:
        CRYPTO.CONF_modules_finish()
    path = FFI.NULL if default else file.encode("utf-8", "surrogateescape")
    flags = (_FALL_BACK if not name else 0) | (_IGNORE_MISSING_FILE if default else 0)
    application = name or _OUR_NAME
    if CRYPTO.CONF_modules_load_file(path, application.encode(), flags) <= 0 and not (
        default and not name  # as if there were no such file: that is what everybody else has
    ):
        where = "default" if default else file
        reason = f"error loading the '{application}' settings from the {where} OpenSSL"
        raise TlsConfigError(f"{reason} configuration file, disabling TLS support", problems())
    clear_problems()
