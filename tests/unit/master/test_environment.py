"""The environment of daemons, which they get from master."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmail.config import open_config
from master.main import clean_environment


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    kept = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(kept)
    time.tzset()


def test_a_time_zone_holds_at_once(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("import_environment = TZ=XXX-5:45 KEPT\n")
    os.environ |= {"KEPT": "1", "OTHER": "2"}
    clean_environment(open_config(str(tmp_path)))
    assert time.strftime("%z %Z", time.localtime(0)) == "+0545 XXX"
    assert (os.environ.get("KEPT"), os.environ.get("OTHER")) == ("1", None)
