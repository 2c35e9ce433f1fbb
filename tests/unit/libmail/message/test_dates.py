"""Message-IDs of our own."""

from libmail.message.dates import make_message_id


def test_message_ids_are_used_once() -> None:
    assert make_message_id(1e9, "3F290A15E7", "h") == "<20010909014640.3F290A15E7@h>"
    assert make_message_id(1e9, "4gXyzB12bbcdz1", "h") == "<4gXyzB12bbcdz1@h>"
