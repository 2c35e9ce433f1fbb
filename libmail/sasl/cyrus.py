"""The Cyrus SASL library (libsasl2), server side, bound without a compiler by cffi's ABI mode.

Importing this module raises ImportError where the library is not installed. The declarations are
those of the manual pages (section 3, sasl_server_new and others).

Callbacks are made once, at import, which master does before it forks: one that is made after a fork
could share its memory with another process. `Library` is made in the child, before its jail: the
library reads its configuration then, and loads its plugins.

Calls may take long: the library asks saslauthd, or a database, and waits. So they are made in
threads; a `Login` is used by one at a time. The library has locks for what its connections share;
here they are those of the C library.
"""

from __future__ import annotations

from threading import local
from typing import Final, NamedTuple, Protocol, TypeAlias, cast

import cffi

from libmail.sasl.mechanism import Mechanism, Property, valid_name
from libmail.sasl.server import AuthContext, Challenge, Failure, Step, Success

__all__ = ["CyrusError", "CyrusSettings", "Library", "Login", "Outcome"]

Handle: TypeAlias = "cffi.FFI.CData"

_NAMES: Final = ("libsasl2.so.2", "libsasl2.so.3")
_DECLARATIONS: Final = """
    typedef struct sasl_conn sasl_conn_t;
    typedef struct { unsigned long id; int (*proc)(void); void *context; } sasl_callback_t;
    typedef struct {
        unsigned min_ssf, max_ssf, maxbufsize, security_flags;
        const char **property_names, **property_values;
    } sasl_security_properties_t;
    int sasl_server_init(const sasl_callback_t *callbacks, const char *appname);
    int sasl_server_new(const char *service, const char *serverFQDN, const char *user_realm,
                        const char *iplocalport, const char *ipremoteport,
                        const sasl_callback_t *callbacks, unsigned flags, sasl_conn_t **pconn);
    int sasl_setprop(sasl_conn_t *conn, int propnum, const void *value);
    int sasl_getprop(sasl_conn_t *conn, int propnum, const void **pvalue);
    int sasl_listmech(sasl_conn_t *conn, const char *user, const char *prefix, const char *sep,
                      const char *suffix, const char **result, unsigned *plen, int *pcount);
    int sasl_server_start(sasl_conn_t *conn, const char *mech, const char *clientin,
                          unsigned clientinlen, const char **serverout, unsigned *serveroutlen);
    int sasl_server_step(sasl_conn_t *conn, const char *clientin, unsigned clientinlen,
                         const char **serverout, unsigned *serveroutlen);
    void sasl_dispose(sasl_conn_t **pconn);
    const char *sasl_errstring(int saslerr, const char *langlist, const char **outlang);
    int sasl_set_path(int path_type, char *path);
    void sasl_set_mutex(void *(*alloc)(void), int (*lock)(void *), int (*unlock)(void *),
                        void (*free)(void *));
    int pthread_mutex_lock(void *mutex);
    int pthread_mutex_unlock(void *mutex);
"""
_OK, _CONTINUE = 0, 1
_BAD_AUTH: Final = -13
_NO_USER: Final = -20
# Trouble of ours, not of the client: FAIL, NOMEM, BUFOVER, BADPARAM, TRYAGAIN, NOTINIT, BADVERS,
# UNAVAIL, CONFIGERR.
_TEMPORARY: Final = frozenset((-1, -2, -3, -7, -8, -12, -23, -24, -100))
_USERNAME: Final = 0
_SECURITY: Final = 101
_CALLBACK_LOG: Final = 2
_CONFIGURATION: Final = 1  # of sasl_set_path
_MUTEX_SIZE: Final = 64  # octets, or more than any has; zeros are one that is free
_LONGEST: Final = 65536  # octets of a name, or of a challenge
_SECURITY_FLAGS: Final = {
    0x0001: Property.PLAINTEXT,
    0x0002: Property.ACTIVE,
    0x0004: Property.DICTIONARY,
    0x0010: Property.ANONYMOUS,
}
_SECURITY_REQUIRED: Final = {0x0008: Property.FORWARD_SECRECY, 0x0040: Property.MUTUAL_AUTH}
_HEADS: Final = {1: "problem", 2: "failure", 3: "problem"}  # by priority: ERR, FAIL, WARN


class CyrusError(Exception):
    """The library cannot be used. The text is printable."""


