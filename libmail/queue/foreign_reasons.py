"""The bounce, defer and trace logs of the original Postfix, without I/O.

Text: for each recipient lines of `name=value`, with a line for people before them and an empty line
after them. What is cut off or makes no sense is left out.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from libmail.ipc.messages import Target
from libmail.queue.foreign_message import orcpt_of

__all__ = ["foreign_targets"]

_DEFAULT_STATUS: Final = {"failed": "5.0.0", "delayed": "4.0.0"}


def foreign_targets(data: bytes, offsets: Mapping[int, int], time: float) -> Iterator[Target]:
    """What a log tells, in order.

    offsets: where a recipient's record is now, by where it was in the original. time: when it
    happened, of the epoch, for the original does not say.
    """
    text = data.decode("utf-8", "surrogateescape")
    if not text.endswith("\n\n"):
        text = text[: text.rfind("\n\n") + 1]  # the last one was being written
    for record in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in record.split("\n"))
        if values.get("recipient") and values.get("reason"):
            yield _target(values, offsets, time)


def _target(values: Mapping[str, str], offsets: Mapping[int, int], time: float) -> Target:
    original = values.get("original_recipient", "")
    address = values["recipient"]
    action = values.get("action", "failed")
    return Target(
        address=address,
        orig_rcpt=original or address,
        dsn_orcpt=orcpt_of(values.get("dsn_orig_rcpt", ""), original or address),
        notify=_number(values.get("notify_flags", "")),
        offset=offsets.get(_number(values.get("offset", "")), 0),
        action=action,
        status=values.get("status") or _DEFAULT_STATUS.get(action, "2.0.0"),
        reason=values["reason"],
        mta=values.get("mta_name", ""),
        diag_type=values.get("diag_type", ""),
        diag_text=values.get("diag_text", ""),
        time=time,
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else 0
