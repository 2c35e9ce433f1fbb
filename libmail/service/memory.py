"""How much memory a service may ask for, `service_memory_limit`: RLIMIT_AS.

What clients can make a service keep is bounded where it is kept. Where that is wrong, the process
runs into this limit: the session that asked too much ends, and the machine goes on. The limit
counts from what the process has before it serves, as tables that are mapped into it may be larger
than all memory.
"""

import os
import resource

from libmail.log import LOG

__all__ = ["limit_memory"]


def limit_memory(allowance: int) -> None:
    """Let this process and its children get so many octets more; 0: as many as they like."""
    if not allowance:
        return
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return  # without /proc nobody knows what there is already
    limit = pages * os.sysconf("SC_PAGE_SIZE") + allowance
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError) as err:
        LOG.warning(f"service_memory_limit: {err}")
