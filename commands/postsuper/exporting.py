"""postsuper --export DIRECTORY: the mail in the queue, for any mail system that has a sendmail(1).

Of a message the directory gets, for each kind of notification that some of its recipients want:

    ID.N.recipients   a recipient a line, in external form: who has not got the message yet, and who
                      it failed for without that the sender has been told
    ID.N.options      an argument a line of Postfix's sendmail(1): NOTIFY, RET, ENVID and the like
    ID.N.sender       the envelope sender, "<>" for none
    ID.message        header and body, with lines as UNIX has them

and, of mail on hold, the same in `hold`. `submit` there gives it all to sendmail(1), and removes
what that has accepted. Durable first, forgotten last: a message leaves the queue when its files
are on disk. A second run goes on where the first was interrupted, with files of the same names.

Reads and removes: the queue, as mail_owner. Writes: the directory, which is root's.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from libmail.files.durable import sync_directory
from libmail.ipc.messages import DsnNotify, Envelope, EnvelopeFlag, QueueId, Recipient
from libmail.log import LOG
from libmail.privileges import Identity, acting_as
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFile, QueueFileCorrupt
from libmail.queue.reasons import ReasonLog
from libmail.service.master_lock import PID_FILE, open_lock
from libmail.text.quoting import quote_local

__all__ = ["ExportError", "Exported", "export_queue"]

_QUEUES: Final = ("maildrop", "hold", "incoming", "active", "deferred")
_LOGS: Final = ("bounce", "defer", "trace")
_SCRIPT: Final = "submit"
_AT_ONCE: Final = 100  # messages that are committed together
_NOTIFY: Final = (
    (DsnNotify.NEVER, "never"),
    (DsnNotify.SUCCESS, "success"),
    (DsnNotify.FAILURE, "failure"),
    (DsnNotify.DELAY, "delay"),
)
_TEXT: Final = """\
#!/bin/sh
# submit [SENDMAIL]: gives the mail in this directory to another mail system, and removes what that
# has accepted.  Mail on hold is in the directory hold, which has a script like this one: what
# that submits is delivered.  A second run goes on where the first one stopped.
sendmail=${1:-/usr/sbin/sendmail}
cd "$(dirname "$0")" || exit 1

# NOTIFY, RET and ENVID mean something else to others than Postfix.
options=
[ ! -x "$(dirname "$sendmail")/postconf" ] || options=y

submitted=0
failed=0
for recipients in *.recipients; do
    [ -e "$recipients" ] || continue
    name=${recipients%.recipients}
    message=${name%.*}.message
    set -- -i -f "$(cat "$name.sender")"
    if [ -n "$options" ]; then
        while IFS= read -r word; do set -- "$@" "$word"; done <"$name.options"
    fi
    set -- "$@" --
    while IFS= read -r word; do set -- "$@" "$word"; done <"$recipients"
    if "$sendmail" "$@" <"$message"; then
        rm -f "$recipients" "$name.options" "$name.sender"
        submitted=$((submitted + 1))
    else
        echo "$recipients: not accepted" >&2
        failed=$((failed + 1))
    fi
done
for message in *.message; do
    [ -e "$message" ] || continue
    set -- "${message%.message}".*.recipients
    [ -e "$1" ] || rm -f "$message"
done
echo "Submitted: $submitted, not accepted: $failed"
[ $failed = 0 ]
"""


class ExportError(Exception):
    """The directory cannot be used. The text is fit to follow "fatal: "."""


@dataclass(slots=True)
class Exported:
    """How many messages were what. failed: still in the queue."""

    exported: int = 0
    held: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a message is in the queue."""

    queue_name: str
    queue_id: QueueId
    path: str


def export_queue(
    target: str, directory: QueueDirectory, owner: Identity, *, privileged: bool
) -> Exported:
    """Export all mail. The working directory is that of the queue, whose system is stopped.

    target: absolute; it does not exist, or is of an earlier run. privileged: this is root.
    Raises ExportError, LockHeld, OSError.
    """
    lock = open_lock(PID_FILE)
    try:
        exporter = _Exporter(target, directory, owner, privileged=privileged)
        return exporter.run()
    finally:
        os.close(lock)


