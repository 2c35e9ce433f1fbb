"""The code has the size that tests/measures.py allows, and the script sees what has not."""

from __future__ import annotations

from pathlib import Path

from tests.measures import Code, Part, problems, read_code


def test_the_code() -> None:
    assert problems(read_code()) == []


def made(root: Path, text: str) -> Code:
    (root / "libmail").mkdir()
    (root / "libmail" / "one.py").write_text(text)
    return read_code(root)


def test_functions_and_classes(tmp_path: Path) -> None:
    function = "def f(a: int) -> int:\n    return a\n\n\n"
    code = made(tmp_path, f"{function}class C:\n    def g(self) -> None:\n        pass\n")
    assert code.functions == [
        Part("libmail.one.f", "libmail/one.py:1", 2),
        Part("libmail.one.g", "libmail/one.py:6", 2),
    ]
    assert code.classes == [Part("libmail.one.C", "libmail/one.py:5", 3)]
    assert problems(code, frozenset()) == []


def test_what_is_too_long(tmp_path: Path) -> None:
    lines = "".join(f"    a{number} = {number}\n" for number in range(400))
    code = made(tmp_path, f"def f() -> None:\n{lines}\n\nclass C:\n{lines}")
    assert problems(code, frozenset()) == [
        "libmail/one.py:1: libmail.one.f has 401 lines",
        "libmail/one.py:404: libmail.one.C has 401 lines",
    ]
    assert problems(code, frozenset({"libmail.one.f", "libmail.one.C"})) == []


def test_what_is_not_annotated_and_what_is_not_too_long_any_more(tmp_path: Path) -> None:
    code = made(
        tmp_path, "def f(a) -> None:\n    pass\n\n\ndef g(*a: int, b: int = 1):\n    pass\n"
    )
    assert problems(code, frozenset({"libmail.one.f"})) == [
        "libmail/one.py:1: libmail.one.f is not annotated",
        "libmail/one.py:5: libmail.one.g is not annotated",
        "tests/measures.py: libmail.one.f is not too long: take it off the list",
    ]


def test_copies(tmp_path: Path) -> None:
    block = "".join(f"    a{number} = {number}\n" for number in range(10))
    assert made(tmp_path, f"def f() -> None:\n{block}\n\ndef g() -> None:\n{block}").copied == 10
