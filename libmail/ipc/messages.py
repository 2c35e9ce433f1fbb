"""Every message that the programs of the mail system exchange, declared in one place.

Each docstring names the direction. Field names are those of the log and of Postfix's own
attributes. Addresses are in internal (unquoted) form, the null sender is "". Times are seconds
since the epoch. Text is UTF-8 with surrogateescape.

The exchanges, and the socket that they use:

- submit mail, `public/cleanup`: CleanupOpen -> CleanupOpened; then Envelope, any number of
  Recipients, content chunks up to the empty one -> CleanupResult. Until the end of the content
  CleanupAbort (or a closed connection) drops the message. A CleanupResult may have the queue id of
  the next message, which then begins with its Envelope (or CleanupAbort);
- local submission, `public/pickup`: SubmitOpen -> SubmitOpened; Recipients..., chunks ->
  SubmitResult, which may come at any time;
- `private/rewrite`: RewriteRequest -> RewriteReply; ResolveRequest -> ResolveReply;
- `public/qmgr`: NewMail (no answer), QueueFlush -> FlushReply; or trigger bytes from postkick(1);
- `public/flush`: FlushAdd, FlushSite -> FlushReply; or a wake-up from master;
- `private/<transport>`: AgentReady from the agent, once; then DeliverRequest -> DeliverReply;
- `private/<service of type pass>`: PassedClient, with a descriptor (no answer);
- `private/bounce`, `private/defer`, `private/trace`: BounceAppend, BounceFlush -> BounceReply;
- `private/anvil`: ClientEvent -> ClientCounts, in any order; ClientUse (no answer); ClientRecall ->
  ClientUse, asked by anvil;
- `private/oauth2`: TokenRequest -> TokenReply; or a wake-up from master;
- `private/verify`: VerifyQuery, VerifyUpdate -> VerifyReply;
- `private/tlsproxy`: TlsProxyRequest, with two descriptors -> TlsProxyReply; over one of these
  TlsSession, when there is one;
- `private/dnsblog`: DnsListQuery -> DnsListAnswer, one for each domain, as they come;
- `private/connector`: ConnectRequest, ScratchRequest -> ConnectReply, with a descriptor;
- `private/tlsmgr`: TicketKeysRequest -> TicketKeysReply; SessionLookup -> SessionReply;
  SessionStore, SessionRemove, TlsTrace (no answer); or a wake-up from master;
- `private/mta-sts`: TableLookup -> TableReply; or a wake-up from master;
- `private/proxymap`, `private/proxywrite`: TableLookup, TableUpdate, TableDelete -> TableReply;
  TableList -> TableEntries, one or more.
"""

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple, NewType

from libmail.ipc.codec import Codec

__all__ = [
    "CODEC",
    "AddressStatus",
    "AgentReady",
    "BounceAppend",
    "BounceFlush",
    "BounceReply",
    "CleanupAbort",
    "CleanupAmend",
    "CleanupFlag",
    "CleanupOpen",
    "CleanupOpened",
    "CleanupResult",
    "CleanupStatus",
    "ClientCounts",
    "ClientEvent",
    "ClientRecall",
    "ClientUse",
    "ConnectReply",
    "ConnectRequest",
    "DeliverFlag",
    "DeliverReply",
    "DeliverRequest",
    "DnsListAnswer",
    "DnsListQuery",
    "DsnNotify",
    "Envelope",
    "EnvelopeFlag",
    "EventNumber",
    "EventUse",
    "FlushAdd",
    "FlushReply",
    "FlushSite",
    "Leaving",
    "MilterState",
    "NewMail",
    "Nexthop",
    "PassedClient",
    "QueueFlush",
    "QueueId",
    "Recipient",
    "Recipients",
    "ResolveFlag",
    "ResolveMany",
    "ResolveReply",
    "ResolveRequest",
    "ResolvedMany",
    "RewriteReply",
    "RewriteRequest",
    "ScratchRequest",
    "SessionLookup",
    "SessionRemove",
    "SessionReply",
    "SessionStore",
    "SubmitOpen",
    "SubmitOpened",
    "SubmitResult",
    "TableDelete",
    "TableEntries",
    "TableEntry",
    "TableList",
    "TableLookup",
    "TableReply",
    "TableStatus",
    "TableUpdate",
    "Target",
    "TicketKeyRecord",
    "TicketKeysReply",
    "TicketKeysRequest",
    "TlsProxyReply",
    "TlsProxyRequest",
    "TlsSession",
    "TlsTrace",
    "TokenReply",
    "TokenRequest",
    "TraceFlag",
    "Transport",
    "VerifyQuery",
    "VerifyReply",
    "VerifyUpdate",
]

