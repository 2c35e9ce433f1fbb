"""$name and its conditional forms in values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.config.errors import ExpansionError
from libmail.config.expand import compatibility_level, expand, references

VALUES = {"b": "bv", "e": "", "n": "10", "in": "<$b>", "loop": "$loop2", "loop2": "${loop}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$b-$b", "bv-bv"),
        ("${b}x$(b)", "bvxbv"),
        ("$$b", "$b"),
        ("$b.c $b_ $n", "bv.c  10"),
        ("$in", "<bv>"),
        ("${b?yes}${e?no}", "yes"),
        ("${b:no}${e:yes}${zz:undefined}", "yesundefined"),
        ("${b?{y}:{n}}${e?{y}:{n}}", "yn"),
        ("${e:{n}}", "n"),
        ("${ b }", "bv"),
        ("${b ? {y} : {n}}", "y"),
        ("${b? y }|", " y |"),
        ("${b? {y} }|", "y|"),
        ("${b?{ y }:{ n }}", " y "),
        ("${b?y:z}", "y:z"),
        ("$(b?y)", "y"),
        ("${b?{{x}}}", "{x}"),
        ("${b?$b}x", "bvx"),
        ("$(b)}", "bv}"),
        ("a}b{c", "a}b{c"),
        ("${{$b} == {bv} ? {eq} : {ne}}", "eq"),
        ("${{$b}!={bv}:{eq}}", "eq"),
        ("${{$b}=={bv}?{eq}}", "eq"),
        ("${{9} < {10} ? {lt}:{ge}}", "lt"),
        ("${{9} < {1x} ? {lt}:{ge}}", "ge"),
        ("${{10} == {010} ? {a} : {b}}", "a"),
        ("${{0x10} == {16} ? {a} : {b}}", "b"),
        ("${{ x } == {x} ? {a} : {b}}", "b"),
        ("${{a} == {a}}|${{a} == {b}}", "true|"),
        ("${{3.9} <level {3.10} ? {lt}:{ge}}", "lt"),
        ("${{3} ==level {3.0} ? {a} : {b}}", "a"),
        ("${{3.6} >=level {3.6.1} ? {a} : {b}}", "b"),
        ("${domain_to_ascii{b\u00fccher.example}}", "xn--bcher-kva.example"),
    ],
)
def test_value(text: str, expected: str) -> None:
    assert expand(text, VALUES.get) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("$", 'empty macro name: "$"'),
        ("$-x", 'empty macro name: "$-x"'),
        ("${}", 'empty macro name: "${}"'),
        ("${b", 'truncated macro reference: "${b"'),
        ("${b?{x}", "truncated macro reference"),
        ("${b?{x}y}", '":" expected at: "...b?{x}>>>y"'),
        ("${b-c}", 'attribute name syntax error at: "...b>>>-c"'),
        ("${(b)}", "attribute name syntax error"),
        ("${b:{x}:{y}}", "unexpected input"),
        ("${{9} lt {1x}}", "expected at"),
        ("${{a} == b}", '"{expression}" expected'),
        ("${{a} == {a} x}", '"?" or ":" expected'),
        ("$(b?{)})", "unbalanced {}"),
        ("${{3} <level {bad} ? {a} : {b}}", 'malformed compatibility level syntax: "bad"'),
        ("$loop", "unreasonable macro call nesting"),
    ],
)
def test_malformed(text: str, complaint: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(text, VALUES.get)
    assert complaint in str(caught.value)


def test_references_of_every_branch() -> None:
    assert references("$a ${b?$c} $(d) $$e ${{$f} == {}}") == ["a", "b", "c", "d", "f"]


def test_levels() -> None:
    assert compatibility_level("3.10") > compatibility_level("3.9") == (3, 9, 0)


@settings(max_examples=200)
@given(st.text(alphabet="${}()?:=<>!abn 1level", max_size=40))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        expand(text, VALUES.get)
    except ExpansionError:
        pass
