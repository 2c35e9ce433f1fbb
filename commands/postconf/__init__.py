"""postconf: show and edit main.cf and master.cf. Needs: the configuration directory, no service.

Command line and output follow postconf(1). command_line: options and dispatch; main_view and
master_view: showing; templates_view: texts of notifications; editing: changing files in place;
report: warnings on standard error.
"""

from __future__ import annotations

from commands.postconf.command_line import main

__all__ = ["main"]
