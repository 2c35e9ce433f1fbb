"""Decisions about one service: may it have another process, must it wait after a crash."""

import resource
import socket

import pytest

from libmail.config import Config
from libmail.config.main_cf import parse_main_cf
from libmail.config.master_cf import parse_master_cf
from libmail.log import LOG
from libmail.service.skeleton import BUSY, READY
from master.children import Child
from master.endpoints import Network
from master.plan import Plan, is_disabled, plan_of
from master.services import Service

NETWORK = Network((socket.AF_INET,), ((socket.AF_INET, "127.0.0.1"),), {})
MAIN = "sessions_per_process = 10\nfilter_sessions_per_process = 3\nmax_use = 7\n"


def plan(line: str) -> Plan:
    entries, _ = parse_main_cf(MAIN, "main.cf")
    return plan_of(parse_master_cf(line, "master.cf")[0], Config("/etc/postfix", entries))


def service(line: str) -> Service:
    return Service(plan(line), NETWORK, [])


def child(pid: int, capacity: int, state: int = 1, generation: int = 1) -> Child:
    return Child(pid, None, generation, capacity, foreign=False, started=0.0, state=state)


CASES = [
    ("nobody yet", [], 3),
    ("somebody is free", [child(1, 3)], 0),
    ("all are full", [child(1, 3, 0)], 2),
    ("the limit is reached", [child(1, 3, 0), child(2, 2, 0)], 0),
    ("the only one is busy", [child(1, 3, BUSY)], 2),
    ("one is busy, another is not", [child(1, 2, BUSY), child(2, 2, READY)], 0),
    ("one is busy, another is full", [child(1, 2, 0), child(2, 2, BUSY)], 0),
    ("a busy one for each core", [child(1, 2, BUSY), child(2, 2, BUSY)], 0),
    ("a retiring process keeps its clients", [child(1, 3, -2), child(2, 2, 0)], 1),
    ("an old generation does not count", [child(1, 3, 0, 0), child(2, 2, 1, 0)], 3),
]


@pytest.mark.parametrize(("children", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_capacity_for_one_more(children: list[Child], want: int) -> None:
    # A command that is not built in has one client a process; these rules are for built-in ones.
    own = service("filter unix - - n - 5 postlogd")
    limit = own.plan.limit.__class__(3, clients=5)
    own.plan = Plan(own.plan.entry, own.plan.config, own.plan.program, own.plan.path, limit,
                    7, 100.0, 60.0)  # fmt: skip
    own.cores = 2
    own.children = {one.pid: one for one in children}
    assert own.capacity_for_one_more(1) == want


def test_a_command_that_is_not_built_in_has_one_client_a_process() -> None:
    own = plan("policy unix - n n - 5 some-program")
    assert own.program is None
    assert (own.limit.per_process, own.limit.processes) == (1, 5)


def test_postscreen_takes_all_that_come() -> None:
    """It turns them away itself; sessions_per_process would let bots keep others waiting."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    own = plan("smtp inet n - n - 1 postscreen").limit
    assert own.processes == 1
    assert hard // 2 < own.per_process < hard
    assert plan("smtp inet n - n - - smtpd").limit.per_process == 10


@pytest.mark.parametrize("program", ["anvil", "verify", "proxymap"])
def test_the_only_process_of_a_service_takes_all_clients(program: str) -> None:
    """With sessions_per_process = 1 the second smtpd would wait for the first one to end."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    own = plan(f"{program} unix - - n - 1 {program}").limit
    assert own.processes == 1
    assert hard // 2 < own.per_process < hard
    assert plan(f"{program} unix - - n - 2 {program}").limit.per_process == 10


CRASHES = [
    # wait status, served, told to end: the log line, throttled
    ("orderly", 0, True, False, "", False),
    ("orderly, but it never served", 0, False, False, "", False),
    ("at the start", 1 << 8, False, False, "exit status 1", True),
    ("later", 1 << 8, True, False, "exit status 1", False),
    ("killed by somebody", 9, True, False, "killed by signal 9", False),
    ("told to end", 15, True, True, "", False),
    ("told to end before it served", 1, False, True, "", False),
    ("told to end, and failed at that", 1 << 8, True, True, "exit status 1", False),
]


@pytest.mark.parametrize(
    ("status", "served", "told", "line", "wait"), [c[1:] for c in CRASHES],
    ids=[c[0] for c in CRASHES],
)  # fmt: skip
def test_pause_after(status: int, served: bool, told: bool, line: str, wait: bool) -> None:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/master")
    own = service("smtp inet n - n - - postlogd")
    gone = child(7, 3)
    gone.served, gone.told_to_end = served, told
    assert own.pause_after(gone, status) == (60.0 if wait else 0.0)
    path = own.plan.path
    assert lines == ([f"warning: process {path} pid 7 {line}"] if line else [])


OPTIONS = [
    ("smtp inet n - n - - smtpd", 1, "smtpd -n smtp -t inet -u"),
    ("smtp inet n - y - - smtpd", 2, "smtpd -n smtp -t inet -u -c -s 2"),
    ("qmgr unix n - n 300 1 qmgr", 1, "qmgr -l -t unix -u"),
    ("defer unix - - y - 0 bounce", 1, "bounce -z -n defer -t unix -u -c"),
    ("local unix - n n - - local", 1, "local -t unix"),
]


@pytest.mark.parametrize(("line", "listeners", "want"), OPTIONS)
def test_options_tell_what_the_process_is(line: str, listeners: int, want: str) -> None:
    entry = parse_master_cf(line, "master.cf")[0]
    config = Config("/etc/postfix")
    own = Plan(entry, config, None, "", service("x unix - - n - 1 x").plan.limit, 0, 0.0, 0.0)
    assert " ".join(own.options(listeners)) == want


DISABLED = [
    ("", False),
    ("inet", True),
    ("smtp/inet", True),
    ("SMTP/inet", True),
    ("smtp/unix, unix", False),
    ("!smtp/inet, inet", False),
    ("inet, !smtp/inet", True),
]


@pytest.mark.parametrize(("value", "want"), DISABLED)
def test_master_service_disable(value: str, want: bool) -> None:
    entry = parse_master_cf("smtp inet n - n - - smtpd", "master.cf")[0]
    assert is_disabled(entry, value.replace(",", " ").split()) is want


def test_status_messages_are_read_whole_and_only_of_this_process() -> None:
    from libmail.service.skeleton import STATUS

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    own = Child(5, ours, 2, 1, foreign=False)
    assert own.read_status()
    assert not own.served
    theirs.send(STATUS.pack(5, 2, 0) + STATUS.pack(6, 2, 1) + STATUS.pack(5, 1, 1))
    assert own.read_status()
    assert (own.state, own.served, own.held) == (0, True, 1)
    theirs.send(STATUS.pack(5, 2, -3))
    own.read_status()
    assert (own.available, own.held) == (False, 3)
    theirs.close()
    assert not own.read_status()
    own.close()
