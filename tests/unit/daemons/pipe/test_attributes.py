"""What master.cf says of a command."""

from __future__ import annotations

import os
import pwd

import pytest

from daemons.pipe.attributes import Attributes, Flags, parse_attributes, parse_eol
from libmail.log import Fatal

ME = pwd.getpwuid(os.geteuid()).pw_name
# Root is refused as the user of a command; who is not root has nobody else.
USER = "nobody" if os.geteuid() == 0 else ME


def parse(text: str) -> Attributes:
    return parse_attributes(tuple(text.split()), ME, "postfix-net")


def test_all() -> None:
    text = (
        f"chroot=/c directory=/d eol=\\r\\n flags=Dq> null_sender= size=7 user={USER} argv=a b=c d"
    )
    found = parse(text)
    assert found.user.name == USER
    assert found.user.groups == (found.user.gid,)
    assert found.argv == ("a", "b=c", "d")
    assert found.flags == Flags(delivered_to=True, quote=True, quote_from=True)
    assert (found.root, found.folder, found.eol) == ("/c", "/d", b"\r\n")
    assert (found.null_sender, found.size_limit) == ("", 7)


def test_defaults() -> None:
    found = parse(f"user={USER}: argv=x")
    assert found == Attributes(found.user, ("x",))
    assert (found.eol, found.null_sender, found.flags) == (b"\n", "MAILER-DAEMON", Flags())


def test_every_flag() -> None:
    flags = parse(f"flags=BDFORXhqu.> user={USER} argv=x").flags
    assert all(getattr(flags, name) for name in Flags.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("argv=x", "missing user= command-line attribute"),
        (f"user={USER}", "missing argv= command-line attribute"),
        (f"user={USER} argv=", "missing argv= command-line attribute"),
        (f"user={USER} foo=bar argv=x", "unknown attribute name: foo=bar"),
        (f"user={USER} cat argv=x", "unknown attribute name: cat"),
        (f"user={USER} flags=DZ argv=x", "unknown flag: Z (ignored)"),
        (f"user={USER} size=-5 argv=x", "get_service_attr: bad size= value: -5"),
        (f"user={USER} size= argv=x", "get_service_attr: bad size= value: "),
        ("user=no-such-user argv=x", "get_service_attr: unknown username: no-such-user"),
        ("user= argv=x", "get_service_attr: unknown username: "),
        (f"user={USER}:no-such-group argv=x", "get_service_attr: unknown group: no-such-group"),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    with pytest.raises(Fatal) as caught:
        parse(text)
    assert str(caught.value) == problem


GROUP = pwd.getpwnam("daemon").pw_gid


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("root", "root privileges"),
        ("daemon", "mail system owner daemon"),
        ("nobody:root", "privileged group id 0"),
        ("nobody:daemon", f"mail system owner daemon group id {GROUP}"),
        ("mail", "mail_network_user mail"),
    ],
)
def test_users_that_are_refused(user: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Fatal) as caught:
        parse_attributes((f"user={user}", "argv=x"), "daemon", "mail")
    assert str(caught.value) == f"user= command-line attribute specifies {problem}"


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("", b""),
        (r"\r\n", b"\r\n"),
        (r"\a\b\f\n\r\t\v\\", b"\a\b\f\n\r\t\v\\"),
        (r"\040\12\0123", b" \n\n3"),
        (r"\q|\377", b"q|\xff"),
        (r"a\000b", b"a"),
        ("x\\", b"x"),
        ("é", "é".encode()),
    ],
)
def test_eol(text: str, octets: bytes) -> None:
    assert parse_eol(text) == octets
