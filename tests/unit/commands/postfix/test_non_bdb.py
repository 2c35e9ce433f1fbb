"""postfix non-bdb: one level, which is told and not changed."""

from __future__ import annotations

import pytest

from commands.postfix.non_bdb import non_bdb
from libmail.log import Fatal


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    non_bdb(["status"])
    assert capsys.readouterr().out == "enable-reindex\n"


@pytest.mark.parametrize("word", ["enable-redirect", "enable-reindex"])
def test_nothing_is_to_be_done(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    non_bdb([word])
    assert "nothing is to be done" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["disable"], ["other"], []])
def test_what_cannot_be(words: list[str]) -> None:
    with pytest.raises(Fatal):
        non_bdb(words)
