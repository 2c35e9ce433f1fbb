"""AUTH as Debian's Postfix answers and logs it, both with the Cyrus library and the same sasldb."""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.system.conftest import MakePostfix, MakeSystem
from tests.system.harness import MailSystem
from tests.system.test_cyrus import AUXPROP, LOGIN, PASSWORD, plain, sasldb

Dialogue = tuple[str, ...]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


EHLO: Final = "EHLO client.example.org"
GOOD: Final = plain(LOGIN)
BAD: Final = plain(LOGIN, "wrong")
MAIL: Final = "MAIL FROM:<anna@example.org>"
RCPT: Final = "RCPT TO:<x@remote.test>"
DIALOGUES: Final[tuple[Dialogue, ...]] = (
    ("HELO client.example.org", GOOD, "QUIT"),
    (GOOD, "QUIT"),
    (EHLO, "AUTH", "AUTH ", "AUTH PLAIN x y", "AUTH PLAIN x y z", "QUIT"),
    (EHLO, "AUTH NOSUCH", "AUTH NOSUCH eA==", "AUTH EXTERNAL eA==", "AUTH ANONYMOUS", "QUIT"),
    (EHLO, GOOD, GOOD, "AUTH LOGIN", EHLO, "RSET", "NOOP", "QUIT"),
    (EHLO, BAD, GOOD, "QUIT"),
    (EHLO, "auth plain " + GOOD.split()[2], "QUIT"),
    (EHLO, "AUTH PLAIN", "*", "NOOP", "QUIT"),
    (EHLO, "AUTH PLAIN", GOOD.split()[2], "QUIT"),
    (EHLO, "AUTH PLAIN", "", "QUIT"),
    (EHLO, "AUTH CRAM-MD5", "*", "AUTH LOGIN", "*", "NOOP", "QUIT"),
    (EHLO, "AUTH PLAIN !!!", "AUTH PLAIN", "!!!", "AUTH PLAIN", "a", "QUIT"),
    (EHLO, f"AUTH PLAIN {b64('x')}", f"AUTH PLAIN {b64(chr(0) * 3)}", "QUIT"),
    (EHLO, f"AUTH PLAIN {b64(f'other{chr(0)}{LOGIN}{chr(0)}{PASSWORD}')}", "QUIT"),
    (EHLO, "AUTH LOGIN", b64(LOGIN), b64(PASSWORD), "QUIT"),
    (EHLO, f"AUTH LOGIN {b64(LOGIN)}", b64(PASSWORD), "QUIT"),
    (EHLO, "AUTH LOGIN", b64(LOGIN), b64("wrong"), "AUTH LOGIN", "*", "QUIT"),
    (EHLO, "AUTH LOGIN", b64(LOGIN), "*", "QUIT"),
    (EHLO, "AUTH CRAM-MD5", b64(f"{LOGIN} 0123456789abcdef0123456789abcdef"), "QUIT"),
    (EHLO, "AUTH CRAM-MD5", "*", "AUTH CRAM-MD5", b64("garbage"), "QUIT"),
    (EHLO, "AUTH CRAM-MD5 eA==", "QUIT"),
    (EHLO, "AUTH DIGEST-MD5", b64("garbage"), "AUTH DIGEST-MD5", "*", "QUIT"),
    (EHLO, "AUTH SCRAM-SHA-256", b64("n,,n=test,r=abc"), "*", "QUIT"),
    (EHLO, MAIL, GOOD, "RSET", GOOD, MAIL, RCPT, "QUIT"),
    (EHLO, MAIL, RCPT, "QUIT"),
    (EHLO, "MAIL FROM:<anna@example.org> AUTH=<>", RCPT, "QUIT"),
    (EHLO, GOOD, "MAIL FROM:<anna@example.org> AUTH=<>", RCPT, "QUIT"),
    (EHLO, GOOD, "MAIL FROM:<anna@example.org> AUTH=b+40c.test", RCPT, "QUIT"),
    (EHLO, GOOD, "MAIL FROM:<anna@example.org> AUTH=a AUTH=b", "QUIT"),
    (EHLO, GOOD, "MAIL FROM:<anna@example.org> AUTH", "MAIL FROM:<a@b.test> AUTH=+zz", "QUIT"),
    (EHLO, GOOD, "MAIL FROM:<boss@example.org>", RCPT, "QUIT"),
    (EHLO, GOOD, "MAIL FROM:<free@example.org>", RCPT, "QUIT"),
    (EHLO, "MAIL FROM:<boss@example.org>", RCPT, "QUIT"),
    (EHLO, "AUTH PLAIN " + "A" * 1600, "AUTH PLAIN", "A" * 1600, "QUIT"),
    (EHLO, BAD, BAD, BAD, "NOOP", "QUIT"),
    (EHLO, "AUTH PLAIN"),
)  # fmt: skip
SETTINGS: Final[dict[str, dict[str, str]]] = {
    "usual": {},
    "old-clients": {"broken_sasl_auth_clients": "yes"},
    "no-plaintext": {"smtpd_sasl_security_options": "noplaintext, noanonymous"},
    "tls-only": {"smtpd_tls_auth_only": "yes"},
    "exceptions": {"smtpd_sasl_exceptions_networks": "127.0.0.0/8"},
    "off": {"smtpd_sasl_auth_enable": "no"},
    "mechanisms": {"smtpd_sasl_mechanism_filter": "plain, cram-md5"},
}


