"""What the options of postconf mean together, and which do not go together."""

from __future__ import annotations

import pytest

from commands.postconf import main
from commands.postconf.options import Request, parse
from libmail.config import ConfigError


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("-a -A", "specify one of -a -A"),
        ("-M -F", "specify one of -F -M"),
        ("-p -m", "specify one of -m -p"),
        ("-l -x", "with option -l, do not specify -x"),
        ("-a -e", "with option -a, do not specify -e"),
        ("-M -d", "with option -M, do not specify -d"),
        ("-F -X a/b/c", "with option -F, do not specify -X"),
        ("-P -# a/b/c", "with option -P, do not specify -#"),
        ("-d -n", "specify one of -d -n"),
        ("-d -o a=b", "specify one of -d -o"),
        ("-H -h", "specify one of -h -H"),
        ("-h -X a", "specify one of -h -X"),
        ("-e -x a=b", "specify one of -e -x"),
        ("-f a=b", "specify one of -e -f"),
        ("-# -o c=d a", "specify one of -o -#"),
        ("-X a=b", "specify one of -e -X"),
        ("-# a=b", "specify one of -e -#"),
        ("-PX smtp/inet/a=b", "specify one of -e -X"),
        ("-C x", 'unknown -C option value "x" in "x"'),
        ("-o a", "invalid parameter override: a: missing '=' after attribute name"),
        ("--origin -x a", "with option --origin, do not specify -x"),
    ],
)
def test_clashes(arguments: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(arguments.split())
    assert str(caught.value) == complaint


def _parsed(text: str) -> Request:
    return parse(text.split())


def test_edit_is_implied_by_the_first_argument() -> None:
    assert _parsed("a=b").edit == "e"
    assert _parsed("-M a/unix=b").edit == "e"
    assert _parsed("a b=c").edit == ""
    assert _parsed("-X a").edit == "X"
    assert _parsed("-a x=y").edit == ""


def test_words() -> None:
    request = _parsed("-nhc/etc/x -C user,service -o a=b -- -x y")
    assert request.flags == frozenset("nhcCo")
    assert request.directory == "/etc/x"
    assert request.classes == ("user", "service")
    assert request.overrides == (("a", "b"),)
    assert request.arguments == ("-x", "y")
    assert request.show == "values"
    assert _parsed("name -h").arguments == ("name", "-h")
    assert _parsed("-jM").show == "json"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-z"], "postconf: invalid option -- 'z'"),
        (["-c"], "postconf: option requires an argument -- 'c'"),
        (["-hT"], "postconf: option requires an argument -- 'T'"),
    ],
)
def test_usage(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == complaint
    assert errors[1].startswith("postconf: fatal: usage: postconf [-a ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-l", ["flock", "fcntl", "dotlock"]),
        ("-T public-key-algorithms", ["dsa", "ecdsa", "rsa"]),
        ("-a", ["cyrus", "dovecot", "table"]),
        ("-A", ["cyrus"]),
    ],
)
def test_features(arguments: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 0
    assert capsys.readouterr().out.splitlines() == expected


def test_table_types_and_tls_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m"]) == 0
    types = capsys.readouterr().out.splitlines()
    assert types == sorted(types)
    assert {"lmdb", "pcre", "texthash", "unionmap"} <= set(types)
    for mode in ("compile-version", "run-version"):
        assert main(["-T", mode]) == 0
        assert "SSL" in capsys.readouterr().out
    assert main(["-T", "nonsense"]) == 1
    assert capsys.readouterr().err == ("postconf: warning: unknown 'postconf -T' mode: nonsense\n")
