"""postscreen's configuration for tests, and its log."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from daemons.postscreen.prepared import Prepared, prepare
from libmail.config import open_config
from libmail.log import LOG

__all__ = ["World"]

OWNER = pwd.getpwuid(os.geteuid()).pw_name


class World:
    """logged: what it said."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._caches = 0
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/postscreen")

    def prepared(self, **settings: str) -> Prepared:
        self._caches += 1
        usual = {
            "compatibility_level": "3.6",
            "mail_owner": OWNER,
            "myhostname": "mail.test",
            "data_directory": str(self.top),
            "postscreen_cache_map": f"lmdb:{self.top}/cache{self._caches}",
        }
        lines = [f"{name} = {value}" for name, value in {**usual, **settings}.items()]
        (self.top / "main.cf").write_text("\n".join([*lines, ""]))
        (self.top / "master.cf").write_text("25 inet n - n - 1 postscreen\n")
        return prepare(open_config(str(self.top)))
