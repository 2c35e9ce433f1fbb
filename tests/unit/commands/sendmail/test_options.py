"""The command line of sendmail."""

from __future__ import annotations

import pytest

from commands.sendmail import bits
from commands.sendmail.options import Mode, Options, UsageError, parse
from libmail.ipc.messages import DsnNotify, EnvelopeFlag


def test_bits_are_those_of_the_wire() -> None:
    for name in ("EIGHTBIT", "VERIFY_ONLY", "VERBOSE", "DSN_HEADERS", "DSN_FULL", "RELAYED",
                 "REQUIRETLS", "SMTPUTF8"):  # fmt: skip
        assert getattr(bits, name) == EnvelopeFlag[name]
    assert {bit.name.lower(): bit for bit in DsnNotify if bit.name} == bits.NOTIFY
    assert bits.NOTIFY_NEVER == DsnNotify.NEVER


CASES: list[tuple[str, dict[str, object]]] = [
    ("a@b c@d", {"recipients": ["a@b", "c@d"], "mode": Mode.SUBMIT}),
    ("-t -oi", {"extract": True, "ignore_dots": True}),
    ("-ti", {"extract": True, "ignore_dots": True}),
    ("-f me a@b", {"sender": "me", "recipients": ["a@b"]}),
    ("-fme -- a@b -x", {"sender": "me", "recipients": ["a@b", "-x"]}),
    ("a@b -fme -- -x", {"sender": None, "recipients": ["a@b", "-fme", "--", "-x"]}),
    ("-Fname -r me", {"full_name": "name", "sender": "me"}),
    ("-N success,delay x", {"notify": 10}),
    ("-N never,delay x", {"notify": 0}),
    ("-N foo x", {"notify": 0, "warnings": [
        'unknown DSN NOTIFY command value "foo" in "foo"', "bad -N option value -- ignored"]}),
    ("-R hdrs x", {"flags": bits.DSN_HEADERS}),
    ("-R hdrs -R full x", {"flags": bits.DSN_FULL}),
    ("-R foo x", {"flags": 0, "warnings": ["bad -R option value -- ignored"]}),
    ("-V id1 x", {"envid": "id1"}),
    ("-XV+= x", {"flags": 0, "verp": "+="}),
    ("-XV x", {"verp": ""}),
    ("x", {"verp": None}),
    ("-V -f y x", {"verp": "", "sender": "y", "warnings": [
        "option -V is deprecated with Postfix 2.3; specify -XV instead"]}),
    ("-V+= x", {"verp": "+=", "warnings": [
        "option -V+= is deprecated with Postfix 2.3; specify -XV+= instead"]}),
    ("-V -fy x", {"verp": None, "envid": "-fy", "warnings": []}),
    ("-- -V+= x", {"recipients": ["-V+=", "x"], "warnings": []}),
    ("-bv x", {"flags": bits.VERIFY_ONLY}),
    ("-v x", {"flags": bits.VERBOSE}),
    ("-B8BITMIME x", {"flags": bits.EIGHTBIT}),
    ("-bp", {"mode": Mode.LIST}),
    ("-bs", {"mode": Mode.SMTP}),
    ("-bi", {"mode": Mode.ALIASES}),
    ("-q", {"mode": Mode.FLUSH}),
    ("-q15m -bd", {"mode": Mode.DAEMON}),
    ("-qIabc", {"mode": Mode.FLUSH_ID, "site": "abc"}),
    ("-qRb.c", {"mode": Mode.FLUSH_SITE, "site": "b.c"}),
    ("-C /etc/x x", {"config_directory": "/etc/x"}),
    ("-C /etc/x/main.cf x", {"config_directory": "/etc/x"}),
    ("-C main.cf x", {"config_directory": "."}),
    ("-n -m -om -em -h3 -Am -c -x -U -L y -e m -p z -O a=b -o7 x", {"recipients": ["x"]}),
    ("-G x", {"flags": bits.RELAYED}),
    ("-Orequiretls=yes x", {"flags": bits.REQUIRETLS}),
    ("-O RequireTLS=YES -O SMTPUTF8=yes x", {"flags": bits.REQUIRETLS | bits.SMTPUTF8}),
    ("-O requiretls=yes -O requiretls=no x", {"flags": 0}),
    ("-o8 -ofme x", {"flags": 0, "sender": None}),
    ("-B7bit x", {"flags": 0}),
    ("-Nnever,never x", {"notify": 1, "warnings": []}),
    ("-V " + "v" * 100 + " x", {"envid": "v" * 100}),
    ("-V " + "v" * 101 + " x", {"envid": "", "warnings": ["too long -V option value -- ignored"]}),
    ("-bh x", {"mode": Mode.NOTHING}),
    ("-q5m", {"mode": Mode.NOTHING}),
    ("-q5m x", {"mode": Mode.SUBMIT}),
    ("-q5m -t", {"mode": Mode.SUBMIT}),
    ("-bi -oA/etc/a", {"mode": Mode.ALIASES, "aliases": "/etc/a"}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "want"), CASES, ids=[c[0] for c in CASES])
def test_parse(words: str, want: dict[str, object]) -> None:
    options = parse("sendmail", words.split())
    assert {name: getattr(options, name) for name in want} == want


def test_empty_arguments_count() -> None:
    assert parse("sendmail", ["-f", "", "a@b"]).sender == ""
    assert parse("sendmail", ["-F", "", "a@b"]).full_name == ""


@pytest.mark.parametrize(("name", "mode"), [("mailq", Mode.LIST), ("newaliases", Mode.ALIASES)])
def test_other_names(name: str, mode: str) -> None:
    assert parse(name, []).mode == mode


MISTAKES = [
    ("-xyz", ("y", "z", "y"), "usage: sendmail [options]"),
    ("-bq x", "", "unsupported: -bq"),
    ("-qXy", "", "-qX is not implemented"),
    ("-bv -N never x", "", "-N option cannot be used with -bv"),
    ("-bv -R full x", "", "-R option cannot be used with -bv"),
    ("-bv -t", "", "-t option cannot be used with -bv"),
    ("-bp -t x", "", "-t can be used only in delivery mode"),
    ("-bp x", "", "display queue mode requires no recipient"),
    ("-bd x", "", "daemon mode requires no recipient"),
    ("-q x", "", "flush queue mode requires no recipient"),
    ("-B 9BIT x", "", "-B option needs 8BITMIME or 7BIT"),
    ("-bi -oA", "", "-oA requires pathname"),
]


@pytest.mark.parametrize(("words", "invalid", "text"), MISTAKES, ids=[c[0] for c in MISTAKES])
def test_mistakes(words: str, invalid: tuple[str, ...], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse("sendmail", words.split())
    assert caught.value.details == tuple(f"invalid option -- '{letter}'" for letter in invalid)
    assert caught.value.text == text


def test_missing_argument() -> None:
    with pytest.raises(UsageError) as caught:
        parse("sendmail", ["-f"])
    assert caught.value.details == ("option requires an argument -- 'f'",) * 2


def test_bad_envelope_ids() -> None:
    for text in ("", "a\tb", "\u00fcber"):
        options = parse("sendmail", ["-V", text, "x"])
        assert options.envid == ""
        assert options.warnings == ["bad syntax in -V option value -- ignored"]


def test_nothing_is_shared() -> None:
    Options().recipients.append("x")
    assert Options().recipients == []