QueueId = NewType("QueueId", str)  # file name in the queue, and the id in every log line
Transport = NewType("Transport", str)  # master.cf service name: "smtp", "local"
Nexthop = NewType("Nexthop", str)  # what follows the colon in transport:nexthop


class DsnNotify(IntFlag):
    """RFC 3461 §4.1 NOTIFY; 0: not given."""

    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class CleanupFlag(IntFlag):
    """What cleanup(8) is asked to do with a message; see receive_override_options."""

    BOUNCE = 1  # bounce a bad message rather than refuse it
    FILTER = 2  # header_checks and body_checks
    HOLD = 4  # place on hold
    DISCARD = 8  # pretend success
    BCC = 16  # automatic BCC recipients
    MAP = 32  # canonical, virtual, masquerade
    MILTER = 64
    SMTPUTF8_AUTODETECT = 128
    UNLIMITED = 256  # message_size_limit does not count: a notification


class CleanupStatus(IntFlag):
    """Why cleanup(8) refused a message; 0 is success. The highest-priority bit wins."""

    BAD = 1  # the client broke the protocol
    WRITE = 2  # queue file write error
    SIZE = 4  # message too large
    CONTENT = 8  # refused by a content rule; reason and dsn tell
    HOPS = 16  # too many Received: headers
    RECIPIENTS = 64  # no recipients
    DEFER = 128  # a temporary failure; reason and dsn tell
    SPACE = 256  # no room in the queue file system


class EnvelopeFlag(IntFlag):
    """Properties of a message that its envelope carries."""

    SMTPUTF8 = 1  # SMTPUTF8 was requested (RFC 6531 §3.4)
    EIGHTBIT = 2  # BODY=8BITMIME was given
    VERIFY_ONLY = 4  # sendmail -bv: report, do not deliver
    VERBOSE = 8  # sendmail -v: report deliveries too
    LOCAL = 16  # it did not come by SMTP
    DSN_HEADERS = 64  # RET=HDRS
    DSN_FULL = 128  # RET=FULL
    REQUIRETLS = 256
    RELAYED = 512  # sendmail -G: not an initial submission; pickup(8) makes a context of it
    PROBE = 2048  # of verify(8): report to it, do not deliver
    TLS_OPTIONAL = 4096  # TLS-Required: no (RFC 8689 §5)
    EXPANDED = 1024  # trace(8) has a record of aliases that cleanup(8) has expanded


class Recipient(NamedTuple):
    """One recipient of a message.

    address: where to deliver. orig_rcpt: before aliases and rewriting, as the client gave it.
    dsn_orcpt: the client's ORCPT, "type;xtext" as received, "" if none (RFC 3461 §4.2).
    notify: DsnNotify bits. offset: of the record in the queue file; 0 before there is one.
    """

    address: str
    orig_rcpt: str = ""
    dsn_orcpt: str = ""
    notify: int = 0
    offset: int = 0


class CleanupOpen(NamedTuple):
    """smtpd, pickup, bounce, local -> cleanup: begin a message.

    flags: CleanupFlag bits. another: the next message may follow on this connection.
    """

    flags: int
    another: bool = False


class CleanupOpened(NamedTuple):
    """cleanup -> client: the queue file exists."""

    queue_id: QueueId


class CleanupAbort(NamedTuple):
    """client -> cleanup: drop the message; the connection stays usable."""

    reason: str = ""


