"""A message in the active queue, as qmgr(8) holds it in memory."""

from typing import Final

from libmail.ipc.messages import Envelope, QueueId, TraceFlag

_PROBE: Final = TraceFlag.MTA_VERIFY.value


class Message:
    """One file of the active queue.

    size: octets of content. queued: when it entered the active queue (of the epoch). flush: its
    destinations are tried even if they are dead or deferred on purpose. forced_expiry: it is to be
    returned now. tflags: TraceFlag bits for its deliveries. probe: it asks only whether its
    recipient takes mail, for verify(8). next_offset: recipients behind this
    record are not in memory; 0 when all are. unread: at most how many. in_core: recipients in
    memory without outcome. open: entries that are not done, plus one while recipients are being
    resolved. deferred: some recipient will have to be tried again. traced: the trace log may have
    something about it. redirected: a recipient took the place of all (REDIRECT action). reported:
    recipients (offsets) of which the defer log tells already what a forced expiry is to tell.
    reusable: its file may become another message's.
    """

    # What most messages leave as it is, is the class's.
    flush = False
    forced_expiry = False
    next_offset = 0
    unread = 0
    in_core = 0
    open = 0
    deferred = False
    traced = False
    redirected = False
    reusable = False
    reported = frozenset[int]()

    def __init__(
        self,
        queue_id: QueueId,
        envelope: Envelope,
        size: int,
        arrival: float,
        *,
        queued: float,
        tflags: int = 0,
    ) -> None:
        self.queue_id: Final = queue_id
        self.envelope: Final = envelope
        self.size: Final = size
        self.arrival: Final = arrival
        self.queued: Final = queued
        self.tflags = tflags
        self.probe: Final = tflags & _PROBE != 0
        self.refilled = queued  # when recipients were read last
