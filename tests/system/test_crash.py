"""kill -9 at random moments under load: what was taken is delivered after a restart.

Every message has a number, and numbers that a client has noted must reach the next hop. A number
may arrive twice only if its delivery was under way when something was killed.
"""

from __future__ import annotations

import os
import random
import time
from bisect import bisect
from collections import Counter, defaultdict
from itertools import cycle, islice
from typing import Final

from tests.system.conftest import MakeSystem
from tests.system.harness import Instance, MailSystem, free_port
from tests.system.numbered import TRIED_SOON, Clients, number_of, queue_id_of, wait_for_all
from tests.system.processes import kill, session_members, wait_until
from tests.system.sink import PythonSink, Received

KILLS: Final = ("a service",) * 21 + ("master",) * 3 + ("everything",) * 6
LIMIT: Final = 5  # deliveries at a time
# A queue manager that was killed leaves agents behind, who finish what they do.
IN_FLIGHT: Final = 3 * LIMIT


def wait_for_orphans(system: MailSystem) -> None:
    """Our services end soon after their master; those of Postfix may go on until they are idle."""
    if not isinstance(system, Instance):
        return system.kill_all()
    wait_until(
        lambda: not session_members(system.session),
        lambda: [process.title() for process in session_members(system.session)],
    )
    return None


def do_kill(system: MailSystem, what: str, dice: random.Random) -> None:
    if what == "everything":
        return system.kill_all()
    if what == "master":
        return kill(system.session)
    services = defaultdict(list)
    for process in session_members(system.session):
        if process.pid != system.session:
            services[process.title()].append(process.pid)
    if services:
        kill(dice.choice(services[dice.choice(sorted(services))]))
    return None


def test_nothing_is_lost(make_system: MakeSystem) -> None:
    """CRASH_SEED in the environment repeats a run, as far as the machine does; CRASH_KILLS says how
    many kills there are."""
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"CRASH_SEED={seed}")
    dice, port = random.Random(seed), free_port()
    system = make_system(
        main={
            **TRIED_SOON,
            "service_throttle_time": "1s",
            "default_destination_concurrency_limit": str(LIMIT),
        }
    )
    system.allow("(?:warning|error|fatal): ")  # who finds another one dead may say so; no panic
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    kills: list[float] = []
    with PythonSink(port) as sink, Clients(system) as clients:
        for what in islice(cycle(KILLS), int(os.environ.get("CRASH_KILLS") or len(KILLS))):
            clients.wait_for_more(dice.randrange(5, 30))
            time.sleep(dice.random() * 0.05)
            do_kill(system, what, dice)
            kills.append(time.monotonic())
            if what == "master":
                wait_for_orphans(system)
            if what != "a service":
                system.start()
        clients.wait_for_more(20)
        clients.stop()
        wait_for_all(sink, clients.accepted, system)
        system.wait_for_queue_empty()
        check_duplicates(sink.messages, kills)


def check_duplicates(messages: list[Received], kills: list[float]) -> None:
    """For each kill, not more than what was under way at that moment.

    That may be the delivery of a message, or its submission by sendmail: who gets no answer leaves
    the message in maildrop, though it may be in the queue already.
    """
    copies = defaultdict(list)
    submitted = defaultdict(set)
    for message in messages:
        if number := number_of(message):
            copies[number, queue_id_of(message)].append(message.began)
            submitted[number].add(queue_id_of(message))
    first_kill = Counter(
        bisect(kills, began) for times in copies.values() for began in sorted(times)[:-1]
    )
    twice = sum(len(queue_ids) > 1 for queue_ids in submitted.values())
    assert twice <= len(kills)  # one sendmail at a time
    assert len(kills) not in first_kill, "delivered twice after the last kill"
    assert max(first_kill.values(), default=0) <= IN_FLIGHT, first_kill
