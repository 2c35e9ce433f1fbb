"""postmulti(1): which instances a command is for; what becomes of those that are not enabled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from commands.postmulti import parse, plan
from commands.postmulti.instances import (
    Failure,
    Instance,
    Selection,
    chosen,
    environment,
    read_instances,
)
from commands.postmulti.life_cycle import Order, perform
from libmail.config import Config, open_config


def instance(name: str, group: str = "", *, enabled: bool = True) -> Instance:
    return Instance(
        f"/etc/{name}", f"/var/spool/{name}", f"/var/lib/{name}", name, group, enabled, False
    )


PRIMARY = Instance("/etc/postfix", "/var/spool/postfix", "/var/lib/postfix", "", "", True, True)
IN = instance("postfix-in", "mta")
OUT = instance("postfix-out", "mta", enabled=False)
ALL = [PRIMARY, IN, OUT]


def configuration(folder: Path, main: str = "") -> Config:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.cf").write_text(main)
    return open_config(str(folder))


def test_instances_of_a_configuration(tmp_path: Path) -> None:
    other = tmp_path / "postfix-out"
    configuration(other, "multi_instance_name = postfix-out\nmulti_instance_group = g\n")
    config = configuration(tmp_path / "postfix", f"multi_instance_directories = {other}\n")
    first, second = read_instances(config)
    assert (first.name, first.primary, first.enabled) == ("", True, True)
    assert (second.name, second.group, second.enabled) == ("postfix-out", "g", False)


def test_the_primary_one_may_be_disabled_where_instances_are_managed(tmp_path: Path) -> None:
    config = configuration(tmp_path, "multi_instance_wrapper = postmulti -p --\n")
    assert not read_instances(config)[0].enabled


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ALL),
        (Selection(name="-"), [PRIMARY]),
        (Selection(name="postfix-in"), [IN]),
        (Selection(name="/etc/postfix-in"), [IN]),
        (Selection(group="mta"), [IN, OUT]),
        (Selection(group="none"), []),
    ],
)
def test_selection(selection: Selection, expected: Sequence[Instance]) -> None:
    assert chosen(ALL, selection) == expected


def test_no_such_instance() -> None:
    with pytest.raises(Failure, match="postfix-inn"):
        chosen(ALL, Selection(name="postfix-inn"))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("start", [(PRIMARY, ["start"]), (IN, ["start"]), (OUT, ["check"])]),
        ("stop", [(IN, ["stop"]), (PRIMARY, ["stop"])]),
        ("reload", [(PRIMARY, ["reload"]), (IN, ["reload"])]),
        ("status", [(PRIMARY, ["status"]), (IN, ["status"]), (OUT, ["status"])]),
    ],
)
def test_plan(tmp_path: Path, command: str, expected: list[tuple[Instance, list[str]]]) -> None:
    assert plan(configuration(tmp_path), ALL, [command]) == expected


def test_environment(tmp_path: Path) -> None:
    found = environment(configuration(tmp_path), OUT)
    assert found["MAIL_CONFIG"] == found["config_directory"] == "/etc/postfix-out"
    assert found["queue_directory"] == "/var/spool/postfix-out"
    assert found["multi_instance_enable"] == "no"


@pytest.mark.parametrize(
    "words",
    [[], ["-l", "x"], ["-p"], ["-x"], ["-l", "-p", "start"], ["-e", "bad"], ["-R", "-p", "start"],
     ["-z"]],
)  # fmt: skip
def test_what_makes_no_sense(words: list[str]) -> None:
    with pytest.raises(Failure):
        parse(words)


def test_options() -> None:
    options = parse(["-v", "-i", "-", "-p", "reload"])
    assert (options.mode, options.selection.name, options.words) == ("p", "-", ["reload"])
    options = parse(["-e", "create", "-I", "postfix-a", "-G", "g", "config_directory=/x"])
    assert options.order == Order("create", "postfix-a", "g")
    assert parse(["-p", "--", "start"]).words == ["start"]


@pytest.mark.parametrize(
    ("order", "selection", "words", "complaint"),
    [
        (Order("create", "other"), Selection(), [], "must start with"),
        (Order("create", "postfix-in"), Selection(), [], "already exists"),
        (Order("create"), Selection(), [], "or a name with '-I'"),
        (Order("create", "postfix-b"), Selection(), ["queue_directory=here"], "absolute"),
        (Order("create", "postfix-b"), Selection(), ["data_directory=/var/lib/postfix-in"],
         "already used"),
        (Order("create", "postfix-b"), Selection(), ["myhostname=x"], "not valid"),
        (Order("enable"), Selection(), ["x=y"], "not valid"),
        (Order("enable"), Selection(), [], "Specify an instance"),
        (Order("destroy"), Selection(name="-"), [], "primary"),
        (Order("destroy"), Selection(name="postfix-in"), [], "disable it first"),
    ],
)  # fmt: skip
def test_orders_that_are_refused(
    tmp_path: Path, order: Order, selection: Selection, words: list[str], complaint: str
) -> None:
    config = configuration(tmp_path, "multi_instance_wrapper = x\n")
    with pytest.raises(Failure, match=complaint):
        perform(config, ALL, selection, order, words)


def test_init_comes_first(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="postmulti -e init"):
        perform(configuration(tmp_path), ALL, Selection(), Order("create", "postfix-b"), [])


def test_mail_is_not_destroyed(tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    (queue / "hold").mkdir(parents=True)
    (queue / "hold/0123456789A").touch()
    gone = Instance(f"{tmp_path}/x", str(queue), f"{tmp_path}/data", "postfix-x", "", False, False)
    config = configuration(tmp_path, "multi_instance_wrapper = x\n")
    with pytest.raises(Failure, match="still has mail in hold"):
        perform(config, [PRIMARY, gone], Selection(name="postfix-x"), Order("destroy"), [])
    assert (queue / "hold/0123456789A").exists()
