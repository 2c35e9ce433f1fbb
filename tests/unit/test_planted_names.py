"""No code that root runs opens a file by its name alone, but for what is listed here with a reason.

The rooms below are those that run as root: commands of root, master, what daemons open before their
jail. libmail/files/safe_open.py says what is wrong with names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
ROOMS: Final = (
    "commands/postfix", "commands/postsuper/spool.py", "daemons/postlogd.py",
    "daemons/tablewatch",
    "libmail/dsn", "libmail/log", "libmail/lookup", "libmail/net", "libmail/service",
    "libmail/tables", "libmail/tls", "master",
)  # fmt: skip
BY_NAME: Final = frozenset(
    {"open", "os.open", "os.chmod", "os.chown", "os.utime", "os.truncate", "shutil.copyfile"}
)

# (file, function): why a name will do.
FINE: Final = {
    ("libmail/tables/disk/lmdb_cache.py", "__init__"): "acting as mail_owner",
    ("libmail/tables/disk/lmdb_writer.py", "_create"): "exclusive, beside a place that was checked",
    ("libmail/tables/disk/cdb_file.py", "write_cdb"): "exclusive, beside a place that was checked",
    ("libmail/tables/building/command_line.py", "run"): "/dev/null",
    ("libmail/tables/builtin/unix.py", "_lines"): "/etc",
    ("libmail/lookup/authorization.py", "__init__"): "/etc",
    ("libmail/service/memory.py", "limit_memory"): "/proc",
    ("libmail/tls/traces.py", "write"): "tlsmgr, which is mail_owner for good; exclusive",
    ("daemons/postlogd.py", "prepare"): "/dev/null",
    ("master/main.py", "main"): "/dev/null",
    ("master/endpoints.py", "_open_fifo"): "acting as mail_owner",
}


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """(file, function) for each call that takes a name, and no descriptor of a directory."""
    tree = ast.parse(path.read_bytes())
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in BY_NAME:
                continue
            words = {word.arg for word in node.keywords}
            first = ast.unparse(node.args[0]) if node.args else ""
            if words & {"opener", "dir_fd", "closefd"} or first.startswith("safe_open("):
                continue
            if first not in ("fd", "table", "reading"):
                yield str(path.relative_to(ROOT)), function.name


def test_what_is_opened_by_its_name() -> None:
    files = [
        path
        for room in ROOMS
        for path in ([ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py")))
    ]
    assert len(files) > 60
    found = {one for path in files for one in calls(path)}
    assert found - FINE.keys() == set()
    assert FINE.keys() - found == set()