class CleanupAmend(NamedTuple):
    """client -> cleanup, before the end of the content: what was decided after the Envelope.

    cleanup_flags: CleanupFlag bits that hold as well. content_filter, redirect: "" for no change.
    recipients: more of them, who are not expanded.
    """

    cleanup_flags: int
    content_filter: str
    redirect: str
    recipients: tuple[Recipient, ...]


class Envelope(NamedTuple):
    """client -> cleanup; kept in the queue file. Everything of a message but recipients, content.

    sender: "" is the null sender. flags: EnvelopeFlag bits. cleanup_flags: CleanupFlag bits, those
    of CleanupOpen, if there was one, and others (a restriction may have asked for HOLD or DISCARD).
    arrival: when the message began to arrive. full_name: of the submitting user, for From:.
    rewrite_context: "local" or the domain for remote header rewriting, "" for none.
    content_filter: "transport:nexthop" of a FILTER action or parameter. redirect: the address of a
    REDIRECT action. verp_delims: two characters, "" where the sender is not
    to name the recipient (VERP_README). The client_ attributes describe the SMTP client
    ("" for local mail); log_ attributes the origin of mail that came through a content filter
    (XFORWARD), empty where there is none.
    """

    sender: str
    flags: int = 0
    cleanup_flags: int = 0
    arrival: float = 0.0
    full_name: str = ""
    dsn_envid: str = ""
    rewrite_context: str = "local"
    content_filter: str = ""
    redirect: str = ""
    verp_delims: str = ""
    client_name: str = ""
    reverse_client_name: str = ""
    client_address: str = ""
    client_port: str = ""
    helo_name: str = ""
    protocol_name: str = ""
    server_address: str = ""
    server_port: str = ""
    sasl_method: str = ""
    sasl_username: str = ""
    sasl_sender: str = ""
    log_client_name: str = ""
    log_client_address: str = ""
    log_client_port: str = ""
    log_helo_name: str = ""
    log_protocol_name: str = ""
    log_ident: str = ""
    # Set by cleanup:
    message_id: str = ""
    warn_time: float = 0.0  # when a delay notice is due; 0 for none


class Recipients(NamedTuple):
    """client -> cleanup, sendmail -> pickup: some recipients, at most 500 at a time."""

    recipients: tuple[Recipient, ...]


class CleanupResult(NamedTuple):
    """cleanup -> client: status 0: the message is on disk. dsn, reason: for a refusal.

    code: of the SMTP reply, 0 where the status says enough. next_id: of the file that is there for
    the next message on this connection, "" for none.
    """

    status: int
    dsn: str
    reason: str
    queue_id: QueueId
    code: int = 0
    next_id: QueueId = QueueId("")


class SubmitOpen(NamedTuple):
    """sendmail -> pickup: a message from the calling user, who is known from SO_PEERCRED.

    sender: "" is the caller, unless null_sender. flags: EnvelopeFlag bits (sendmail -R, -bv, -v).
    cleanup_flags: CleanupFlag bits. size: octets of the content, 0 where that is not known yet.
    """

    sender: str
    null_sender: bool
    full_name: str
    flags: int
    dsn_envid: str
    verp_delims: str
    cleanup_flags: int
    size: int


class SubmitOpened(NamedTuple):
    """pickup -> sendmail: somebody serves the connection, and the caller may submit mail."""


class SubmitResult(NamedTuple):
    """pickup -> sendmail. exit_status: 0 or a sysexits(3) code; the reason is one line.

    EX_TEMPFAIL: the message is not in the queue now, and may be left in maildrop for later.
    EX_NOPERM: nor may it be left there.
    """

    exit_status: int
    reason: str
    queue_id: QueueId


class RewriteRequest(NamedTuple):
    """cleanup, local, smtp -> trivial-rewrite. context: "local" or "remote"; address: external."""

    context: str
    address: str


class RewriteReply(NamedTuple):
    """trivial-rewrite -> client: the address in internal form, complete with its domain."""

    address: str


