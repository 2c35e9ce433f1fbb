"""The services that local(8) asks, and what else its deliveries share."""

from dataclasses import dataclass

from libmail.clients.cleanup import CleanupClient
from libmail.clients.rewrite import RewriteClient
from libmail.service.workers import Workers

__all__ = ["Clients"]


@dataclass(frozen=True, slots=True)
class Clients:
    """workers: their lanes are files that messages are appended to, by user name or path."""

    rewrite: RewriteClient
    cleanup: CleanupClient
    workers: Workers
