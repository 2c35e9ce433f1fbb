"""The loop of master(8): clients that wait, processes that end, timers, signals.

One thread that never waits but in `select`, no event-loop library: a fork from here is a fork
from a quiet process. Signal handlers only note the signal; the loop acts on it.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Final, NoReturn

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.files.approved import ApprovedFiles
from libmail.log import LOG, Fatal
from libmail.privileges import Identity
from master.children import Child, Surroundings, become_foreign, become_service
from master.endpoints import Network, network_of, open_endpoint
from master.events import DaemonStarted, Reloaded
from master.plan import Plan, is_disabled, plan_of
from master.preload import freeze, load_for
from master.services import Service
from master.shutdown import Shutdown
from master.timers import Timers
from master.wakeup import wake

__all__ = ["Configuration", "Instance", "Supervisor"]

_SIGNALS: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGCHLD,
)
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_WAKEUP_LINGER: Final = 5.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """main.cf and master.cf as read at one time. network: mail_network_user, or mail_owner."""

    main: Config
    entries: tuple[ServiceEntry, ...]
    network: Identity


@dataclass(frozen=True, slots=True)
class Instance:
    """What stays as it is while master lives.

    owner: mail_owner. privileged: master runs as root. verbosity: its -v options. read: reads the
    configuration anew; raises ConfigError. log_directly: opens LOG for the time without postlogd.
    locks: descriptors of the lock files. approved: of certificates, which tablewatch(8) keeps here.
    """

    owner: Identity
    queue_directory: str
    privileged: bool
    verbosity: int
    read: Callable[[], Configuration]
    log_directly: Callable[[Config], None]
    locks: tuple[int, ...]
    approved: ApprovedFiles


class Supervisor:
    """All services. Opening sockets is in the constructor: raises Fatal, ConfigError."""

    def __init__(self, instance: Instance, configuration: Configuration) -> None:
        self._instance = instance
        self._main = configuration.main
        self._network = configuration.network
        self._services: dict[tuple[str, str], Service] = {}
        self._parents: dict[int, Service] = {}
        self._generation = 1
        self._selector = selectors.DefaultSelector()
        self._timers = Timers(time.monotonic)
        self._signals: list[int] = []
        self._shutdown = Shutdown(
            services=self._services,
            parents=self._parents,
            timers=self._timers,
            refresh=self._refresh,
            is_log=self._is_log,
            log_directly=lambda: instance.log_directly(self._main),
        )
        self._flow = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_read, self._wake_write = socket.socketpair()
        self._open(configuration)

    # services

    def _open(self, configuration: Configuration) -> None:
        """At the start, where any mistake is fatal. Raises Fatal, ConfigError."""
        network = network_of(configuration.main)
        plans = _plans(configuration)
        for plan in plans:
            self._add(plan, network)
        load_for(configuration.main, [plan.config for plan in plans])
        freeze()

    def _add(self, plan: Plan, network: Network) -> None:
        listeners = open_endpoint(plan.endpoint, network, self._instance.owner)
        self._services[plan.key] = Service(plan, network, listeners)

    def _start(self, service: Service) -> None:
        """Begin to wait for clients and to wake it up."""
        self._refresh(service)
        if service.plan.entry.wakeup:
            self._wake(service)

    def _refresh(self, service: Service) -> None:
        """Wait for clients exactly when a process could be started for one."""
        wanted = not self._shutdown.begun and service.capacity_for_one_more(self._generation) > 0
        if not wanted and service.is_crowded(self._generation):
            self._hurry(service)
        if wanted == service.watched:
            return
        service.watched = wanted
        for listener in service.listeners:
            if wanted:
                action = partial(self._client_waits, service)
                self._selector.register(listener, selectors.EVENT_READ, action)
            else:
                self._selector.unregister(listener)

    def _hurry(self, service: Service) -> None:
        """Clients have to wait: warn, and have others than these processes serve the next ones."""
        if self._shutdown.begun or not service.stress.crowded(time.monotonic()):
            return
        for warning in service.crowd_warnings():
            LOG.warning(warning)
        if not service.plan.limit.counts_processes:
            for child in service.current(self._generation):
                if not child.foreign:
                    child.kill(signal.SIGHUP)

    def _client_waits(self, service: Service) -> None:
        if service.watched:
            self._spawn(service)

    def _wake(self, service: Service) -> None:
        plan = service.plan
        service.wakeup = self._timers.after(plan.entry.wakeup, partial(self._wake, service))
        if service.throttle is not None or (plan.entry.wakeup_if_used and not service.in_use):
            return
        connecting = wake(plan, service.listeners)
        if connecting is not None:
            self._timers.after(_WAKEUP_LINGER, connecting.close)

    # processes

    def _spawn(self, service: Service) -> None:
        capacity = service.capacity_for_one_more(self._generation)
        if capacity <= 0:
            self._refresh(service)
            return
        ours, theirs = socket.socketpair()
        try:
            pid = self._fork(service, self._surroundings(service, theirs, capacity), ours)
        except OSError as err:
            ours.close()
            LOG.warning(f"fork: {err.strerror}")
            self._throttle(service, service.plan.throttle_time)
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        foreign = service.plan.program is None
        child = Child(pid, ours, self._generation, capacity, foreign=foreign)
        service.children[pid] = child
        service.in_use = True
        self._parents[pid] = service
        self._selector.register(
            ours, selectors.EVENT_READ, partial(self._status_came, service, child)
        )
        self._refresh(service)

    def _surroundings(self, service: Service, status: socket.socket, capacity: int) -> Surroundings:
        instance = self._instance
        return Surroundings(
            status=status,
            listeners=service.listeners,
            flow=self._flow,
            generation=self._generation,
            capacity=capacity,
            verbosity=instance.verbosity,
            jail=service.plan.jail(
                instance.owner,
                self._network,
                instance.queue_directory,
                privileged=instance.privileged,
            ),
            owner=instance.owner.uid,
            network=self._network.uid,
            stress=service.public and service.stress.lasts(time.monotonic()),
            approved=instance.approved if service.plan.uses_approved else None,
        )

    def _fork(self, service: Service, given: Surroundings, ours: socket.socket) -> int:
        """The process id of the child, which is the service. Raises OSError."""
        # No signal may reach the child while it still has master's handlers.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(service, given, ours, mask)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _become(
        self,
        service: Service,
        given: Surroundings,
        ours: socket.socket,
        mask: set[int | signal.Signals],
    ) -> NoReturn:
        """In the child: leave behind what is master's, and be the service."""
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            LOG.forked()
            program = service.plan.program
            if program is None:
                for number in _IGNORED_BY_PYTHON:
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                become_foreign(service.plan, given)
            # The terminal's is for master. With a handler, as what is ignored stays so in programs
            # that are executed.
            signal.signal(signal.SIGINT, _do_nothing)
            ours.close()
            self._close_all_but(service)
            given.status.setblocking(False)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            become_service(service.plan, program, given)
        except (Fatal, ConfigError) as err:
            LOG.fatal(str(err))
        except Exception as err:  # noqa: BLE001  nothing of master may go on in the child
            LOG.panic(f"{service.plan.path}: {type(err).__name__}: {err}")
        finally:
            os._exit(1)

    def _close_all_but(self, kept: Service) -> None:
        """Close sockets that belong to master or to other services."""
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
        for fd in (*self._flow, *self._instance.locks):
            os.close(fd)
        if not kept.plan.uses_approved:
            self._instance.approved.close()
        for service in self._services.values():
            for child in service.children.values():
                child.close()
            if service is not kept:
                service.close()

    def _status_came(self, service: Service, child: Child) -> None:
        if not child.read_status():
            self._forget_status(child)
        self._refresh(service)

    def _forget_status(self, child: Child) -> None:
        if child.status is not None:
            self._selector.unregister(child.status)
            child.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            service = self._parents.pop(pid, None)
            if service is not None:  # else: an orphan that init, which we are, inherited
                self._ended(service, service.children.pop(pid), status)

    def _ended(self, service: Service, child: Child, status: int) -> None:
        if child.status is not None:
            child.read_status()
            self._forget_status(child)
        pause = service.pause_after(child, status)
        if pause and child.generation == self._generation and not self._shutdown.begun:
            if pause >= service.plan.throttle_time:
                LOG.warning(f"{service.plan.path}: bad command startup -- throttling")
            self._throttle(service, pause)
        self._refresh(service)

    def _throttle(self, service: Service, seconds: float) -> None:
        service.throttle = self._timers.after(seconds, partial(self._release, service))
        self._refresh(service)

    def _release(self, service: Service) -> None:
        service.end_throttle()
        self._refresh(service)

    # reload

    def _reload(self) -> None:
        instance = self._instance
        try:
            configuration = instance.read()
            plans = _plans(configuration)
            network = network_of(configuration.main)
            if configuration.main.text("queue_directory") != instance.queue_directory:
                raise Fatal("queue_directory has changed, which takes a stop and a start")
        except (ConfigError, Fatal) as err:
            LOG.error(f"reload: {err} -- going on with the old configuration")
            return
        self._main, self._network = configuration.main, configuration.network
        version = self._main.text("mail_version")
        LOG.event(Reloaded(version, self._main.directory))
        self._generation += 1
        for service in self._services.values():
            self._retire_children(service, signal.SIGHUP)
        self._replace(plans, network)
        load_for(configuration.main, [plan.config for plan in plans])
        freeze()
        for service in self._services.values():
            self._start(service)

    def _retire_children(self, service: Service, number: signal.Signals) -> None:
        """Let the processes of a service end when their sessions do."""
        service.cancel_wakeup()
        for child in service.children.values():
            if child.foreign:
                self._forget_status(child)
                child.told_to_end = True
            else:
                child.kill(number)

    def _replace(self, plans: list[Plan], network: Network) -> None:
        wanted = {plan.key for plan in plans}
        for key in [key for key in self._services if key not in wanted]:
            gone = self._services.pop(key)
            self._unwatch(gone)
            for child in gone.children.values():
                child.kill(signal.SIGTERM)
            gone.close()
        for plan in plans:
            service = self._services.get(plan.key)
            if service is not None and _same_sockets(service, plan, network):
                service.plan = plan
                service.end_throttle()
                continue
            if service is not None:
                self._unwatch(service)
                service.close()
            try:
                self._add(plan, network)
            except Fatal as err:
                LOG.error(f"reload: {err} -- service {plan.entry.name} is not available")

    def _unwatch(self, service: Service) -> None:
        if service.watched:
            service.watched = False
            for listener in service.listeners:
                self._selector.unregister(listener)

    def _is_log(self, service: Service) -> bool:
        name = self._main.text("postlog_service_name")
        return service.plan.key == (name, "unix-dgram")

    # the loop

    def _note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self._signals.append(number)

    def _handle_signals(self) -> None:
        try:
            self._wake_read.recv(512)
        except BlockingIOError:
            pass
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                if not self._shutdown.begun:
                    self._reload()
            elif number == signal.SIGQUIT:
                self._shutdown.abort(number)
            else:
                self._shutdown.begin(number)

    def run(self, started: Callable[[], None], *, life: float = 0.0) -> None:
        """Serve until the system is stopped. started: called when all sockets are served.

        life: seconds after which to stop, 0 for none.
        """
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._handle_signals)
        version = self._main.text("mail_version")
        LOG.event(DaemonStarted(version, self._main.directory))
        for service in self._services.values():
            self._start(service)
        if life:
            self._timers.after(life, partial(self._shutdown.begin, signal.SIGALRM))
        started()
        while not self._shutdown.finished:
            for key, _ in self._selector.select(self._timers.pause()):
                key.data()
            self._timers.run()
            if self._shutdown.begun:
                self._shutdown.check()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A signal handler."""


def _plans(configuration: Configuration) -> list[Plan]:
    disabled = configuration.main.list("master_service_disable")
    return [
        plan_of(entry, configuration.main)
        for entry in configuration.entries
        if not is_disabled(entry, disabled)
    ]


def _same_sockets(service: Service, plan: Plan, network: Network) -> bool:
    """Whether a reload can keep the service's sockets; always with those of the queue directory."""
    if service.plan.entry.private != plan.entry.private:
        return False
    return plan.entry.type != "inet" or service.network == network
