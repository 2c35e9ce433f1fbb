"""make fuzz: run targets for some time each, one after the other.

python -m tests.fuzz [--seconds N] [--jobs N] [TARGET...]

With atheris (a development dependency where it can be installed) coverage guides the search, and
what it has found interesting is kept in `.fuzz/TARGET`; else hypothesis searches at random. Ends
with status 1 if a target has failed; the input stands in `.fuzz/TARGET.crash-...` or is printed.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

FOLDER: Final = Path(".fuzz")
ATHERIS: Final = """
import sys, atheris
with atheris.instrument_imports(include=["libmail", "daemons"]):
    from tests.fuzz.targets import TARGETS
run = TARGETS[sys.argv.pop(1)].run
atheris.Setup(sys.argv, lambda data: run(data))
atheris.Fuzz()
"""
HYPOTHESIS: Final = """
import sys, time
from tests.unit.test_fuzz import search_for
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    search_for(sys.argv[1], 2000, derandomize=False)
"""


def _with_atheris(name: str, seconds: int, words: Sequence[bytes]) -> list[str]:
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    dictionary = FOLDER / f"{name}.dict"
    escaped = ("".join(f"\\x{octet:02x}" for octet in word) for word in words)
    dictionary.write_text("".join(f'"{word}"\n' for word in escaped))
    return [
        sys.executable, "-c", ATHERIS, name, str(corpus), f"-dict={dictionary}",
        f"-max_total_time={seconds}", "-max_len=400", "-timeout=20", "-verbosity=0",
        f"-artifact_prefix={FOLDER}/{name}.crash-",
    ]  # fmt: skip


def _run(name: str, seconds: int) -> bool:
    """Whether nothing was found."""
    from tests.fuzz.targets import TARGETS

    if importlib.util.find_spec("atheris"):
        command = _with_atheris(name, seconds, TARGETS[name].words)
    else:
        command = [sys.executable, "-c", HYPOTHESIS, name, str(seconds)]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    print(
        f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s",
        flush=True,
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        print("\n".join([line for line in lines if not line.startswith("INFO: ")][-60:]))
    return done.returncode == 0


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        names = options.targets or list(TARGETS)
        return 0 if all(list(pool.map(lambda name: _run(name, options.seconds), names))) else 1


if __name__ == "__main__":
    sys.exit(main())
