"""Decisions that can be explained: restrictions, and the lookup context that they ask.

A decision gets facts and a `Lookups`, and returns what is to be done; it does nothing itself. So
smtpd(8) and `postfix explain` run the same code, and a recorded session can be decided again
against another configuration.
"""

from libmail.lookup.context import Asked, LiveLookups, LookupFailure, Lookups, ReplayedLookups

__all__ = ["Asked", "LiveLookups", "LookupFailure", "Lookups", "ReplayedLookups"]