class _Functions(Protocol):
    """Of the library."""

    def sasl_server_init(self, callbacks: Handle, appname: bytes, /) -> int: ...
    def sasl_server_new(
        self,
        service: bytes,
        host: bytes,
        realm: bytes | Handle,
        local: bytes | Handle,
        remote: bytes | Handle,
        callbacks: Handle,
        flags: int,
        connection: Handle,
        /,
    ) -> int: ...
    def sasl_setprop(self, connection: Handle, number: int, value: Handle, /) -> int: ...
    def sasl_getprop(self, connection: Handle, number: int, value: Handle, /) -> int: ...
    def sasl_listmech(
        self,
        connection: Handle,
        user: Handle,
        prefix: bytes,
        separator: bytes,
        suffix: bytes,
        result: Handle,
        length: Handle,
        count: Handle,
        /,
    ) -> int: ...
    def sasl_server_start(
        self, connection: Handle, mechanism: bytes, data: bytes | Handle, size: int,
        out: Handle, length: Handle, /,
    ) -> int: ...  # fmt: skip
    def sasl_server_step(
        self, connection: Handle, data: bytes, size: int, out: Handle, length: Handle, /
    ) -> int: ...
    def sasl_dispose(self, connection: Handle, /) -> None: ...
    def sasl_errstring(self, status: int, languages: Handle, language: Handle, /) -> Handle: ...
    def sasl_set_path(self, kind: int, path: Handle, /) -> int: ...
    def sasl_set_mutex(
        self, alloc: Handle, lock: Handle, unlock: Handle, free: Handle, /
    ) -> None: ...


class _Locks(Protocol):
    """Of the C library; used by name only."""

    pthread_mutex_lock: Handle
    pthread_mutex_unlock: Handle


_FFI: Final = cffi.FFI()
_FFI.cdef(_DECLARATIONS)


def _opened() -> _Functions:
    for name in _NAMES:
        try:
            return cast(_Functions, _FFI.dlopen(name))
        except OSError:
            continue
    raise ImportError("the Cyrus SASL library (libsasl2) is not installed")


_SASL: Final = _opened()
_LIBC: Final = cast(_Locks, _FFI.dlopen(None))
_told: Final = local()  # lines: what the library has told since a call began, in this thread
_mutexes: Final[list[Handle]] = []


@_FFI.callback("int(void *, int, const char *)")
def _log(_: Handle, priority: int, message: Handle) -> int:
    head = _HEADS.get(priority)
    if head is not None:
        lines: list[str] = _told.__dict__.setdefault("lines", [])
        lines.append(f"SASL authentication {head}: {_text(message)}")
    return _OK


@_FFI.callback("void *(void)")
def _new_mutex() -> Handle:
    _mutexes.append(_FFI.new("char[]", _MUTEX_SIZE))
    return _FFI.cast("void *", _mutexes[-1])


@_FFI.callback("void(void *)")
def _free_mutex(_: Handle) -> None:
    """A library's few live as long as the process."""


def _handle(callback: object) -> Handle:
    """A callback as cffi has it: its decorator makes a pointer of the function."""
    return cast(Handle, callback)


def _text(value: Handle) -> str:
    data = _FFI.string(value, _LONGEST) if value != _FFI.NULL else b""
    return cast(bytes, data).decode("utf-8", "backslashreplace")


def _reason(status: int) -> str:
    # Whether there is such a user is nobody's business.
    shown = _BAD_AUTH if status == _NO_USER else status
    return _text(_SASL.sasl_errstring(shown, _FFI.NULL, _FFI.NULL))


def _take_lines() -> tuple[str, ...]:
    lines: list[str] = _told.__dict__.pop("lines", [])
    return tuple(lines)


class CyrusSettings(NamedTuple):
    """application: smtpd_sasl_path, the name of the configuration without ".conf". service:
    smtpd_sasl_service. host: ours. realm: smtpd_sasl_local_domain, "" for the library's choice.
    directories: with configurations, "" for the library's choice."""

    application: str
    service: str
    host: str
    realm: str
    directories: str


class Outcome(NamedTuple):
    """Of a call. lines: what the library had to tell, for the log."""

    step: Step
    lines: tuple[str, ...]


