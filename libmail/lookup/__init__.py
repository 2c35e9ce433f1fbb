"""Decisions without side effects: restrictions, routing, choice of servers; their lookup context.

A decision gets facts and a `Lookups`, and returns what is to be done; it does nothing itself. So a
recorded session can be decided again, also with another configuration.

context         the lookups that decisions may make; record: records and replays them
facts           what restrictions know about a session, and their verdict
restrictions    the stages of an SMTP session; check: one evaluation; lists: main.cf made into rules
names           the table of restrictions, which are in clients, addresses, hosts, dnslists, access,
                unlisted, logins, certificates, policies, verification
client_rules    what else depends on the client; xclient: XCLIENT and XFORWARD
content_checks  header_checks(5) and its kin; reply_filter: DNS replies
resolving       trivial-rewrite(8), with rewriting, final_domain, address_forms, destination
servers         MX and address lookups of smtp(8); next_hop: the syntax of destinations
authorization   authorized_submit_users and its like
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
