"""The skeleton of every daemon: from fork to exit.

In this order, see docs/architecture.md: `Service.prepare` reads parameters and opens what needs
rights or the real file system, then the jail is entered, then the event loop runs `Service.start`,
then connections are accepted. After the jail nothing is imported any more.

A process serves up to `capacity` sessions at a time. A full one stops accepting and tells master(8)
through the status socket, so that master starts another one while the limit allows. One that
computes all the time says that, too; then master starts another one while there are cores for it.

Setting MAIL_FORBID_LATE_IMPORTS in master's environment makes an import after the jail end the
process with a panic; the tests do that.
"""

import asyncio
import gc
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Final, Generic, NoReturn, TypeVar

import uvloop

from libmail.config import Config, ConfigError
from libmail.files.approved import ApprovedFiles
from libmail.files.freshness import outdated
from libmail.log import LOG, Fatal
from libmail.net.unix_stream import UnixStream
from libmail.privileges import Jail, enter_jail
from libmail.service.connection import UCRED
from libmail.service.memory import limit_memory
from libmail.service.passing import Passed, receive_client
from libmail.service.seccomp import forbid
from libmail.service.utilization import Utilization
from libmail.service.watchdog import Watchdog

__all__ = [
    "BUSY",
    "READY",
    "STATUS",
    "Handlers",
    "Launch",
    "Runtime",
    "Service",
    "Startup",
    "run_service",
]

STATUS: Final = struct.Struct("=iIi")
"""What a child tells master: process id, generation, and how it stands: READY: it can take a
session; BUSY: likewise, but its core does not suffice; 0: it cannot; -N: it is retiring and still
serves N sessions."""
READY: Final = 1
BUSY: Final = 2

_CREDENTIALS_SPACE: Final = socket.CMSG_SPACE(UCRED.size)
_ACCEPT_BURST: Final = 32
_FIFO_BURST: Final = 4096
_ACCEPT_PAUSE: Final = 1.0  # seconds, when descriptors or memory are short
_CHECK: Final = 1.0  # seconds between looks for tables that have changed, and for too much to do
_STOP_GRACE: Final = 5.0  # seconds that sessions get after SIGTERM
_GC_THRESHOLDS: Final = (20_000, 20, 100)
_FORBID_LATE_IMPORTS: Final = "MAIL_FORBID_LATE_IMPORTS"
_TRACE_DEPTH: Final = 6  # innermost frames named in a panic

J = TypeVar("J")


@dataclass(frozen=True, slots=True)
class Startup:
    """What `Service.prepare` gets.

    config: with this service's -o overrides. service: first column of master.cf. arguments: those
    of the command, without -o and -v. approved: of certificates, where master(8) has started it.
    """

    config: Config
    service: str
    arguments: tuple[str, ...]
    approved: ApprovedFiles | None = None


@dataclass(frozen=True, slots=True)
class Handlers:
    """The callbacks of a started daemon.

    stream: makes the protocol for a connection that was accepted; it (or its session) must call
    `Runtime.session_ended` exactly once. connection: instead of it, takes the socket as it is (it
    blocks), and over; the same goes for it. datagram: takes one datagram, and the user id of its
    sender, -1 if nobody can say. descriptors: clients of UNIX sockets may send open files. passed:
    takes a client that another program has accepted, with what that says of it; only with it can
    the service be of type pass. drain: awaited before the process exits, after the last
    session.
    """

    stream: Callable[[socket.SocketType], asyncio.Protocol] | None = None
    connection: Callable[[socket.SocketType], None] | None = None
    datagram: Callable[[bytes, int], None] | None = None
    descriptors: bool = False
    passed: Callable[[Passed], None] | None = None
    drain: Callable[[], Awaitable[None]] | None = None


def makes_no_files(_: Config) -> bool:
    """The usual `Service.makes_files`."""
    return False