class ResolveFlag(IntFlag):
    """What trivial-rewrite(8) found out about an address."""

    FINAL = 1  # mydestination etc.: we are the final destination
    ROUTED = 2  # sender-specified routing is left in the local part
    ERROR = 4  # the address is bad
    FAIL = 8  # the answer is not known now: try later
    LOCAL = 256  # address class local
    ALIAS = 512  # virtual_alias_domains
    VIRTUAL = 1024  # virtual_mailbox_domains
    RELAY = 2048  # relay_domains
    DEFAULT = 4096
    ANY_SENDER = 8192  # the answer is the same for all senders


class ResolveRequest(NamedTuple):
    """smtpd, qmgr, cleanup -> trivial-rewrite: where does mail from sender to address go?

    probe: it is one of verify(8), for which there are other parameters.
    """

    sender: str
    address: str
    probe: bool = False


class ResolveReply(NamedTuple):
    """trivial-rewrite -> client. flags: ResolveFlag bits; recipient: internal form."""

    flags: int
    transport: Transport
    nexthop: Nexthop
    recipient: str


class ResolveMany(NamedTuple):
    """qmgr, local -> trivial-rewrite: as ResolveRequest, for up to 500 addresses."""

    sender: str
    addresses: tuple[str, ...]


class ResolvedMany(NamedTuple):
    """trivial-rewrite -> client: one reply for each address, in their order."""

    replies: tuple[ResolveReply, ...]


class NewMail(NamedTuple):
    """cleanup -> qmgr: incoming/queue_id is complete. No answer."""

    queue_id: QueueId


class QueueFlush(NamedTuple):
    """postqueue, flush -> qmgr: try to deliver one message now, "" for all."""

    queue_id: QueueId


class FlushAdd(NamedTuple):
    """defer -> flush: a message was deferred for a recipient at this site."""

    site: str
    queue_id: QueueId


class FlushSite(NamedTuple):
    """smtpd (ETRN), postqueue -> flush: have the deferred mail for a site delivered now."""

    site: str


class FlushReply(NamedTuple):
    """qmgr, flush -> client: reason is "" or says why that was not done."""

    reason: str


class TraceFlag(IntFlag):
    """Which reports beyond the usual the sender asked for; DeliverRequest.flags too."""

    USER_VERIFY = 1  # sendmail -bv: report only, do not deliver
    RECORD = 2  # sendmail -v, DSN SUCCESS: record what happened in the trace log
    MTA_VERIFY = 4  # address probe of verify(8)
    DELAY_CLEARED = 8  # a delay was told of: who wants to hear of delays is told of success too


class DeliverFlag(IntFlag):
    """How to deliver; the bits above those of TraceFlag."""

    KEEP = 256  # deliveries to the destination overlap or follow closely: keep the connection


class AgentReady(NamedTuple):
    """delivery agent -> qmgr, first on each connection: some process serves it.

    Until then the connection may wait in the backlog of a service at its process limit, where a
    request would be stuck while others overtake it.
    """


class Leaving(NamedTuple):
    """service -> client, once, whenever: the process makes room for a successor.

    It still completes what was begun or is on its way; the client then uses another connection.
    """


class TlsSession(NamedTuple):
    """tlsproxy -> postscreen: what is known of a TLS session, ahead of what is said within.

    See `libmail.lookup.facts.Tls`. exchange, server, client: name, detail and digest of each
    algorithm, "" for what is not known. terms: `Handshakes.terms` of where it was begun.
    """

    protocol: str
    cipher: str
    bits: int
    of_bits: int
    resumed: bool
    exchange: str
    exchange_detail: str
    server: str
    server_detail: str
    server_digest: str
    client: str
    client_detail: str
    client_digest: str
    trust: str
    subject: str
    issuer: str
    fingerprint: str
    key: str
    sni: str
    terms: str