class _Exporter:
    def __init__(
        self, target: str, directory: QueueDirectory, owner: Identity, *, privileged: bool
    ) -> None:
        self._target = target
        self._directory = directory
        self._owner = owner
        self._privileged = privileged
        self._done = Exported()
        self._written: list[int] = []  # descriptors of files that are not on disk yet
        self._leaving: list[_Place] = []

    def _as_owner(self) -> AbstractContextManager[None]:
        return acting_as(self._owner) if self._privileged else nullcontext()

    def run(self) -> Exported:
        with self._as_owner():
            found = list(self._messages())
        if found:
            _prepare(self._target)
        for place in found:
            self._export(place)
            if len(self._leaving) >= _AT_ONCE:
                self._commit()
        self._commit()
        return self._done

    def _messages(self) -> Iterator[_Place]:
        for name in _QUEUES:
            for entry in self._directory.scan(name):
                yield _Place(name, QueueId(entry.name), entry.path)

    def _export(self, place: _Place) -> None:
        try:
            with self._as_owner():
                file = QueueFile(place.path)
            with file:
                self._write(place, file)
        except FileNotFoundError:
            return
        except (QueueFileCorrupt, OSError, ValueError) as err:
            why = err.strerror if isinstance(err, OSError) else str(err)
            LOG.warning(f"{place.path}: not exported: {why}")
            self._done.failed += 1

    def _write(self, place: _Place, file: QueueFile) -> None:
        """Raises QueueFileCorrupt, OSError, and ValueError for what no argument can hold."""
        envelope = file.envelope()
        if envelope.flags & (EnvelopeFlag.PROBE | EnvelopeFlag.VERIFY_ONLY):
            self._leaving.append(place)  # nothing is delivered of these
            return
        held = place.queue_name == "hold"
        folder = f"{self._target}/hold" if held else self._target
        submissions = _submissions(envelope, self._recipients(place, file, envelope))
        options = _options(envelope, submitted=place.queue_name != "maildrop")
        if submissions:
            self._save(f"{folder}/{place.queue_id}.message", _content(file))
        for number, (notify, recipients) in enumerate(submissions):
            name = f"{folder}/{place.queue_id}.{number}"
            own = ["-N", notify] if notify else []
            self._save(f"{name}.options", [_lines([*options, *own])])
            sender = quote_local(envelope.sender) if envelope.sender else "<>"
            self._save(f"{name}.sender", [_lines([sender])])
            self._save(f"{name}.recipients", [_lines(recipients)])
        LOG.info(f"{place.queue_id}: exported to {folder}")
        self._leaving.append(place)
        self._done.held += held
        self._done.exported += not held

    def _recipients(self, place: _Place, file: QueueFile, envelope: Envelope) -> list[Recipient]:
        """Those still to do, and those whose failure nobody has reported: it happens again."""
        if envelope.redirect:
            return [Recipient(envelope.redirect)]
        found = {one.address: one for one in file.recipients()}
        with self._as_owner():
            for target in ReasonLog(self._directory, "bounce").read(place.queue_id):
                failed = Recipient(target.address, target.orig_rcpt, "", target.notify)
                found.setdefault(failed.address, failed)
        return list(found.values())

    def _save(self, path: str, pieces: Sequence[bytes] | Iterator[bytes]) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._written.append(fd)
        for piece in pieces:
            while piece:
                piece = piece[os.write(fd, piece) :]

    def _commit(self) -> None:
        """Put what was written on disk, then remove it from the queue."""
        written, self._written = self._written, []
        for fd in written:
            os.fsync(fd)
            os.close(fd)
        if written:
            sync_directory(self._target)
            sync_directory(f"{self._target}/hold")
        leaving, self._leaving = self._leaving, []
        with self._as_owner():
            for place in leaving:
                for log in _LOGS:
                    self._directory.remove(log, place.queue_id)
                os.unlink(place.path)


def _prepare(target: str) -> None:
    """Make the directory, with its scripts. Raises ExportError, OSError."""
    if os.path.isdir(target) and os.listdir(target) and not os.path.exists(f"{target}/{_SCRIPT}"):
        raise ExportError(f"{target}: this directory is not empty, and of no earlier export")
    for folder in (target, f"{target}/hold"):
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        with open(f"{folder}/{_SCRIPT}", "w", encoding="ascii") as file:
            file.write(_TEXT)
            os.fchmod(file.fileno(), 0o700)


def _submissions(
    envelope: Envelope, recipients: Sequence[Recipient]
) -> list[tuple[str, list[str]]]:
    """(value of -N, recipients in external form) of each message for sendmail(1)."""
    groups: dict[int, list[str]] = {}
    for one in recipients:
        notify = one.notify if envelope.sender else 0
        groups.setdefault(notify, []).append(quote_local(one.address))
    return [
        (",".join(word for bit, word in _NOTIFY if notify & bit), found)
        for notify, found in groups.items()
    ]


def _options(envelope: Envelope, *, submitted: bool) -> list[str]:
    """Arguments of sendmail(1). submitted: it has been through cleanup(8), which completes it."""
    options = ["-G"] if submitted else []
    if not submitted and envelope.full_name:
        options += ["-F", envelope.full_name]
    if len(envelope.dsn_envid) > 2:  # two characters would be taken for those of VERP
        options += ["-V", envelope.dsn_envid]
    if envelope.flags & EnvelopeFlag.DSN_HEADERS:
        options += ["-R", "hdrs"]
    if envelope.flags & EnvelopeFlag.DSN_FULL:
        options += ["-R", "full"]
    if envelope.flags & EnvelopeFlag.EIGHTBIT:
        options += ["-B", "8BITMIME"]
    if envelope.verp_delims:
        options.append(f"-XV{envelope.verp_delims}")
    return options


def _lines(words: Sequence[str]) -> bytes:
    """Raises ValueError for a word that is no line."""
    for word in words:
        if "\n" in word or "\0" in word:
            raise ValueError(f"an address or option contains a line end: {word[:80]!r}")
    return "".join(f"{word}\n" for word in words).encode("utf-8", "surrogateescape")


def _content(file: QueueFile) -> Iterator[bytes]:
    """Header and body with LF for CRLF."""
    waiting = b""  # a CR whose LF may come with the next piece
    for piece in (file.header(), *file.body()):
        data = waiting + piece
        waiting = b"\r" if data.endswith(b"\r") else b""
        yield data[: len(data) - len(waiting)].replace(b"\r\n", b"\n")
    yield waiting