@dataclass(frozen=True, slots=True)
class Service(Generic[J]):
    """A daemon program.

    prepare: before the jail, returns what `start` needs. start: inside the event loop, after it.
    one_client: sessions are served one at a time in a process. threads: each session may take a
    thread, so there are no more than Postfix would have processes. permanent: neither `max_idle`
    nor `max_use` ends it. commands: it runs programs as users, so it may not give up gaining
    rights. shared: one process serves many clients in Postfix,
    too, so the maxproc column counts processes; see master.capacity. A permanent one is shared.
    all_comers: a process takes as many clients as it has descriptors for, and turns away itself
    those that are too many.
    reads_approved: in `prepare`, contents of files that tablewatch(8) has found good.
    writes_approved: it is the one that finds them good.
    network: it talks with strangers, runs as mail_network_user, and the kernel refuses it what
    libmail.service.seccomp says. makes_files: whether something in it may have to make files with
    this configuration; if not, the kernel refuses that, too.
    watchdog: the parameter that says for how many seconds its event loop may stand still.
    """

    program: str
    prepare: Callable[[Startup], J]
    start: Callable[[J, "Runtime"], Awaitable[Handlers]]
    one_client: bool = False
    threads: bool = False
    permanent: bool = False
    commands: bool = False
    shared: bool = False
    all_comers: bool = False
    reads_approved: bool = False
    writes_approved: bool = False
    network: bool = False
    makes_files: Callable[[Config], bool] = makes_no_files
    watchdog: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """How master starts a process of a service.

    listeners: listening (or datagram) sockets, non-blocking. status: master's end of it tells that
    master is alive. capacity: sessions at a time. max_use: sessions in a life, 0 for no limit.
    max_idle: seconds without a session after which to exit, 0 for never. owner: user id of
    mail_owner. network: of mail_network_user. fifos: descriptors of named pipes, from which
    triggers are read. passing: whether connections bring clients, instead of being some.
    """

    listeners: tuple[socket.socket, ...]
    status: socket.socket
    generation: int
    capacity: int
    max_use: int
    max_idle: float
    jail: Jail
    owner: int
    network: int
    fifos: tuple[int, ...] = ()
    passing: bool = False


