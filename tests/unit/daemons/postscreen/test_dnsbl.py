"""postscreen_dnsbl_sites, and scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemons.postscreen.dnsbl import Score, Site, read_sites
from libmail.log import Fatal
from tests.unit.daemons.postscreen.world import World


def test_items() -> None:
    sites = read_sites(
        ["a.test", "b.test*2", "b.test=127.0.0.[2..4;9]*-3", "c.test=127.0.0.2", "d.test*+4"]
    )
    assert sites == {
        "a.test": (Site("a.test", "", 1),),
        "b.test": (Site("b.test", "", 2), Site("b.test", "127.0.0.[2..4;9]", -3)),
        "c.test": (Site("c.test", "127.0.0.2", 1),),
        "d.test": (Site("d.test", "", 4),),
    }


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        ("a.test*x", "weight"),
        ("a.test*", "weight"),
        ("a.test*1*2", "weight"),
        (f"a.test*{'9' * 5000}", "weight"),
        ("a.test=", "filter"),
        ("a.test=127.0.0", "filter"),
        ("a.test=127.0.0.[]", "filter"),
        ("a.test=127.0.0.[2..]", "filter"),
        ("a.test=127.0.[2.0.1", "filter"),
        ("a.test=127.0.0.1=2", "filter"),
        ("=127.0.0.1", "domain"),
        ("-x-.test", "domain"),
        ("", "domain"),
    ],
)
def test_items_that_are_none(item: str, complaint: str) -> None:
    with pytest.raises(Fatal, match=complaint):
        read_sites([item])


def test_score() -> None:
    sites = read_sites(
        ["a.test=127.0.0.[2..11]*3", "b.test*2", "w.test=127.0.[0..255].1*-3", "w.test*-1"]
    )
    score = Score()
    score.add(sites["b.test"], ("127.0.0.9",), 300)
    assert (score.value, score.heaviest, score.ttl) == (2, "b.test", 300)
    score.add(sites["a.test"], ("127.0.0.1", "127.0.0.2", "127.0.0.3"), 100)
    assert (score.value, score.heaviest, score.ttl) == (5, "a.test", 100)
    score.add(sites["w.test"], ("127.0.7.1",), -1)
    assert (score.value, score.heaviest, score.ttl) == (1, "a.test", 100)
    score.add(sites["b.test"], (), 200)
    assert (score.value, score.ttl) == (1, 100)


def test_the_threshold_of_allow_lists_is_below_zero(tmp_path: Path) -> None:
    prepared = World(tmp_path).prepared(postscreen_dnsbl_allowlist_threshold="-1")
    assert prepared.params.postscreen_dnsbl_allowlist_threshold == -1
