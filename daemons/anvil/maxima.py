"""The highest numbers since they were logged last, and when they were reached."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["Maxima", "Statistics"]

_COUNT: Final = "connection count"
_ORDER: Final = (
    "connection rate", _COUNT, "message rate", "recipient rate", "newtls rate", "auth rate",
)  # fmt: skip


class _Maximum(NamedTuple):
    """The highest value of a kind: whose, and when it was reached (of the epoch)."""

    value: int
    ident: str
    when: float


class Statistics(NamedTuple):
    """The highest of some number since the last such line. what: number and whose it was."""

    what: str

    def text(self) -> str:
        """`statistics: max connection rate 3/60s for (smtp:1.2.3.4) at Nov  3 12:00:00`."""
        return f"statistics: {self.what}"


class Maxima:
    """What `lines` tells. unit: seconds of a rate. wall: of the epoch."""

    def __init__(self, unit: float, wall: Callable[[], float]) -> None:
        self._unit = unit
        self._wall = wall
        self._maxima: dict[str, _Maximum] = {}
        self._clients: _Maximum | None = None

    def note_rate(self, event: str, value: int, ident: str) -> None:
        """A client has had so many events of a kind in the unit."""
        self._note("connection rate" if event == "connect" else f"{event} rate", value, ident)

    def note_connections(self, value: int, ident: str) -> None:
        """A client has so many connections."""
        self._note(_COUNT, value, ident)

    def note_clients(self, value: int) -> None:
        """So many clients are known."""
        if self._clients is None or value > self._clients.value:
            self._clients = _Maximum(value, "", self._wall())

    def _note(self, title: str, value: int, ident: str) -> None:
        known = self._maxima.get(title)
        if known is None or value > known.value:
            self._maxima[title] = _Maximum(value, ident, self._wall())

    def lines(self) -> list[str]:
        """Lines for the log, about the time since they were asked for last."""
        lines = []
        for title in _ORDER:
            found = self._maxima.get(title)
            if found is not None:
                unit = "" if title == _COUNT else f"/{self._unit:.0f}s"
                lines.append(
                    f"max {title} {found.value}{unit} for ({found.ident}) at {_stamp(found.when)}"
                )
        if self._clients is not None:
            lines.append(f"max cache size {self._clients.value} at {_stamp(self._clients.when)}")
        self._maxima, self._clients = {}, None
        return lines


def _stamp(when: float) -> str:
    """As in the head of a log line, "Nov  3 12:00:00", in local time."""
    local = time.localtime(when)
    return f"{time.strftime('%b', local)} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"
