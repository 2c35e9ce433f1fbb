"""The instances on this machine, as the main.cf files of all of them tell."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from libmail.config import Config, open_config
from libmail.config.programs import program_directory

__all__ = ["Failure", "Instance", "Selection", "chosen", "environment", "find", "read_instances"]


class Failure(Exception):
    """The text after "fatal: "."""


@dataclass(frozen=True, slots=True)
class Instance:
    """directory: of its main.cf.  name, group: "" if it has none."""

    directory: str
    queue: str
    data: str
    name: str
    group: str
    enabled: bool
    primary: bool


@dataclass(slots=True)
class Selection:
    """Which are meant: name, or directory ("-": the primary one), group, or all of them."""

    name: str | None = None
    group: str | None = None
    everything: bool = False


def read_instances(config: Config) -> list[Instance]:
    """The primary instance, whose configuration is given, and the others in their order.

    Raises ConfigError.
    """
    found = [_instance(config, primary=True)]
    for directory in config.list("multi_instance_directories"):
        found.append(_instance(open_config(directory, process_name="postmulti"), primary=False))
    return found


def _instance(config: Config, *, primary: bool) -> Instance:
    """The primary one counts as enabled as long as nobody manages instances."""
    alone = primary and not config.text("multi_instance_wrapper")
    return Instance(
        directory=config.directory,
        queue=config.text("queue_directory"),
        data=config.text("data_directory"),
        name=config.text("multi_instance_name"),
        group=config.text("multi_instance_group"),
        enabled=alone or config.bool("multi_instance_enable"),
        primary=primary,
    )


def chosen(instances: Sequence[Instance], selection: Selection) -> list[Instance]:
    """Those that are meant: all, if nothing is said.  Raises Failure for a name of none."""
    if selection.name is not None:
        return [find(instances, selection.name)]
    if selection.group is not None:
        return [one for one in instances if one.group == selection.group]
    return list(instances)


def find(instances: Sequence[Instance], name: str) -> Instance:
    """The instance of this name or directory.  Raises Failure."""
    for one in instances:
        if (name == "-" and one.primary) or (name and name in (one.name, one.directory)):
            return one
    raise Failure(f"No matching instance: {name}")


def environment(config: Config, instance: Instance) -> dict[str, str]:
    """What a command finds in its environment.  config: of the primary instance."""
    return {
        **os.environ,
        "MAIL_CONFIG": instance.directory,
        "command_directory": program_directory(config, "command_directory"),
        "daemon_directory": program_directory(config, "daemon_directory"),
        "config_directory": instance.directory,
        "queue_directory": instance.queue,
        "data_directory": instance.data,
        "multi_instance_name": instance.name,
        "multi_instance_group": instance.group,
        "multi_instance_enable": "yes" if instance.enabled else "no",
    }
