"""Decisions that can be explained: restrictions, and the lookup context that they ask.

A decision gets facts and a `Lookups`, and returns what is to be done; it does nothing itself. So
a session that was recorded can be decided again, also against another configuration.
"""

from libmail.lookup.context import LiveLookups, LookupFailure, Lookups, Question
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups

__all__ = [
    "Asked",
    "LiveLookups",
    "LookupFailure",
    "Lookups",
    "Question",
    "RecordingLookups",
    "ReplayedLookups",
]