class PassedClient(NamedTuple):
    """postscreen -> a service of type pass: a client, whose open socket comes beside the message.

    Addresses and ports are those that the service shall believe, be it that a proxy told them.
    said: lines of the client that have been read; all but the last were answered with a 2xx code.
    tls: one, if the socket is that of tlsproxy, which carries what is said within TLS.
    """

    client_address: str
    client_port: str
    server_address: str
    server_port: str
    said: tuple[str, ...] = ()
    tls: tuple[TlsSession, ...] = ()


class TlsProxyRequest(NamedTuple):
    """postscreen -> tlsproxy: be the server in a TLS session with a client.

    Two sockets come beside the message: that of the client, and one end of a pair, over which goes
    in the clear what is said inside, TlsSession first. client: for the log. timeout: seconds, for
    the handshake, and for the client to take what it is sent.
    """

    client: str
    timeout: float


class TlsProxyReply(NamedTuple):
    """tlsproxy -> postscreen: whether it does; the connection is over then, the session begins."""

    available: bool


class ConnectRequest(NamedTuple):
    """smtpd, smtp, ... -> connector: connect to a UNIX socket. path: below the queue directory."""

    path: str


class ScratchRequest(NamedTuple):
    """smtpd -> connector: a file without a name, please, in the file system of the queue."""


class ConnectReply(NamedTuple):
    """connector -> smtpd, smtp, ...: error: 0, with what was opened as a descriptor, or errno."""

    error: int


class DnsListQuery(NamedTuple):
    """postscreen -> dnsblog: under which of these DNS lists is an address listed?"""

    address: str
    domains: tuple[str, ...]


class DnsListAnswer(NamedTuple):
    """dnsblog -> postscreen, one for each domain that was asked for, in any order.

    addresses: those that the list has for the client; none if it is not listed, or that is not
    known. ttl: seconds that this stays good, -1 where nobody has said.
    """

    domain: str
    ttl: int
    addresses: tuple[str, ...]


class DeliverRequest(NamedTuple):
    """qmgr, local -> delivery agent: deliver one message to recipients that share a next hop.

    local sends it for mailbox_transport and fallback_transport, with one recipient of offset 0.

    flags: TraceFlag and DeliverFlag bits. envelope_flags: EnvelopeFlag bits. queued: when the
    message entered the active queue. The queue file comes beside it as a descriptor, in which the
    agent marks recipients done itself. What few agents want to know, such as the client that the
    message came from, is read there.
    """

    flags: int
    queue_id: QueueId
    transport: Transport
    nexthop: Nexthop
    sender: str
    envelope_flags: int
    dsn_envid: str
    size: int
    queued: float
    recipients: tuple[Recipient, ...]


class DeliverReply(NamedTuple):
    """delivery agent -> qmgr.

    deferred: some recipient is to be tried again. dsn, reason: "" unless the destination itself
    (not a recipient) failed, in which case qmgr holds back other mail for it.
    """

    deferred: bool
    dsn: str
    reason: str


class Target(NamedTuple):
    """What happened to one recipient, as a report tells it (RFC 3464 §2.3).

    action: failed, delayed, delivered, relayed, expanded, deliverable, undeliverable. mta: remote
    MTA, "" if none. diag_type/diag_text: diagnostic code ("smtp", "550 5.1.1 ..."), "" if none.
    """

    address: str
    orig_rcpt: str
    dsn_orcpt: str
    notify: int
    offset: int
    action: str
    status: str
    reason: str
    mta: str = ""
    diag_type: str = ""
    diag_text: str = ""
    relay: str = ""
    time: float = 0.0


class BounceAppend(NamedTuple):
    """delivery agent, qmgr -> bounce/defer/trace: remember this for the report."""

    queue_id: QueueId
    targets: tuple[Target, ...]


class BounceFlush(NamedTuple):
    """qmgr -> bounce/defer/trace: send the report for a message.

    kind: "bounce" (then the log is removed), "warn" (delay notice; the log stays), "trace",
    "one" (no log: a single recipient's failure, in targets, is reported now, to `sender`, which may
    be another than that of the message).
    """

    kind: str
    queue_name: str
    queue_id: QueueId
    sender: str
    envelope_flags: int
    dsn_envid: str
    verp_delims: str
    targets: tuple[Target, ...]


