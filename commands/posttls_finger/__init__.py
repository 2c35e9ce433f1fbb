"""posttls-finger(1): what is the TLS of a server like, and would it get mail?

Asks: DNS, the server. Writes: nothing. Tells: standard output. It does what smtp(8) does, with the
same decisions, and options in place of the tables.
"""

from __future__ import annotations

import getopt
from collections.abc import Sequence

from libmail.config import ConfigError
from libmail.log import Fatal
from libmail.text.mistakes import option_mistake
from libmail.text.printable import complain

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run posttls-finger; returns the exit status. arguments: without the program's name."""
    from commands.posttls_finger.settings import USAGE, read_options

    try:
        from commands.posttls_finger.probe import probe

        probe(read_options(arguments))
    except getopt.GetoptError as error:
        complain("posttls-finger", option_mistake(error))
        complain("posttls-finger", f"fatal: {USAGE}")
        return 1
    except (Fatal, ConfigError) as error:
        complain("posttls-finger", f"fatal: {error}")
        return 1
    return 0
