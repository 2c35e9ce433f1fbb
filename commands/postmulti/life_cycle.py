"""postmulti -e: instances come, change and go.

Changes of a main.cf are postconf(1)'s, directories are made by `postfix check` of the new
instance.  What is destroyed is only what was created here, and only without mail in it.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from commands.postmulti.instances import Failure, Instance, Selection, find
from libmail.config import Config
from libmail.config.programs import program_directory
from libmail.queue.directory import MESSAGE_QUEUES, QUEUES, QueueDirectory
from libmail.service.master_lock import PID_FILE, is_running
from libmail.text.printable import complain

__all__ = ["ACTIONS", "Order", "perform"]

_PREFIX: Final = "postfix-"
_FILES: Final = ("main.cf", "master.cf")
_DIRECTORIES: Final = ("config_directory", "queue_directory", "data_directory")
_WRAPPER: Final = "${command_directory}/postmulti -p --"
# A new instance listens nowhere and takes no mail of users before somebody says so.
_QUIET: Final = ("master_service_disable=inet", "authorized_submit_users=")


@dataclass(slots=True)
class Order:
    """name, group: of the instance from now on; None: as it is, "-": none."""

    action: str = ""
    name: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class _Work:
    """What an action works on.  config, instances: of the primary one, and all of them."""

    config: Config
    instances: Sequence[Instance]
    selection: Selection
    order: Order
    words: Sequence[str]

    def named(self) -> Instance:
        """The instance of -i.  Raises Failure."""
        if self.selection.name is None:
            raise Failure(f"Specify an instance with '-i' for '-e {self.order.action}'")
        return find(self.instances, self.selection.name)

    def secondary(self) -> Instance:
        """The same, but not the primary one.  Raises Failure."""
        found = self.named()
        if found.primary:
            raise Failure(f"Cannot {self.order.action} the primary instance")
        return found

    def edit(self, directory: str, settings: Sequence[str]) -> None:
        """Write settings into a main.cf.  Raises Failure."""
        program = program_directory(self.config, "command_directory") + "/postconf"
        done = subprocess.run([program, "-c", directory, "-e", *settings], check=False)
        if done.returncode != 0:
            raise Failure(f"{directory}/main.cf was not changed")

    def list_instances(self, directories: Sequence[str]) -> None:
        """Write which secondary instances there are.  Raises Failure."""
        text = " ".join(directories)
        self.edit(self.config.directory, [f"multi_instance_directories={text}"])


def perform(
    config: Config, instances: Sequence[Instance], selection: Selection, order: Order,
    words: Sequence[str],
) -> None:  # fmt: skip
    """Do what -e asks for.  words: name=value arguments.  Raises Failure, ConfigError, OSError."""
    if order.action not in ("create", "import") and words:
        raise Failure(f"Parameter overrides not valid with '-e {order.action}'")
    if order.action != "init" and not config.text("multi_instance_wrapper"):
        raise Failure("Multi-instance support is not enabled: run 'postmulti -e init' first")
    _check_name(instances, order)
    ACTIONS[order.action](_Work(config, instances, selection, order, words))


def _check_name(instances: Sequence[Instance], order: Order) -> None:
    name = order.name
    if name is None or name == "-":
        return
    if not name.startswith(_PREFIX) or "/" in name or len(name.split()) != 1:
        raise Failure(f"Invalid instance name '{name}'. It must start with '{_PREFIX}'")
    if any(one.name == name for one in instances):
        raise Failure(f"Instance '{name}' already exists")


def _init(work: _Work) -> None:
    settings = [f"multi_instance_wrapper={_WRAPPER}", "multi_instance_enable=yes"]
    work.edit(work.config.directory, settings)


def _create(work: _Work) -> None:
    """A new instance; one whose directory has its files already is taken as it is."""
    places = _places(work, _DIRECTORIES)
    directory = places["config_directory"]
    if not all(os.path.exists(f"{directory}/{name}") for name in _FILES):
        _make(work, places)
        work.edit(directory, [*(f"{name}={path}" for name, path in places.items()
                                if name != "config_directory"), *_QUIET])  # fmt: skip
    _enlist(work, directory)
    program = program_directory(work.config, "command_directory") + "/postfix"
    subprocess.run([program, "-c", directory, "check"], check=False)


def _make(work: _Work, places: Mapping[str, str]) -> None:
    """The directory and its files, from main.cf.proto and master.cf.proto.  Raises OSError."""
    directory = places["config_directory"]
    meta = work.config.text("meta_directory")
    os.makedirs(directory, 0o755, exist_ok=True)
    for name in _FILES:
        template = f"{meta}/{name}.proto"
        if not os.path.exists(template):
            template = f"{work.config.directory}/{name}"
        shutil.copyfile(template, f"{directory}/{name}")
        os.chmod(f"{directory}/{name}", 0o644)


def _import(work: _Work) -> None:
    directory = _places(work, ("config_directory",))["config_directory"]
    missing = [name for name in _FILES if not os.path.exists(f"{directory}/{name}")]
    if missing:
        raise Failure(f"{directory}/{missing[0]}: No such file: nothing to import")
    _enlist(work, directory)


def _places(work: _Work, names: Sequence[str]) -> dict[str, str]:
    """Directories of a new instance: as given, or beside the primary one's.  Raises Failure."""
    given = dict(word.partition("=")[::2] for word in work.words)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise Failure(f"Parameter overrides not valid: {unknown[0]}")
    places = {}
    for name in names:
        path = given.get(name)
        if path is None:
            if work.order.name in (None, "-"):
                raise Failure(f"Specify {name}=, or a name with '-I'")
            path = f"{os.path.dirname(work.config.text(name))}/{work.order.name}"
        if not path.startswith("/"):
            raise Failure(f"Invalid {name} path: {path}: it must be absolute")
        places[name] = os.path.normpath(path)
    _check_unused(work, places)
    return places


