"""The options of posttls-finger(1), as parameters of smtp(8): those say how TLS is done."""

from __future__ import annotations

import getopt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from libmail.log import Fatal
from libmail.tls.levels import level_named

__all__ = ["LETTERS", "USAGE", "Options", "Told", "read_options"]

LETTERS: Final = "a:A:cCd:fF:g:h:H:k:K:l:L:m:M:o:p:P:r:s:St:T:vwX"
USAGE: Final = (
    "usage: posttls-finger [-acCfSvw] [-t conn_tmout] [-T cmd_tmout] [-L logopts] "
    "[-h host_lookup] [-l level] [-d mdalg] [-g grade] [-p protocols] "
    "[-A tafile] [-F CAfile.pem] [-P CApath/] [-s servername] "
    "[ [-H chainfiles] | [-k certfile [-K keyfile]] ] "
    "[-m count] [-r delay] [-o name=value] destination [match ...]"
)
# Options that are the value of a parameter, and what that is without the option.
_PARAMETERS: Final = {
    "-a": ("smtp_address_preference", "any"),
    "-d": ("smtp_tls_fingerprint_digest", None),
    "-F": ("smtp_tls_CAfile", ""),
    "-g": ("smtp_tls_mandatory_ciphers", "medium"),
    "-h": ("smtp_host_lookup", "dns"),
    "-k": ("smtp_tls_cert_file", ""),
    "-K": ("smtp_tls_key_file", None),
    "-l": ("smtp_tls_security_level", "dane"),
    "-M": ("smtp_tls_dane_insecure_mx_policy", "dane"),
    "-p": ("smtp_tls_mandatory_protocols", ">=TLSv1"),
    "-P": ("smtp_tls_CApath", ""),
    "-s": ("smtp_tls_servername", ""),
}
_FIXED: Final = (
    ("smtp_dns_support_level", "dnssec"),
    ("ignore_mx_lookup_error", "no"),
    ("smtp_tls_policy_maps", ""),
    ("smtp_tls_per_site", ""),
    ("smtp_tls_eccert_file", ""),
    ("smtp_tls_dcert_file", ""),
    ("smtp_tls_ciphers", "$smtp_tls_mandatory_ciphers"),
    ("smtp_tls_protocols", "$smtp_tls_mandatory_protocols"),
    ("smtp_tls_session_cache_database", "internal:"),  # sessions are kept, here
)
_MATCHES: Final = (
    "smtp_tls_verify_cert_match", "smtp_tls_secure_cert_match", "smtp_tls_fingerprint_cert_match",
)  # fmt: skip
_ALL: Final = frozenset(("routine", "certmatch", "peercert", "states"))
_LOG_WORDS: Final = {
    "0": frozenset[str](), "none": frozenset[str](),
    **dict.fromkeys(("1", "routine", "summary"), frozenset(("routine",))),
    **dict.fromkeys(("2", "debug"), _ALL),
    **dict.fromkeys(("3", "ssl-expert"), _ALL | {"handshake"}),
    **dict.fromkeys(("4", "ssl-developer"), _ALL | {"handshake", "session"}),
    "ssl-debug": frozenset(("states",)),
    "ssl-handshake-packet-dump": frozenset(("handshake",)),
    "ssl-session-packet-dump": frozenset(("handshake", "session")),
    "untrusted": frozenset(("untrusted",)),
    "peercert": frozenset(("peercert",)),
    "certmatch": frozenset(("certmatch", "peercert")),
    "cache": frozenset[str](),
    "verbose": frozenset(("certmatch", "peercert", "states")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a handshake: routine, certmatch, peercert, states, untrusted.

    handshake, session: in octets, how far.
    """

    words: frozenset[str]
    unknown: tuple[str, ...] = ()

    def __contains__(self, word: str) -> bool:
        return word in self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a command line says. settings: parameters. again: seconds until the server is asked
    once more, 0 for never; at most so often. Times in seconds."""

    destination: str
    settings: tuple[tuple[str, str], ...]
    told: Told
    chat: bool = True
    chain: bool = False
    lmtp: bool = False
    wrapped: bool = False
    connect_timeout: float = 30.0
    command_timeout: float = 30.0
    again: float = 0.0
    most: int = 5

    @property
    def told_briefly(self) -> Options:
        """The same for a server that is asked once more."""
        return replace(self, told=Told(self.told.words & {"routine"}), chain=False)


def read_options(arguments: Sequence[str]) -> Options:
    """Of a command line. Raises Fatal; getopt.GetoptError."""
    pairs, words = getopt.getopt(arguments, LETTERS)
    given = dict(pairs)
    if not words:
        raise Fatal(USAGE)
    level = given.get("-l", "dane")
    if level_named(level) is None:
        raise Fatal(f'Invalid TLS level "{level}"')
    if "-H" in given and not {"-k", "-K"}.isdisjoint(given):
        raise Fatal("the '-H' and '-k' or '-K' options are mutually exclusive")
    if "-X" in given:
        raise Fatal("there is no tlsproxy mode")
    return Options(
        destination=words[0],
        settings=_settings(pairs, words[1:]),
        told=_told(given.get("-L", "routine,certmatch")),
        chat="-c" not in given,
        chain="-C" in given,
        lmtp="-S" in given,
        wrapped="-w" in given,
        connect_timeout=_number(given, "-t", 30),
        command_timeout=_number(given, "-T", 30),
        again=_number(given, "-r", 0),
        most=_number(given, "-m", 5),
    )


def _settings(
    pairs: Sequence[tuple[str, str]], match: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    given = dict(pairs)
    found = list(_FIXED)
    for letter, (name, usual) in _PARAMETERS.items():
        value = given.get(letter, usual)
        if value is not None:
            found.append((name, value))
    for letter, name in (("-A", "smtp_tls_trust_anchor_file"), ("-H", "smtp_tls_chain_files")):
        found.append((name, ", ".join(value for one, value in pairs if one == letter)))
    force = "yes" if "-f" in given else "no"
    found.append(("smtp_tls_force_insecure_host_tlsa_lookup", force))
    if match:
        found += [(name, ", ".join(match)) for name in _MATCHES]
    for letter, setting in pairs:
        if letter == "-o":
            name, equals, value = setting.partition("=")
            if not equals:
                raise Fatal(f"-o {setting}: missing '=' after attribute name")
            found.append((name.strip(), value.strip()))
    return tuple(found)


def _told(text: str) -> Told:
    words: set[str] = set()
    unknown = []
    for word in text.replace(",", " ").lower().split():
        if word in _LOG_WORDS:
            words |= _LOG_WORDS[word]
        else:
            unknown.append(word)
    return Told(frozenset(words), tuple(unknown))


def _number(given: dict[str, str], letter: str, usual: int) -> int:
    text = given.get(letter, str(usual))
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        raise Fatal(f"option {letter}: {text}: not a number")
    return int(text)