class Runtime:
    """The process while it serves: sessions, background tasks, the end."""

    def __init__(self, startup: Startup, launch: Launch, watchdog: float = 0.0) -> None:
        """watchdog: seconds for which the event loop may stand still, 0 for ever."""
        self.config = startup.config
        self.service = startup.service
        # Users that are the mail system, and what faces the network, which is not believed as much.
        self.trusted = frozenset({0, launch.owner} | ({os.geteuid()} - {launch.network}))
        self.network = frozenset({launch.network}) - self.trusted
        self.sessions = 0
        self.retiring = asyncio.Event()  # no new sessions
        self.stopping = asyncio.Event()  # sessions are to end soon: the system is being stopped
        self._launch = launch
        self._max_idle = launch.max_idle
        self._approved = startup.approved
        self._loop = asyncio.get_running_loop()
        self._kinds = {one: (int(one.family), int(one.type), one.proto) for one in launch.listeners}
        self._handlers = Handlers()
        self._done = self._loop.create_future()
        self._tasks: set[asyncio.Task[object]] = set()
        self._used = 0
        self._accepting = False
        self._utilization = Utilization(self._loop.time)
        self._ready = READY  # or BUSY: what master is told while sessions can be taken
        self._burst = 1  # connections to accept at a time
        self._idle_timer: asyncio.TimerHandle | None = None
        self._check_timer: asyncio.TimerHandle | None = None
        self._told_to_leave: list[Callable[[], None]] = []
        self._last_datagram = 0.0
        self._watchdog: Watchdog | None = None
        if watchdog:
            ask = self._loop.call_soon_threadsafe
            self._watchdog = Watchdog(watchdog, ask, lambda: self.sessions > 0, _stuck)

    # sessions

    def session_ended(self) -> None:
        """A session is over; called once for each connection that was accepted."""
        self.sessions -= 1
        if self.retiring.is_set():
            self._tell_retiring()
            self._finish_if_idle()
            return
        if not self._accepting:
            self._resume_accepting()
        if self.sessions == 0:
            self._start_idle_timer()

    def _begin_session(self) -> None:
        self.sessions += 1
        self._used += 1
        if self._watchdog is not None:
            self._watchdog.work()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._launch.max_use and self._used >= self._launch.max_use:
            self.retire()
        elif self.sessions >= self._launch.capacity:
            self._pause_accepting()

    def stay(self, seconds: float) -> None:
        """Do not end before so many seconds without a session: what the process knows counts."""
        if self._max_idle:
            self._max_idle = max(self._max_idle, seconds)

    def _start_idle_timer(self) -> None:
        if self._max_idle and self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._max_idle, self._idle)

    def _idle(self) -> None:
        """max_idle has passed without a session; a datagram is work, too."""
        rest = self._last_datagram + self._max_idle - self._loop.time()
        if self._last_datagram and rest > 0:
            self._idle_timer = self._loop.call_later(rest, self._idle)
        else:
            self.retire()

    # checks

    def _tables_changed(self) -> bool:
        """Retire if a table or certificate that this process has read was changed or replaced."""
        what, path = "table", outdated()
        if not path and self._approved is not None:
            what, path = "certificate", self._approved.replaced
        if not path:
            return False
        LOG.info(f"{what} {path} has changed -- restarting")
        self.retire()
        return True

    def _check(self) -> None:
        """Check for changed tables, and for too much to do, now and while there are sessions."""
        self._check_timer = None
        if not self.retiring.is_set() and not self._tables_changed() and self.sessions:
            self._check_timer = self._loop.call_later(_CHECK, self._check)
            # What a single session has to do is done on one core, wherever.
            ready = BUSY if self.sessions > 1 and self._utilization.measure() else READY
            if ready != self._ready:
                self._ready = ready
                if self._accepting:
                    self._tell_master(ready)

    # tasks

    def spawn(self, coroutine: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Run a task that belongs to the process: if it fails, the process ends."""
        task: asyncio.Task[object] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.fail(error)

    def session_failed(self, error: Exception, name: str = "") -> None:
        """Log a bug that costs one session and no other. Raises Fatal, ConfigError: those end us.

        name: of the service, if not its own.
        """
        if isinstance(error, (Fatal, ConfigError)):
            raise error
        name = name or self.service
        LOG.panic(f"{name}: {type(error).__name__}: {error} ({_places(error)})")

    def fail(self, error: BaseException) -> None:
        """End the process because of a bug or a condition that it cannot work under."""
        if not self._done.done():
            self._done.set_exception(error)

    # accepting

    def _resume_accepting(self) -> None:
        self._accepting = True
        receive = self._accept if self._handlers.datagram is None else self._receive
        for listener in self._launch.listeners:
            self._loop.add_reader(listener.fileno(), receive, listener)
        for fifo in self._launch.fifos:
            self._loop.add_reader(fifo, self._read_fifo, fifo)
        self._tell_master(self._ready)

    def _pause_accepting(self) -> None:
        if not self._accepting:
            return
        self._accepting = False
        for listener in self._launch.listeners:
            self._loop.remove_reader(listener.fileno())
        for fifo in self._launch.fifos:
            self._loop.remove_reader(fifo)
        self._tell_master(0)

    def _tell_master(self, state: int) -> None:
        try:
            self._launch.status.send(STATUS.pack(os.getpid(), self._launch.generation, state))
        except BlockingIOError:
            pass  # master does not read now; it will see that the sockets are served
        except OSError:
            self._master_gone()

    def _tell_retiring(self) -> None:
        """Tell master how many sessions are left, so that it may start another process."""
        if self.sessions > 0:
            self._tell_master(-self.sessions)

    def _master_gone(self) -> None:
        """master(8) has died: stop, as nobody supervises this process any more."""
        self._loop.remove_reader(self._launch.status.fileno())
        self.stop()

    def _accept(self, listener: socket.socket) -> None:
        if self._check_timer is None:
            self._check()
        for _ in range(self._burst):
            if not self._accepting:
                return
            try:
                fd, _ = listener._accept()  # type: ignore[attr-defined]  # what accept() calls
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                self._burst = 1
                return
            except OSError as err:
                self._accept_failed(err)
                return
            # What socket.socket is built upon; that would be half of the cost of a connection.
            connection = socket.SocketType(*self._kinds[listener], fd)
            self._begin_session()
            if self._launch.passing:
                self.spawn(self._take_over(connection))
            elif self._handlers.stream is not None:
                self._attach(connection, self._handlers.stream)
            elif self._handlers.connection is not None:
                self._handlers.connection(connection)
        # A single client costs no needless accept(2); under load, accept many at a time.
        self._burst = min(2 * self._burst, _ACCEPT_BURST)

    async def _take_over(self, carrier: socket.SocketType) -> None:
        """Receive the client that another program hands over on this connection, and serve it."""
        accept = self._handlers.passed
        found = await receive_client(carrier, self.trusted | self.network, self.service)
        if found is None or accept is None:
            self.session_ended()
            return
        accept(found)

    def _accept_failed(self, err: OSError) -> None:
        """Out of descriptors or memory: pause, rather than spin on a readable socket."""
        LOG.warning(f"accept connection: {err.strerror}")
        self._pause_accepting()
        self._loop.call_later(_ACCEPT_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        if not self._accepting and not self.retiring.is_set():
            self._resume_accepting()

    def _attach(
        self, connection: socket.SocketType, stream: Callable[[socket.SocketType], asyncio.Protocol]
    ) -> None:
        connection.setblocking(False)
        UnixStream(connection, stream(connection), descriptors=self._handlers.descriptors)

    def _read_fifo(self, fifo: int) -> None:
        """Hand on what was written to a named pipe as if it came over a connection."""
        stream = self._handlers.stream
        try:
            data = os.read(fifo, _FIFO_BURST)
        except OSError:
            return
        if stream is None or not data:
            return
        ours, theirs = socket.socketpair()
        ours.send(data)
        ours.close()
        self._begin_session()
        self._attach(theirs, stream)

    def _receive(self, listener: socket.socket) -> None:
        datagram = self._handlers.datagram
        if datagram is None:
            return
        self._last_datagram = self._loop.time()
        if self._watchdog is not None:
            self._watchdog.work()
        for _ in range(256):
            try:
                data, ancillary, _, _ = listener.recvmsg(1 << 18, _CREDENTIALS_SPACE)
            except OSError:
                return
            datagram(data, _sender(ancillary))

    # the end

    def retire(self) -> None:
        """Take no more sessions; exit when the last one has ended."""
        if self.retiring.is_set():
            return
        self.retiring.set()  # first: what follows may find that master is gone, and come here
        self._pause_accepting()
        self._tell_retiring()
        for tell in self._told_to_leave:
            tell()
        self._finish_if_idle()

    def on_retiring(self, tell: Callable[[], None]) -> None:
        """Call this when no more sessions are taken."""
        self._told_to_leave.append(tell)

    def stop(self) -> None:
        """The system is being stopped: let sessions end, but not for long."""
        self.retire()
        if not self.stopping.is_set():
            self.stopping.set()
            self._loop.call_later(_STOP_GRACE, self._finish)

    def _finish_if_idle(self) -> None:
        if self.sessions <= 0:
            self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """The loop caught an exception: a broken connection, or a bug."""
        error = context.get("exception")
        of_connection = isinstance(error, OSError) and "transport" in context
        if isinstance(error, BaseException) and not of_connection:
            self.fail(error)
        else:
            LOG.debug(f"{context.get('message')}: {error}")

    async def run(self, start: Callable[["Runtime"], Awaitable[Handlers]]) -> None:
        """Serve until the end."""
        self._loop.set_exception_handler(self._callback_failed)
        self._handlers = await start(self)
        self._check_type()
        self._loop.add_signal_handler(signal.SIGTERM, self.stop)
        self._loop.add_signal_handler(signal.SIGHUP, self.retire)
        self._loop.add_reader(self._launch.status.fileno(), self._master_gone)
        self._resume_accepting()
        self._start_idle_timer()
        if self._watchdog is not None:
            self._watchdog.start()
        LOG.batch(self._loop.call_later)
        try:
            await self._done
        finally:
            LOG.batch(None)
        if self._handlers.datagram is not None:
            for listener in self._launch.listeners:
                self._receive(listener)  # what arrived until now is this process's to do
        if self._handlers.drain is not None:
            await self._handlers.drain()

    def _check_type(self) -> None:
        """Whether the service can serve what its type in master.cf means. Raises Fatal."""
        datagrams = self._handlers.datagram is not None
        if self._launch.passing and self._handlers.passed is None:
            raise Fatal("unsupported transport type: pass")
        if datagrams and self._launch.fifos:
            raise Fatal("unsupported transport type: fifo")
        for listener in self._launch.listeners:
            if (listener.type == socket.SOCK_DGRAM) is not datagrams:
                kind = "inet" if listener.family != socket.AF_UNIX else "unix"
                kind = kind if datagrams else "unix-dgram"
                raise Fatal(f"unsupported transport type: {kind}")


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The user id of who has sent a datagram, by the listener's SO_PASSCRED."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(UCRED.unpack(data)[1])
    return -1


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _NoImports:
    """A finder of modules that ends the process: after the jail there may be no file to read.

    It is asked only for modules that are not in memory yet. For tests.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by the import system."""
        LOG.panic(f"late import of {name} at {_innermost(sys._getframe(1))}")
        _exit(1)


def _innermost(frame: FrameType | None) -> str:
    """The places of the callers, outside the import machinery: "file:line file:line"."""
    places: list[str] = []
    while frame is not None and len(places) < _TRACE_DEPTH:
        if "importlib" not in frame.f_code.co_filename:
            places.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return " ".join(places)


def _stuck(frame: FrameType | None) -> NoReturn:
    """The event loop stands still: end the process, and say where it does."""
    LOG.fatal(f"watchdog timeout ({_innermost(frame)})")
    _exit(1)


def _places(error: BaseException) -> str:
    """Where an error was raised, outermost frame first: "file:line file:line"."""
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(places[-_TRACE_DEPTH:])


def run_service(service: Service[J], startup: Startup, launch: Launch) -> NoReturn:
    """Be this daemon until the end of the process. The working directory is the queue directory."""
    try:
        prepared = service.prepare(startup)
        if startup.approved is not None and service.reads_approved:
            startup.approved.forget_contents()
        if not service.commands:  # the programs of users have limits of their own
            _raise_descriptor_limit()
            limit_memory(startup.config.size("service_memory_limit"))
        watchdog = startup.config.seconds(service.watchdog) if service.watchdog else 0.0
        enter_jail(launch.jail)
        if service.network and startup.config.bool("mail_network_syscall_filter"):
            forbid(names=not service.makes_files(startup.config))
        gc.set_threshold(*_GC_THRESHOLDS)
        if os.environ.get(_FORBID_LATE_IMPORTS):
            sys.meta_path.insert(0, _NoImports())

        async def main() -> None:
            runtime = Runtime(startup, launch, watchdog)
            await runtime.run(lambda runtime: service.start(prepared, runtime))

        uvloop.install()
        asyncio.run(main())
    except (Fatal, ConfigError) as err:
        for warning in err.warnings if isinstance(err, ConfigError) else ():
            LOG.warning(warning)
        LOG.fatal(str(err))
        _exit(1)
    except Exception as err:  # noqa: BLE001  the one top-level guard: say what died, let master count
        LOG.panic(f"{type(err).__name__}: {err} ({_places(err)})")
        _exit(1)
    _exit(0)


def _exit(status: int) -> NoReturn:
    """Without clean-up handlers, which belong to the process that this one was forked from."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
