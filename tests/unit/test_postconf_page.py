"""Every parameter is described, once, and man/man5/postconf.5 says so."""

from __future__ import annotations

from importlib import import_module

import pytest

from libmail.config.declared import AREAS, all_parameters
from libmail.config.families import FAMILIES
from tests.parameter_texts import Block, Text, parse, read_all
from tests.postconf_page import (
    ALL_RESTRICTIONS,
    PAGE,
    default_text,
    marked_up,
    render,
    source_lines,
)

TEXTS = read_all()
SHORTEST = 30


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == render(), "out of date: make docs"


@pytest.mark.parametrize("area", AREAS)
def test_each_parameter_of_an_area_has_a_text(area: str) -> None:
    declared = import_module(f"libmail.config.parameters.{area}").PARAMETERS
    assert set(TEXTS[area]) == set(declared)


def test_families_have_texts_and_nothing_else_has() -> None:
    assert set(TEXTS["families"]) == set(FAMILIES)
    assert set(TEXTS) == {*AREAS, "families", "restrictions"}


def test_each_restriction_has_a_text() -> None:
    assert set(TEXTS["restrictions"]) == ALL_RESTRICTIONS
    others = {text.other for text in TEXTS["restrictions"].values()} - {""}
    assert others < ALL_RESTRICTIONS


def test_texts_are_whole_sentences_and_say_something() -> None:
    own = [text for file in TEXTS.values() for text in file.values() if not text.other]
    for text in own:
        paragraphs = [block.text for block in text.blocks if not block.example]
        if text.name not in ALL_RESTRICTIONS:
            assert len(" ".join(paragraphs)) >= SHORTEST, text.name
        for paragraph in paragraphs:
            assert paragraph.endswith((".", ":")) or paragraph[0].islower(), text.name
            assert paragraph.count("`") % 2 == 0, text.name


def test_no_text_is_there_twice() -> None:
    own = [text.blocks for file in TEXTS.values() for text in file.values() if text.blocks]
    assert len(own) == len(set(own))


def test_those_like_others_are_like_them() -> None:
    texts = {name: text for file in TEXTS.values() for name, text in file.items()}
    parameters = all_parameters()
    for text in texts.values():
        if text.other and text.name in parameters:
            assert not texts[text.other].other, text.name
            assert parameters[text.name].kind.name == parameters[text.other].kind.name, text.name


def test_reading() -> None:
    source = (
        "a_b (as c_d)\nc_d e:f\n    One `x`.\n    Two.\n\n        a = b\n\n        c\n    Three.\n"
    )
    blocks = (Block("One `x`. Two."), Block("a = b", True), Block("c Three."))
    texts = parse(source)
    assert texts["a_b"] == Text("a_b", "c_d", ())
    assert texts["c_d"] == Text("c_d", "", blocks, "e:f")
    assert texts["c_d"].blocks[0].sentences() == ["One `x`.", "Two."]


@pytest.mark.parametrize("source", ["a (b)\n    x\n", "a\n    x\na\n    y\n"])
def test_what_has_no_place(source: str) -> None:
    with pytest.raises(ValueError):
        parse(source)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"a \0 'b'", r"a \e0 \(aqb\(aq"),
        ("`-o a` in smtpd(8)", r"\fB\-o\~a\fR in \fBsmtpd\fR(8)"),
        ("see header_checks, not own_name", r"see \fBheader_checks\fR, not own_name"),
    ],
)
def test_markup(text: str, expected: str) -> None:
    assert marked_up(text) == expected


def test_no_line_of_text_is_a_request() -> None:
    assert source_lines(".forward files") == ["\\&.forward files"]


def test_defaults() -> None:
    assert default_text("always_bcc", "") == "empty"
    assert default_text("myhostname", "") == "the name of the machine"
    assert default_text("x", "a,b-c") == "a,\\:b\\-c"