class Library:
    """One for each process."""

    def __init__(self, settings: CyrusSettings) -> None:
        """Read the configuration, load plugins. Raises CyrusError."""
        self._settings = settings
        _SASL.sasl_set_mutex(
            _handle(_new_mutex),
            _LIBC.pthread_mutex_lock,
            _LIBC.pthread_mutex_unlock,
            _handle(_free_mutex),
        )
        if settings.directories:
            self._directories = _FFI.new("char[]", settings.directories.encode())
            _SASL.sasl_set_path(_CONFIGURATION, self._directories)
        self._callbacks = _FFI.new("sasl_callback_t[2]")
        self._callbacks[0].id = _CALLBACK_LOG
        self._callbacks[0].proc = _FFI.cast("int(*)(void)", _handle(_log))
        status = _SASL.sasl_server_init(self._callbacks, settings.application.encode())
        self.lines = _take_lines()  # told meanwhile
        if status != _OK:
            raise CyrusError(f"SASL per-process initialization failed: {_reason(status)}")

    def connection(self, context: AuthContext) -> Handle:
        """A sasl_conn_t **, disposed of when nobody has it any more. Raises CyrusError."""
        settings = self._settings
        made = _FFI.new("sasl_conn_t **")
        status = _SASL.sasl_server_new(
            settings.service.encode(),
            settings.host.encode(),
            settings.realm.encode() or _FFI.NULL,
            _end(context.server_address, context.server_port),
            _end(context.client_address, context.client_port),
            _FFI.NULL,
            0,
            made,
        )
        if status != _OK:
            raise CyrusError(f"SASL per-connection server initialization: {_reason(status)}")
        return _FFI.gc(made, _SASL.sasl_dispose)

    def mechanisms(self) -> tuple[Mechanism, ...]:
        """What the library offers. Raises CyrusError."""
        context = AuthContext(self._settings.service, "", "", "", "")
        all_of_them = self._names(context, 0)
        properties = dict.fromkeys(all_of_them, Property.NONE)
        for flag, found in _SECURITY_FLAGS.items():
            for name in set(all_of_them) - set(self._names(context, flag)):
                properties[name] |= found
        for flag, found in _SECURITY_REQUIRED.items():
            for name in self._names(context, flag):
                properties[name] |= found
        return tuple(Mechanism(name, properties[name]) for name in all_of_them)

    def _names(self, context: AuthContext, flags: int) -> list[str]:
        """Mechanisms that are acceptable with these security flags, the best one first."""
        connection = self.connection(context)
        _secure(connection, flags)
        result = _FFI.new("const char **")
        null = _FFI.NULL
        status = _SASL.sasl_listmech(connection[0], null, b"", b" ", b"", result, null, null)
        if status != _OK:
            _take_lines()
            return []
        return [name for name in _text(result[0]).upper().split() if valid_name(name)]


def _secure(connection: Handle, flags: int) -> None:
    """Ask for properties; no security layers, for there is none in SMTP."""
    wanted = _FFI.new("sasl_security_properties_t *", {"security_flags": flags})
    _SASL.sasl_setprop(connection[0], _SECURITY, wanted)


def _end(address: str, port: str) -> bytes | Handle:
    """As the library writes addresses; NULL where one is not known."""
    known = address and port.isascii() and port.isdigit()
    return f"{address};{port}".encode() if known else _FFI.NULL


class Login:
    """One attempt to log in. Its calls may block."""

    def __init__(self, library: Library, context: AuthContext) -> None:
        self._library = library
        self._context = context
        self._connection: Handle | None = None

    def begin(self, mechanism: str, initial: bytes | None) -> Outcome:
        """Begin; initial: the client's initial response, None for none."""
        try:
            self._connection = self._library.connection(self._context)
        except CyrusError as error:
            return Outcome(Failure(str(error), temporary=True), _take_lines())
        _secure(self._connection, 0)
        out, length = _FFI.new("const char **"), _FFI.new("unsigned *")
        data = _FFI.NULL if initial is None else initial
        status = _SASL.sasl_server_start(
            self._connection[0], mechanism.encode(), data, len(initial or b""), out, length
        )
        return self._outcome(status, out, length)

    def step(self, response: bytes) -> Outcome:
        """Go on with the client's response."""
        if self._connection is None:
            raise AssertionError("never begun")
        out, length = _FFI.new("const char **"), _FFI.new("unsigned *")
        status = _SASL.sasl_server_step(self._connection[0], response, len(response), out, length)
        return self._outcome(status, out, length)

    def _outcome(self, status: int, out: Handle, length: Handle) -> Outcome:
        step: Step
        if status == _CONTINUE:
            size = min(length[0], _LONGEST)
            step = Challenge(_FFI.buffer(out[0], size)[:] if size else b"")
        elif status == _OK and (name := self._username()):
            step = Success(name)
        else:
            step = Failure(_reason(status), status in _TEMPORARY or status == _OK, self._username())
        return Outcome(step, _take_lines())

    def _username(self) -> str | None:
        """As far as it is known."""
        value = _FFI.new("const void **")
        if self._connection is None:
            return None
        status = _SASL.sasl_getprop(self._connection[0], _USERNAME, value)
        found = _text(_FFI.cast("const char *", value[0])) if status == _OK else ""
        return found or None
