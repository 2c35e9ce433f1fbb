"""What smtp-sink(1) counts, shows, and ends after."""

import sys
from collections.abc import Callable

from commands.smtp_sink.settings import Settings

__all__ = ["Counters"]


class Counters:
    """Of sessions that have ended, QUIT commands and messages."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sessions = 0
        self._quits = 0
        self._messages = 0
        self._enough: Callable[[], None] = lambda: None

    def when_enough(self, enough: Callable[[], None]) -> None:
        """What to do after as many messages or sessions as were asked for."""
        self._enough = enough

    def session(self) -> None:
        """A session is over."""
        self._sessions += 1
        self._show()
        if self._sessions == self._settings.enough_sessions:
            self._enough()

    def quit(self) -> None:
        """A client says goodbye."""
        self._quits += 1
        self._show()

    def message(self) -> None:
        """A message is complete."""
        self._messages += 1
        self._show()
        if self._messages == self._settings.enough_messages:
            self._enough()

    def _show(self) -> None:
        if self._settings.counting:
            text = f"sess={self._sessions} quit={self._quits} mesg={self._messages}\r"
            sys.stdout.write(text)
            sys.stdout.flush()

    def finish(self) -> None:
        """There will be no more."""
        if self._settings.counting:
            sys.stdout.write("\n")
