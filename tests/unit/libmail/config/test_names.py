"""myhostname, mydomain and myorigin: what they may be, and a file that tells the origin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from libmail.config import ConfigError, open_config


@dataclass(frozen=True, slots=True)
class Names:
    myhostname: str
    mydomain: str
    myorigin: str


def load(folder: Path, text: str) -> Names:
    (folder / "main.cf").write_text(f"myhostname = mail.example.test\n{text}")
    return open_config(str(folder)).load(Names)


@pytest.mark.parametrize(
    ("content", "origin"),
    [
        ("mail.example.test  \nsecond.example.test\n", "mail.example.test"),
        ("bare.example.test", "bare.example.test"),
        ("\t crlf.example.test\r\n", "crlf.example.test"),
    ],
)
def test_the_origin_is_the_first_line_of_a_file(tmp_path: Path, content: str, origin: str) -> None:
    (tmp_path / "mailname").write_text(content)
    assert load(tmp_path, f"myorigin = {tmp_path}/mailname\n").myorigin == origin


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "NAME: cannot open file: No such file or directory"),
        ("", "myorigin file NAME is empty"),
        ("\n\nlater.example.test\n", "myorigin file NAME is empty"),
        ("# x\n", "myorigin parameter setting must not contain multiple values: # x"),
        ("a,b\n", "myorigin parameter setting must not contain multiple values: a,b"),
    ],
)
def test_a_file_without_an_origin(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "mailname"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"myorigin = {path}\n")
    assert str(caught.value) == problem.replace("NAME", str(path))


def test_a_folder_is_no_origin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot open file: Is a directory"):
        load(tmp_path, f"myorigin = {tmp_path}\n")


BAD_NAMES = [
    ("127.0.0.1", "numeric hostname: 127.0.0.1"),
    ("-host.example.test", "misplaced hyphen: -host.example.test"),
    ("host..test", "misplaced delimiter: host..test"),
    ("a" * 64 + ".test", f"hostname label too long: {'a' * 64}.test"),
    ("a b", "invalid character 32(decimal): a b"),
    ("", "empty hostname"),
]


@pytest.mark.parametrize("name", ["myhostname", "mydomain"])
@pytest.mark.parametrize(("value", "problem"), BAD_NAMES)
def test_names_of_the_host(tmp_path: Path, name: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"{name} = {value}\n")
    file = f"file {tmp_path}/main.cf"
    assert str(caught.value) == f"{file}: parameter {name}: bad parameter value: {value}"
    assert caught.value.warnings == (f"valid_hostname: {problem}",)
