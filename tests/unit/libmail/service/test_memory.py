"""The limit of memory of a service, tried in a process of its own."""

import subprocess
import sys
from pathlib import Path

ASK = """
import mmap, sys
from libmail.service.memory import limit_memory
table = open(sys.argv[1], "r+b")
before = mmap.mmap(table.fileno(), 0, prot=mmap.PROT_READ)  # as large as it likes
limit_memory(int(sys.argv[2]))
mail = bytearray(100 << 20)
try:
    much = bytearray(1 << 30)
except MemoryError:
    print("refused")
else:
    print("given")
"""


def ask(tmp_path: Path, allowance: int) -> str:
    table = tmp_path / "table"
    with table.open("wb") as file:
        file.truncate(8 << 30)
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(table), str(allowance)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return done.stdout.decode().strip()


def test_what_is_too_much_is_refused(tmp_path: Path) -> None:
    assert ask(tmp_path, 1 << 29) == "refused"


def test_no_limit(tmp_path: Path) -> None:
    assert ask(tmp_path, 0) == "given"
