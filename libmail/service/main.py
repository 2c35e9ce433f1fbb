"""The entry of every program in the daemon directory except master.

Daemons are forked by master(8), which has them in memory; their files exist because scripts and
people look for them there, and for the stand-alone modes that some have (`smtpd -S`).
"""

import importlib
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

_BY_HAND = "do not run this command by hand"


def main(name: str, arguments: Sequence[str]) -> int:
    """Run the daemon's stand-alone mode if it has one. Returns the exit status.

    name: of the program, as in the last column of master.cf. A daemon with such a mode defines
    `run_standalone(arguments) -> int`, and -S as an option asks for it.
    """
    if "-S" in arguments:
        module = importlib.import_module(f"daemons.{name.replace('-', '_')}")
        run: Callable[[Sequence[str]], int] | None = getattr(module, "run_standalone", None)
        if run is not None:
            return run(arguments)
    sys.stderr.write(f"{name}: fatal: {_BY_HAND}\n")
    return 1
