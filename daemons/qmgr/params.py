"""The parameters of qmgr(8), and those of each transport."""

from dataclasses import dataclass
from typing import Final

from daemons.qmgr.feedback import Feedback, FeedbackSyntax, WindowRules
from libmail.config import Config
from libmail.log import LOG

_DEFAULT_FEEDBACK: Final = Feedback(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class QmgrParams:
    """Parameters of qmgr(8), see postconf(5). Times in seconds."""

    authorized_flush_users: str
    bounce_queue_lifetime: float
    bounce_service_name: str
    confirm_delay_cleared: bool
    daemon_timeout: float
    default_filter_nexthop: str
    defer_service_name: str
    defer_transports: tuple[str, ...]
    address_verify_service_name: str
    destination_concurrency_feedback_debug: bool
    double_bounce_sender: str
    error_service_name: str
    hash_queue_depth: int
    hash_queue_names: tuple[str, ...]
    helpful_warnings: bool
    ipc_idle: float
    ipc_timeout: float
    ipc_ttl: float
    maximal_backoff_time: float
    maximal_queue_lifetime: float
    minimal_backoff_time: float
    qmgr_clog_warn_time: float
    qmgr_daemon_timeout: float
    qmgr_message_active_limit: int
    qmgr_message_recipient_limit: int
    qmgr_message_recipient_minimum: int
    queue_file_reuse_limit: int
    queue_run_delay: float
    queue_service_name: str
    recipient_delimiter: str
    rewrite_service_name: str
    trace_service_name: str
    transport_retry_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """The parameters of one transport. recipient_limit: of a delivery, 0 for none.

    rate_delay, transport_rate_delay: pause after a delivery to a destination or over the
    transport, seconds. slot_cost, slot_loan, slot_discount (per cent), minimum_slots: preemption,
    see SCHEDULER_README. in_core, extra_in_core: recipients in memory. refill_limit, refill_delay:
    how many to read at a time, or after how many seconds fewer.
    """

    window: WindowRules
    recipient_limit: int = 50
    rate_delay: float = 0.0
    transport_rate_delay: float = 0.0
    slot_cost: int = 5
    slot_loan: int = 3
    slot_discount: int = 50
    minimum_slots: int = 3
    in_core: int = 20000
    extra_in_core: int = 1000
    refill_limit: int = 100
    refill_delay: float = 5.0


_NAMELESS: Final = "unknown"  # what FILTER and tables may say instead of a transport: nothing


def _feedback(config: Config, suffix: str, transport: str) -> Feedback:
    text = str(config.family(suffix, transport))
    try:
        return Feedback.parse(text)
    except FeedbackSyntax:
        name = f"{transport}{suffix}"
        LOG.warning(f"{name}: ignoring malformed or unreasonable feedback: {text}")
        return _DEFAULT_FEEDBACK


def transport_limits(config: Config, transport: str) -> TransportLimits:
    """The limits of a transport: its own parameters or the defaults. Raises ConfigError."""
    transport = transport or _NAMELESS

    def number(suffix: str) -> int:
        value = config.family(suffix, transport)
        return value if isinstance(value, int) else 0

    def seconds(suffix: str) -> float:
        value = config.family(suffix, transport)
        return value if isinstance(value, float) else 0.0

    rate_delay = seconds("_destination_rate_delay")
    prefix = "_destination_concurrency"
    return TransportLimits(
        window=WindowRules(
            initial=number("_initial_destination_concurrency"),
            # A pause between deliveries leaves no room for parallel ones.
            limit=1 if rate_delay else number(f"{prefix}_limit"),
            positive=_feedback(config, f"{prefix}_positive_feedback", transport),
            negative=_feedback(config, f"{prefix}_negative_feedback", transport),
            cohorts=number(f"{prefix}_failed_cohort_limit"),
        ),
        recipient_limit=number("_destination_recipient_limit"),
        rate_delay=rate_delay,
        transport_rate_delay=seconds("_transport_rate_delay"),
        slot_cost=number("_delivery_slot_cost"),
        slot_loan=number("_delivery_slot_loan"),
        slot_discount=number("_delivery_slot_discount"),
        minimum_slots=number("_minimum_delivery_slots"),
        in_core=number("_recipient_limit"),
        extra_in_core=number("_extra_recipient_limit"),
        refill_limit=number("_recipient_refill_limit"),
        refill_delay=seconds("_recipient_refill_delay"),
    )


class LimitsCache(dict[str, TransportLimits]):
    """`transport_limits` by transport, each read once. Asking for one raises ConfigError."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config

    def __missing__(self, transport: str) -> TransportLimits:
        limits = self[transport] = transport_limits(self._config, transport)
        return limits
