"""The manual: a page for every program, that says what is true of it as far as that can be seen."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from libmail.config.declared import all_parameters
from libmail.config.families import FAMILIES
from libmail.config.parameters.without_effect import NEVER
from libmail.log import Fatal
from master.main import parse_options
from tests.unit.libmail.config.readers import fields_of

ROOT = Path(__file__).resolve().parents[2]
MANUAL = ROOT / "man"
OTHERS = (
    "comsat",
    "group",
    "inetd",
    "init",
    "logrotate",
    "openssl",
    "passwd",
    "syslogd",
)  # pages of the system
LINK = re.compile(r"\.so (man\d/\S+)\n")
OTHER_NAMES = {
    1: ("mailq", "newaliases"),
    8: ("defer", "lmtp", "oqmgr", "proxywrite", "retry", "trace"),
}
# What so many daemons read in the same sense that not every page has it.
EVERYWHERE = re.compile(
    r".*_service_name|hash_queue_\w+|inet_\w+|ipc_\w+|mail_(?:name|network_user|owner)|proxy_interfaces"
    r"|my(?:destination|domain|hostname|origin)|recipient_delimiter|smtputf8_enable"
)
MACROS = ("Ar", "Cm", "Li", "No", "Ns", "Op")
LETTERS = (*string.ascii_letters, *"468#")


def programs(folder: str, entry: str) -> list[str]:
    """Names of the modules and packages in a folder that have the entry."""
    found = []
    for path in (ROOT / folder).iterdir():
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix != ".py" or path.name[0] == "_" or not file.is_file():
            continue
        if re.search(rf"\b{entry}\b", file.read_text("utf-8")):
            found.append(path.stem.replace("_", "-"))
    return sorted(found)


COMMANDS = programs("commands", "main")
DAEMONS = [*programs("daemons", "SERVICE"), "master"]
WRITTEN = sorted(
    path for path in MANUAL.glob("man?/*.?") if not LINK.fullmatch(path.read_text("utf-8"))
)
PAGES = [path for path in WRITTEN if path.suffix in (".1", ".8")]


def page(section: int, name: str) -> str:
    """Source of a page."""
    return (MANUAL / f"man{section}" / f"{name}.{section}").read_text("utf-8")


def names_of(text: str) -> list[str]:
    """The names that a page is about."""
    return re.findall(r"^\.Nm (\S+)", part(text, "NAME"), re.MULTILINE)


def part(text: str, title: str) -> str:
    """A section of a page; "" if there is none."""
    return text.partition(f"\n.Sh {title}\n")[2].partition("\n.Sh ")[0]


def flags(text: str) -> set[str]:
    """Letters of the options on these lines."""
    found: set[str] = set()
    for line in text.replace("\\&", "").splitlines():
        after_flag = False
        for word in line.lstrip(".").split():
            if word == "Fl" or (after_flag and word == "|"):
                after_flag = True
            elif after_flag and word not in MACROS and word[0] not in "-,":
                found.update(word)
            else:
                after_flag = False
    return found


def items(text: str) -> Iterator[str]:
    """The heads of lists."""
    yield from re.findall(r"^\.It (.*)", text.replace("\\\n", ""), re.MULTILINE)


def parameters(text: str) -> set[str]:
    """Names behind Va."""
    found: set[str] = set()
    for arguments in re.findall(r"^\.(?:It )?Va (.*)", text.replace("\\\n", ""), re.MULTILINE):
        for word in arguments.split():
            if not re.match(r"[a-z0-9]", word):
                if word[0].isupper():
                    break  # another macro
                continue
            found.add(word)
    return found


def accepted(command: str, letter: str, capfd: pytest.CaptureFixture[str]) -> bool:
    """Whether a command knows an option: if so, what it complains about is the one behind it."""
    # The first -% is the argument of an option that has one.
    status = import_module(f"commands.{command.replace('-', '_')}").main([f"-{letter}", "-%", "-%"])
    assert status, command
    told = capfd.readouterr().err
    return not re.search(rf"option (-- '{letter}'|-{letter} )", told)


@pytest.mark.parametrize(
    ("section", "name"),
    [
        *((1, name) for name in (*COMMANDS, *OTHER_NAMES[1])),
        *((8, name) for name in (*DAEMONS, *OTHER_NAMES[8])),
    ],
)
def test_there_is_a_page(section: int, name: str) -> None:
    text = page(section, name)
    link = LINK.fullmatch(text)
    if link:
        text = (MANUAL / link[1]).read_text("utf-8")
    assert name in names_of(text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_parameters_of_a_page_exist_and_do_something(path: Path) -> None:
    known = {*all_parameters(), *(f"transport{suffix}" for suffix in FAMILIES)}
    known |= {f"service{suffix}" for suffix in FAMILIES}
    named = parameters(path.read_text("utf-8"))
    assert named - known == set()
    assert named & NEVER == set()


@pytest.mark.parametrize(
    "path", [path for path in PAGES if path.suffix == ".8"], ids=lambda path: path.name
)
def test_a_daemon_reads_the_parameters_in_its_page(path: Path) -> None:
    text = path.read_text("utf-8")
    readers = {"*", *names_of(text)}
    for item in items(part(text, "CONFIGURATION PARAMETERS")):
        for name in parameters(f".It {item}") & set(all_parameters()):
            programs_of = all_parameters()[name].programs.split()
            assert readers.intersection(programs_of), name


@pytest.mark.parametrize("name", DAEMONS)
def test_the_page_of_a_daemon_names_what_it_reads(name: str) -> None:
    text = page(8, name)
    if not LINK.fullmatch(text):
        missing = fields_of(name) - parameters(text)
        assert {parameter for parameter in missing if not EVERYWHERE.fullmatch(parameter)} == set()


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_pages_that_a_page_refers_to_exist(path: Path) -> None:
    for name, section in re.findall(r"^\.Xr (\S+) (\d)", path.read_text("utf-8"), re.MULTILINE):
        if section in "158" and name not in OTHERS:
            assert (MANUAL / f"man{section}" / f"{name}.{section}").is_file(), name


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command(
    command: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    known = {letter for letter in LETTERS if accepted(command, letter, capfd)}
    text = page(1, command)
    listed = set().union(*(flags(item) for item in items(text)))
    if command == "sendmail":
        assert {letter for letter in listed if letter.isalpha()} == known
        return
    assert flags(part(text, "SYNOPSIS")) == known
    assert listed == known


def test_options_of_master() -> None:
    known = set()
    for letter in LETTERS:
        try:
            parse_options([f"-{letter}", "-%", "-%"])
        except Fatal as err:
            if f"option -{letter} " not in str(err):
                known.add(letter)
    text = page(8, "master")
    assert flags(part(text, "SYNOPSIS")) == known
    assert set().union(*(flags(item) for item in items(text))) == known
