"""postconf: show and edit main.cf and master.cf. Needs: the configuration directory, no service.

Command line and output follow postconf(1). options: the command line; command_line: dispatch;
main_view and master_view: showing; templates_view: texts of notifications; usage and deprecated:
settings to warn about; edit_requests and editing: changing files in place; features: what the
system supports; origin: where values come from; report: warnings on standard error.
"""

from __future__ import annotations

from commands.postconf.command_line import main

__all__ = ["main"]
