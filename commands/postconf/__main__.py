"""`python -m commands.postconf`."""

from __future__ import annotations

import sys

from commands.postconf.command_line import main

sys.exit(main(sys.argv[1:]))