class BounceReply(NamedTuple):
    """bounce -> client: 0, or a CleanupStatus when the record or report could not be written."""

    status: int
    reason: str


class TableStatus(IntEnum):
    """How a request to proxymap(8) ended."""

    OK = 0
    NOKEY = 1  # there is no such key
    RETRY = 2  # not known now, or not done
    DENY = 3  # not allowed through this service
    UNSUPPORTED = 4  # the table cannot do that


class TableLookup(NamedTuple):
    """client -> proxymap, mta-sts. table: "type:name", without "proxy:"."""

    table: str
    key: str


class TableUpdate(NamedTuple):
    """client -> proxywrite: set the value of a key."""

    table: str
    key: str
    value: str


class TableDelete(NamedTuple):
    """client -> proxywrite: remove a key."""

    table: str
    key: str


class TableReply(NamedTuple):
    """proxymap, proxywrite, mta-sts -> client. status: TableStatus. value: found, or why not."""

    status: int
    value: str


class EventNumber(NamedTuple):
    """A number of events of a kind."""

    event: str
    number: int


class ClientEvent(NamedTuple):
    """smtpd -> anvil: something that a client did, or wants to do.

    number: of the question, for its answer. event: connect, message, recipient, newtls, auth;
    authfail. ident: of the client, "service:address"; for authfail a network, or "login:name".
    present: connections of the client in this process, 0 where they are not limited. only_report:
    tell the numbers, do not count. limits: of events in the time unit, where this process has none
    left that it may allow by itself, and would like some.
    """

    number: int
    event: str
    ident: str
    present: int = 0
    only_report: bool = False
    limits: tuple[EventNumber, ...] = ()


class ClientCounts(NamedTuple):
    """anvil -> smtpd: the client's connections, and events of that kind in the time unit.

    number: of the question. until: the end of the unit, by the clock that all processes have in
    common (CLOCK_MONOTONIC, seconds). lent: events that the process may allow until then without
    asking.
    """

    number: int
    connections: int
    rate: int
    until: float = 0.0
    lent: tuple[EventNumber, ...] = ()


class EventUse(NamedTuple):
    """Of the events that were lent: how many there were since the last such report, and how many
    are given back."""

    event: str
    used: int
    returned: int


class ClientUse(NamedTuple):
    """smtpd -> anvil: what has become of what was lent; a connection has ended. No answer.

    present: as in ClientEvent.
    """

    ident: str
    present: int
    uses: tuple[EventUse, ...] = ()


class ClientRecall(NamedTuple):
    """anvil -> smtpd: give back what was lent of this kind. ClientUse is the answer."""

    ident: str
    event: str


class MilterState(NamedTuple):
    """smtpd -> cleanup: a Milter of the session, before the content. See libmail.milter.

    connected: its connection comes with this message (SCM_RIGHTS); otherwise default_action is its
    answer. Times in seconds. version, edits, steps: what was negotiated. silent: it wants to see no
    more of this message. The macros are lists of names.
    """

    endpoint: str
    command_timeout: float
    content_timeout: float
    default_action: str
    connected: bool
    version: int = 6
    edits: int = 0
    steps: int = 0
    silent: bool = False
    end_of_header_macros: str = ""
    end_of_data_macros: str = ""


class TableList(NamedTuple):
    """client -> proxymap, proxywrite: all entries of a table, please."""

    table: str


class TableEntry(NamedTuple):
    """One entry of a table."""

    key: str
    value: str


class TableEntries(NamedTuple):
    """proxymap, proxywrite -> client: some entries. last: no more of them, or status is not OK."""

    status: int
    reason: str
    last: bool
    entries: tuple[TableEntry, ...]


class TicketKeysRequest(NamedTuple):
    """smtpd -> tlsmgr: the keys of session tickets, please."""