def started(system: MailSystem, top: Path, **main: str) -> MailSystem:
    system.configure(
        {
            "smtpd_sasl_auth_enable": "yes",
            "cyrus_sasl_config_path": "$config_directory/sasl",
            "smtpd_sasl_authenticated_header": "yes",
            "smtpd_sender_login_maps": f"inline:{{anna@example.org={LOGIN} boss@example.org=boss}}",
            "smtpd_sender_restrictions": "reject_sender_login_mismatch",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_error_sleep_time": "0",
            **main,
        },
        [f"127.0.0.1:{system.smtp_port} inet n - n - - smtpd"],
    )
    folder = system.config_directory / "sasl"  # where Debian has it, whatever main.cf says
    folder.mkdir()
    (folder / "smtpd.conf").write_text(AUXPROP.format(top=top))
    system.allow("SASL|Illegal|authentication|non-SMTP command")
    system.start()
    return system


def replies(system: MailSystem, dialogue: Dialogue) -> list[str]:
    """What is said to a client; challenges have no text, lists of mechanisms are sorted."""
    found = []
    with system.smtp() as client:
        for line in dialogue:
            code, text = client.docmd(line)
            lines = _BASE64.sub("no base64", text.decode()).split("\n")
            if code == 334:
                lines = []
            found.append(f"{code} " + "|".join(" ".join(sorted(one.split())) for one in lines))
            if code in (221, 421):
                break
        client.close()
    return found


def told(system: MailSystem, dialogues: Sequence[Dialogue]) -> list[str]:
    """All that is said in dialogues, behind each command."""
    return [
        f"{line} -> {answer}"
        for dialogue in dialogues
        for line, answer in zip(dialogue, replies(system, dialogue), strict=False)
    ]


def differences(found: Sequence[list[str]]) -> str:
    """Ours are "+", those of Postfix "-"."""
    return "\n" + "\n".join(difflib.unified_diff(found[1], found[0], "postfix", "ours", n=1))


# For what is not base64 the original has the words of a function of the library.
_BASE64: Final = re.compile(
    r"another step is needed in authentication|Invalid base64 data in \w+ response"
)


def log_of(system: MailSystem) -> list[str]:
    """What smtpd(8) has logged, without ids and challenges."""
    lines = []
    for line in system.log_lines(r"smtpd\[\d+\]: "):
        text = re.sub(r"^.*?smtpd\[\d+\]: ", "", line)
        text = re.sub(r"^[0-9A-F]{6,}:", "ID:", text).replace("NOQUEUE: lost", "lost")
        text = re.sub(r"authentication failed: [A-Za-z0-9+/=]{16,}", "CHALLENGE", text)
        if "Couldn't find mech" not in text:  # the library was not asked for it
            lines.append(_BASE64.sub("no base64", text))
    return lines


@pytest.mark.root
@pytest.mark.parametrize("setting", SETTINGS)
def test_dialogues(
    make_system: MakeSystem, make_postfix: MakePostfix, short_tmp: Path, setting: str
) -> None:
    sasldb(short_tmp, test="mail.test")
    short_tmp.chmod(0o755)
    dialogues = DIALOGUES if setting == "usual" else DIALOGUES[:9]
    ours = started(
        make_system(main={"smtpd_sasl_failure_limit": "0"}, privileged=True),
        short_tmp, **SETTINGS[setting],
    )  # fmt: skip
    postfix = started(make_postfix(main={}), short_tmp, **SETTINGS[setting])
    said = [told(system, dialogues) for system in (ours, postfix)]
    for system in (ours, postfix):
        system.wait_for_log("disconnect from", count=len(dialogues))
    logged = [log_of(system) for system in (ours, postfix)]
    assert (said[0], logged[0]) == (said[1], logged[1]), differences(said) + differences(logged)
