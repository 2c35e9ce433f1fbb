"""Values of `EnvelopeFlag` and `DsnNotify` (libmail.ipc.messages) that sendmail(1) needs.

Plain numbers, because those classes take longer to load than the command to run.
"""

from __future__ import annotations

__all__ = [
    "DSN_FULL",
    "DSN_HEADERS",
    "EIGHTBIT",
    "NOTIFY",
    "NOTIFY_NEVER",
    "RELAYED",
    "REQUIRETLS",
    "SMTPUTF8",
    "VERBOSE",
    "VERIFY_ONLY",
]

SMTPUTF8 = 1
EIGHTBIT = 2
VERIFY_ONLY = 4
VERBOSE = 8
DSN_HEADERS = 64
DSN_FULL = 128
REQUIRETLS = 256
RELAYED = 512

NOTIFY_NEVER = 1
NOTIFY = {"never": NOTIFY_NEVER, "success": 2, "failure": 4, "delay": 8}
