"""The fuzz targets, for a moment each; `make fuzz` looks for longer."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


def search_for(name: str, examples: int, *, derandomize: bool) -> None:
    """Look for an input that breaks a target."""
    run, words = TARGETS[name]
    texts = st.lists(st.one_of(st.sampled_from(words), st.binary(max_size=3)), max_size=30)
    inputs = st.one_of(
        st.builds(lambda size, parts: bytes((size,)) + b"".join(parts), st.integers(0, 255), texts),
        st.binary(max_size=60),
    )

    @settings(max_examples=examples, derandomize=derandomize)
    @given(inputs)
    def search(data: bytes) -> None:
        run(data)

    search()


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    search_for(name, 120, derandomize=os.environ.get("CI") == "true")
