"""Which job goes ahead of another one: preemption, as SCHEDULER_README has it.

Jobs that have not begun are candidates, by the number of deliveries that they need at most.
"""

from collections import deque
from typing import Final

from daemons.qmgr.jobs import LAST, Job, Transport

__all__ = ["go_ahead", "register"]

_CANDIDATES: Final = 16  # jobs of one size that are looked at before giving up on that size


def _size(job: Job) -> int:
    """The most deliveries that a job can still need."""
    return job.entries + job.message.unread


def register(fresh: dict[int, deque[Job]], job: Job, live: int) -> None:
    """Make a job that has not begun a candidate for going ahead of others; live: jobs there are."""
    size = _size(job)
    jobs = fresh.get(size)
    if jobs is None:
        jobs = fresh[size] = deque()
    elif len(jobs) > 2 * live + 64:
        fit = [job for job in jobs if not _stale(job, size)]
        jobs.clear()
        jobs.extend(fit)
    while jobs and _stale(jobs[0], size):
        jobs.popleft()
    jobs.append(job)


def _candidates(transport: Transport) -> dict[int, deque[Job]]:
    """Jobs that have not begun, and stale ones, by size.

    Most often nobody may be preempted: they are not collected before somebody may.
    """
    fresh = transport.fresh
    if fresh is None:
        fresh = transport.fresh = {}
        for job in transport.jobs.values():
            if not job.selected:
                register(fresh, job, len(transport.jobs))
    return fresh


def _stale(job: Job, size: int) -> bool:
    return job.selected > 0 or not job.peers or _size(job) != size


def go_ahead(transport: Transport, job: Job, now: float) -> Job | None:
    """The job that is to be selected from instead of `job`, right now in front of it, if any."""
    limits = transport.limits
    cost = limits.slot_cost
    most = (job.entries - job.spent) // cost
    candidate = _candidate(transport, job, most, now)
    if candidate is None:
        return None
    needed = _size(candidate)
    missing = needed - (job.selected - job.spent) / cost
    if missing > needed * limits.slot_discount / 100 + limits.slot_loan:
        return None
    job.spent += needed * cost
    candidate.key = (*job.key[:-1], job.children, LAST)
    job.children += 1
    return candidate


def _candidate(transport: Transport, current: Job, most: int, now: float) -> Job | None:
    """The job that deserves to go ahead of the current one, of those that may.

    It needs at most `most` deliveries, has not begun, and is not blocked. The best is the one with
    the longest waiting time for each delivery that it needs.
    """
    best, best_rank = None, -1.0
    fresh = _candidates(transport)
    for size in [size for size in fresh if size <= most]:
        jobs = fresh[size]
        job = _first_unblocked(jobs, size, current)
        if not jobs:
            del fresh[size]
        if job is not None:
            rank = (now - job.message.queued + 1e-6) / size
            if rank > best_rank:
                best, best_rank = job, rank
    return best


def _first_unblocked(jobs: deque[Job], size: int, current: Job) -> Job | None:
    """The first job of this size that has a destination which can take a delivery."""
    while jobs and _stale(jobs[0], size):
        jobs.popleft()
    for at in range(min(_CANDIDATES, len(jobs))):
        job = jobs[at]
        if job is current or len(job.key) > 2 or _stale(job, size):
            continue
        if any(destination.can_take for destination in job.peers):
            return job
    return None