def _check_unused(work: _Work, places: Mapping[str, str]) -> None:
    for one in work.instances:
        used = {one.directory, one.queue, one.data}
        for name, path in places.items():
            if path in used:
                raise Failure(f"{name} {path} is already used by instance {one.directory}")


def _enlist(work: _Work, directory: str) -> None:
    """Name the instance, and put it where the selection says, or at the end."""
    _name(work, directory)
    others = [one for one in work.instances if not one.primary]
    at = len(others)
    if work.selection.everything:
        at = 0
    elif work.selection.name is not None:
        at = others.index(work.secondary())
    elif work.selection.group is not None:
        groups = [one.group for one in others]
        at = groups.index(work.selection.group) if work.selection.group in groups else at
    directories = [one.directory for one in others]
    work.list_instances([*directories[:at], directory, *directories[at:]])


def _name(work: _Work, directory: str) -> None:
    named = (("multi_instance_name", work.order.name), ("multi_instance_group", work.order.group))
    settings = [f"{key}={'' if value == '-' else value}" for key, value in named if value]
    if settings:
        work.edit(directory, settings)


def _assign(work: _Work) -> None:
    _name(work, work.named().directory)


def _enable(work: _Work) -> None:
    work.edit(work.named().directory, ["multi_instance_enable=yes"])


def _disable(work: _Work) -> None:
    work.edit(work.named().directory, ["multi_instance_enable=no"])


def _deport(work: _Work) -> None:
    gone = work.secondary()
    others = [one.directory for one in work.instances if not one.primary and one is not gone]
    work.list_instances(others)


def _destroy(work: _Work) -> None:
    """Remove what the system has made; the directories too, unless something else is in them."""
    gone = work.secondary()
    if gone.enabled:
        raise Failure(f"Instance {gone.directory} is enabled: disable it first")
    if is_running(f"{gone.queue}/{PID_FILE}"):
        raise Failure(f"Instance {gone.directory} is running: stop it first")
    _check_empty(gone)
    _deport(work)
    for name in (*QUEUES, "private", "public", "pid", "import", "spare", "tlstrace"):
        shutil.rmtree(f"{gone.queue}/{name}", ignore_errors=True)
    shutil.rmtree(gone.data, ignore_errors=True)
    for name in (*_FILES, "makedefs.out"):
        with suppress(FileNotFoundError):
            os.unlink(f"{gone.directory}/{name}")
    for path in (gone.queue, gone.directory):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as err:
            complain("postmulti", f"warning: {path}: {err.strerror}: it was not removed")


def _check_empty(instance: Instance) -> None:
    directory = QueueDirectory(frozenset())
    for name in MESSAGE_QUEUES:
        if any(True for _ in directory.scan(f"{instance.queue}/{name}")):
            raise Failure(f"Instance {instance.directory} still has mail in {name}")


ACTIONS: Final[Mapping[str, Callable[[_Work], None]]] = {
    "create": _create,
    "import": _import,
    "init": _init,
    "enable": _enable,
    "disable": _disable,
    "assign": _assign,
    "destroy": _destroy,
    "deport": _deport,
}
