"""error(8): what its next hop says."""

import pytest

from daemons.error import checked


@pytest.mark.parametrize(
    ("dsn", "wanted", "result"),
    [
        ("5.7.1", "5", "5.7.1"),
        ("4.2.1", "5", "5.0.0"),
        ("4.2.1", "4", "4.2.1"),
        ("2.0.0", "4", "4.0.0"),
    ],
)
def test_status_of_another_class_says_nothing(dsn: str, wanted: str, result: str) -> None:
    assert checked(dsn, wanted, "bounce_append") == result