class TicketKeyRecord(NamedTuple):
    """A key. name, cipher_key and mac_key in hexadecimal; times as in libmail.tls.tickets."""

    name: str
    cipher_key: str
    mac_key: str
    issues_from: float
    issues_until: float
    opens_until: float


class TicketKeysReply(NamedTuple):
    """tlsmgr -> smtpd: the keys that count now and next; none where tickets are not wanted."""

    keys: tuple[TicketKeyRecord, ...]


class SessionLookup(NamedTuple):
    """smtpd, smtp, lmtp -> tlsmgr. cache: "smtpd", "smtp" or "lmtp"."""

    cache: str
    key: str


class SessionReply(NamedTuple):
    """tlsmgr -> client. session: in base64, "" if there is none."""

    session: str


class SessionStore(NamedTuple):
    """smtpd, smtp, lmtp -> tlsmgr: keep a session, in base64. There is no answer."""

    cache: str
    key: str
    session: str


class SessionRemove(NamedTuple):
    """smtpd, smtp, lmtp -> tlsmgr: a session is of no use any more. There is no answer."""

    cache: str
    key: str


class TlsTrace(NamedTuple):
    """smtpd, smtp, lmtp, tlsproxy -> tlsmgr: a handshake, for a file. There is no answer.

    program: that shook hands. address: of its peer, "" for a UNIX socket. text: in ASCII.
    """

    program: str
    address: str
    text: str


class AddressStatus(IntEnum):
    """What is known of an address; the numbers stand in caches of verify(8)."""

    OK = 0
    DEFER = 1
    BOUNCE = 2
    TODO = 3  # it is being tried


class TokenRequest(NamedTuple):
    """smtp, lmtp -> oauth2: an access token of an account of oauth2_directory.

    rejected: one of before that a server has refused, "" for none.
    """

    account: str
    rejected: str


class TokenReply(NamedTuple):
    """oauth2 -> smtp, lmtp. token: "" if there is none now, for the reason."""

    token: str
    reason: str


class VerifyQuery(NamedTuple):
    """smtpd -> verify: does an address take mail?

    number: of the question, for its answer. wait: seconds to wait for the outcome of a probe.
    """

    address: str
    number: int = 0
    wait: float = 0.0


class VerifyUpdate(NamedTuple):
    """delivery agent -> verify: the outcome of a probe. status: AddressStatus, but TODO."""

    address: str
    status: int
    text: str


class VerifyReply(NamedTuple):
    """verify -> client. status: AddressStatus. text: why the address takes no mail.

    number: of the question.
    """

    status: int
    text: str
    number: int = 0


CODEC: Final = Codec(
    [
        AgentReady,
        Leaving,
        PassedClient,
        BounceAppend,
        BounceFlush,
        BounceReply,
        CleanupAbort,
        CleanupAmend,
        CleanupOpen,
        CleanupOpened,
        CleanupResult,
        ClientCounts,
        ClientEvent,
        ClientRecall,
        ClientUse,
        DeliverReply,
        DeliverRequest,
        ConnectReply,
        ConnectRequest,
        ScratchRequest,
        DnsListAnswer,
        DnsListQuery,
        Envelope,
        FlushAdd,
        FlushReply,
        FlushSite,
        MilterState,
        NewMail,
        QueueFlush,
        Recipients,
        ResolveMany,
        ResolveReply,
        ResolveRequest,
        ResolvedMany,
        RewriteReply,
        RewriteRequest,
        SessionLookup,
        SessionRemove,
        SessionReply,
        SessionStore,
        SubmitOpen,
        SubmitOpened,
        SubmitResult,
        TableDelete,
        TableEntries,
        TableList,
        TableLookup,
        TableReply,
        TableUpdate,
        TicketKeysReply,
        TicketKeysRequest,
        TlsProxyReply,
        TlsProxyRequest,
        TlsSession,
        TlsTrace,
        TokenReply,
        TokenRequest,
        VerifyQuery,
        VerifyReply,
        VerifyUpdate,
    ],
    usual=(AgentReady(), DeliverReply(deferred=False, dsn="", reason="")),
)
