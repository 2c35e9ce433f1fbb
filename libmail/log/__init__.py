"""Logging: `LOG`, the process's logger, and the events that it renders."""

from libmail.log.logger import LOG, Event, Fatal, Level, Logger
from libmail.text.printable import printable

__all__ = ["LOG", "Event", "Fatal", "Level", "Logger", "printable"]
