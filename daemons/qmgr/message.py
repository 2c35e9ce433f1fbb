"""A message in the active queue, as qmgr(8) holds it in memory."""

from dataclasses import dataclass, field
from typing import Final

from libmail.ipc.messages import Envelope, QueueId, Recipient, TraceFlag

_PROBE: Final = TraceFlag.MTA_VERIFY.value


@dataclass(slots=True, kw_only=True, eq=False)
class Message:
    """One file of the active queue.

    size: octets of content. queued: when it entered the active queue (of the epoch). flush: its
    destinations are tried even if they are dead or deferred on purpose. forced_expiry: it is to be
    returned now. tflags: TraceFlag bits for its deliveries. next_offset: recipients behind this
    record are not in memory; 0 when all are. unread: at most how many. in_core: recipients in
    memory without outcome. open: entries that are not done, plus one while recipients are being
    resolved. deferred: some recipient will have to be tried again. traced: the trace log may have
    something about it. redirected: a recipient took the place of all (REDIRECT action). reported:
    recipients (offsets) of which the defer log tells already what a forced expiry is to tell.
    """

    queue_id: QueueId
    envelope: Envelope
    size: int
    arrival: float
    queued: float
    flush: bool = False
    forced_expiry: bool = False
    tflags: int = 0
    next_offset: int = 0
    unread: int = 0
    in_core: int = 0
    open: int = 0
    deferred: bool = False
    traced: bool = False
    redirected: bool = False
    reported: frozenset[int] = frozenset()
    refilled: float = 0.0
    batch: tuple[Recipient, ...] = field(default=())

    @property
    def probe(self) -> bool:
        """Whether it asks only whether its recipient takes mail, for verify(8)."""
        return self.tflags & _PROBE != 0
