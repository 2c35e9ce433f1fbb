"""Name service: `resolver.Resolver` asks DNS, `native.NativeResolver` asks the system.

Both are made before the jail.  `hostname` tells what a valid name or address is.
"""

from libmail.dns.answers import (
    DnsAnswer,
    DnsError,
    DnsRecord,
    Filtered,
    Invalid,
    NotFound,
    NullMx,
    TempFail,
)
from libmail.dns.hostname import (
    ascii_domain,
    literal_address,
    valid_hostaddr,
    valid_hostliteral,
    valid_hostname,
)

__all__ = [
    "DnsAnswer",
    "DnsError",
    "DnsRecord",
    "Filtered",
    "Invalid",
    "NotFound",
    "NullMx",
    "TempFail",
    "ascii_domain",
    "literal_address",
    "valid_hostaddr",
    "valid_hostliteral",
    "valid_hostname",
]
