"""The way of a recipient through aliases, .forward files and mailboxes."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from libmail.agents.delivery import Bounced, Deferred, Sent
from libmail.ipc.messages import TraceFlag
from tests.unit.daemons.local.bench import ME, Bench

MINE = f"{ME}@here.test"


def test_mailbox(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    delivery = bench.deliver(MINE)
    assert delivery.said == [f"{MINE} 2.0.0 delivered to mailbox"]
    assert delivery.done == [MINE]
    lines = bench.mailbox().split(b"\n")
    assert lines[0].startswith(b"From from@far.test  ")
    assert lines[1:] == [
        b"Return-Path: <from@far.test>",
        f"X-Original-To: {MINE}".encode(),
        f"Delivered-To: {MINE}".encode(),
        b"Subject: test",
        b"",
        b"hello",
        b">From here",
        b"",
        b"",
    ]


def test_extension_and_case(tmp_path: Path) -> None:
    bench = Bench(tmp_path, recipient_delimiter="+")
    delivery = bench.deliver(f"{ME.upper()}+Ext@here.test")
    assert [one.reason for _, one in delivery.outcomes] == ["delivered to mailbox"]
    assert bench.mailbox()


def test_unknown(tmp_path: Path) -> None:
    delivery = Bench(tmp_path).deliver("nosuch@here.test")
    assert delivery.said == ['nosuch@here.test 5.1.1 unknown user: "nosuch"']
    assert delivery.done == ["nosuch@here.test"]


def test_loop(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    delivery = bench.deliver(MINE, loops=frozenset({MINE}))
    assert delivery.said == [f"{MINE} 5.4.6 mail forwarding loop for {MINE}"]
    assert not bench.mailbox()


def test_required_names_are_discarded(tmp_path: Path) -> None:
    delivery = Bench(tmp_path).deliver("postmaster@here.test", "double-bounce@here.test")
    assert [one.reason for _, one in delivery.outcomes] == [
        "discarded",
        "undeliverable postmaster notification discarded",
    ]


ALIASES = {
    "group": f"{ME}, friend@far.test, {ME}@here.test, other@far.test",
    "owned": f"{ME}, friend@far.test",
    "owner-owned": "boss@far.test",
    "partly": f"friend@far.test, trouble@down.test, {ME}",
    "wrong": "x@bad.test",
    "loop1": "loop2",
    "loop2": "loop1",
    ME: f"\\{ME}, friend@far.test",
    "null": "/dev/null",
    "fail": '"|exit 67"',
    "failing": "fail2",
    "owner-failing": "boss@far.test",
    "fail2": '"|echo sorry; exit 75", "|true"',
}


def test_alias(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**ALIASES, ME: ME})
    delivery = bench.deliver("group@here.test")
    assert delivery.said == [
        f"{MINE} 2.0.0 delivered to mailbox",
        "group@here.test 2.0.0 forwarded as NEW1",
    ]
    assert bench.mailbox().count(b"\nDelivered-To: group@here.test\n") == 1
    (new,) = bench.cleanup.submissions
    assert (new.sender, new.recipients) == ("from@far.test", ["friend@far.test", "other@far.test"])
    lines = new.content.split(b"\r\n")
    assert lines[0] == b"Received: by here.test (Postfix)"
    assert lines[1].startswith(b"\tid NEW1; ")
    assert lines[2] == b"Delivered-To: group@here.test"
    assert lines[3:] == [b"Subject: test", b"", b"hello", b"From here", b""]


def test_user_is_an_alias_of_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ALIASES)
    delivery = bench.deliver(MINE)
    assert [one.reason for _, one in delivery.outcomes] == [
        "delivered to mailbox",
        "forwarded as NEW1",
    ]


def test_members_of_an_owned_list_leave_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**ALIASES, ME: ME})
    delivery = bench.deliver("owned@here.test")
    assert delivery.said == ["owned@here.test 2.0.0 forwarded as NEW1"]
    (new,) = bench.cleanup.submissions
    assert (new.sender, new.recipients) == ("owner-owned@here.test", [MINE, "friend@far.test"])
    assert not bench.mailbox()


@pytest.mark.parametrize(
    ("expand", "sender"), [(False, "owner-owned@here.test"), (True, "boss@far.test")]
)
def test_expand_owner_alias(tmp_path: Path, expand: bool, sender: str) -> None:
    bench = Bench(tmp_path, ALIASES, expand_owner_alias=expand)
    bench.deliver("owned@here.test")
    assert bench.cleanup.submissions[0].sender == sender


def test_trouble_with_a_member_holds_back_the_forwarding(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**ALIASES, ME: ME})
    delivery = bench.deliver("partly@here.test")
    assert [one.dsn for _, one in delivery.outcomes] == ["4.3.0", "2.0.0"]
    assert not bench.cleanup.submissions
    assert not delivery.done


def test_owner_is_told(tmp_path: Path) -> None:
    delivery = Bench(tmp_path, ALIASES).deliver("failing@here.test")
    assert [type(one) for _, one in delivery.outcomes] == [Deferred, Sent]
    assert delivery.returned_to == ["owner-failing@here.test"] * 2
    assert not delivery.done


def test_alias_loop(tmp_path: Path) -> None:
    delivery = Bench(tmp_path, ALIASES).deliver("loop1@here.test")
    assert delivery.said == ["loop2@here.test 5.4.6 recipient nesting limit exceeded"]


def test_destinations(tmp_path: Path) -> None:
    delivery = Bench(tmp_path, ALIASES).deliver(
        "null@here.test", "fail@here.test", "wrong@here.test"
    )
    assert delivery.said == [
        "null@here.test 2.0.0 delivered to file: /dev/null",
        "fail@here.test 5.1.1 user unknown",
        "wrong@here.test 5.1.3 bad recipient address syntax: x@bad.test",
    ]


@pytest.mark.parametrize("what", ["commands", "files"])
def test_restricted(tmp_path: Path, what: str) -> None:
    bench = Bench(tmp_path, ALIASES, **{f"allow_mail_to_{what}": ("forward",)})
    name = {"commands": "fail", "files": "null"}[what]
    delivery = bench.deliver(f"{name}@here.test")
    assert delivery.said == [f"{name}@here.test 5.7.1 mail to {what[:-1]} is restricted"]


def test_services_down(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**ALIASES, ME: ME})
    bench.cleanup.status = 2
    delivery = bench.deliver("owned@here.test")
    assert delivery.said == ["owned@here.test 4.3.0 unable to forward message"]
    assert not delivery.done
    bench.rewrite.broken = True
    delivery = bench.deliver("group@here.test")
    assert all(isinstance(one, Deferred) for _, one in delivery.outcomes)


def test_include(tmp_path: Path) -> None:
    members = tmp_path / "members"
    members.write_text(f"# people\n{ME}, a@far.test\n'|true', \"|true\"\n")
    bench = Bench(tmp_path, {"list": f":include:{members}", "gone": ":include:/nonexistent"})
    delivery = bench.deliver("list@here.test")
    assert "list@here.test 5.7.1 mail to command is restricted" in delivery.said
    assert bench.cleanup.submissions[0].recipients[:2] == [MINE, "a@far.test"]
    delivery = bench.deliver("gone@here.test")
    assert delivery.said == ["gone@here.test 5.3.5 mail system configuration error"]
    members.chmod(0o666)
    assert bench.deliver("list@here.test").said == [
        "list@here.test 5.3.5 mail system configuration error"
    ]


def test_a_long_line_is_not_cut(tmp_path: Path) -> None:
    """line_length_limit would make two other addresses of one."""
    names = [f"member{number}@far.test" for number in range(2000)]
    (tmp_path / "members").write_text(", ".join(names))
    bench = Bench(tmp_path, {"list": f":include:{tmp_path}/members"})
    bench.deliver("list@here.test")
    assert bench.cleanup.submissions[0].recipients == names


def test_a_chain_of_lists_ends(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"l{number}").write_text(f":include:{tmp_path}/l{number + 1}\n")
    bench = Bench(tmp_path, forward_path=f"{tmp_path}/l0")
    assert bench.deliver(MINE).said == [f"{MINE} 5.4.6 recipient nesting limit exceeded"]


def test_a_tree_of_lists_ends(tmp_path: Path) -> None:
    """Each of its leaves is a list of its own: no filter of duplicates ends this."""
    for level in range(3):
        for number in range(11**level):
            names = [f"l{level + 1}.{number * 11 + child}" for child in range(11)]
            text = "".join(f":include:{tmp_path}/{name}\n" for name in names)
            (tmp_path / f"l{level}.{number}").write_text(text)
    for number in range(11**3):
        (tmp_path / f"l3.{number}").write_text(f"leaf{number}@far.test\n")
    bench = Bench(tmp_path, forward_path=f"{tmp_path}/l0.0", duplicate_filter_limit=1)
    delivery = bench.deliver(MINE)
    assert delivery.said == [
        f"{MINE} 5.4.6 recipient nesting limit exceeded",
        f"{MINE} 2.0.0 forwarded as NEW1",
    ]
    assert len(bench.cleanup.submissions[0].recipients) < 1000


@pytest.mark.parametrize("text", ["a\n" * 20_000, "a," * 20_000, "a@far.test\n" * 3_000_000])
def test_a_forward_of_a_user_is_bounded(tmp_path: Path, text: str) -> None:
    """It is used as a whole or not at all, and waits for somebody to mend it."""
    (tmp_path / "forward").write_text(text)
    delivery = Bench(tmp_path).deliver(MINE)
    assert delivery.said == [f"{MINE} 4.3.5 mail system configuration error"]
    assert not delivery.done


def test_forward(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    forward = tmp_path / "forward"
    forward.write_text(f'{ME}, friend@far.test\n"|cat >{tmp_path}/copy"\n')
    delivery = bench.deliver(MINE)
    assert delivery.said == [
        f"{MINE} 2.0.0 delivered to mailbox",
        f"{MINE} 2.0.0 delivered to command: cat >{tmp_path}/copy",
        f"{MINE} 2.0.0 forwarded as NEW1",
    ]
    copy = (tmp_path / "copy").read_bytes().split(b"\n")
    assert copy[0].startswith(b"From from@far.test  ")
    assert copy[-2] == b"From here"


@pytest.mark.parametrize("how", ["empty", "writable", "folder", "link"])
def test_forward_that_is_not_used(tmp_path: Path, how: str) -> None:
    bench = Bench(tmp_path)
    forward = tmp_path / "forward"
    match how:
        case "folder":
            forward.mkdir()
        case "link":
            forward.symlink_to("/etc/passwd")
        case _:
            forward.write_text("" if how == "empty" else "friend@far.test")
            forward.chmod(0o666 if how == "writable" else 0o600)
    delivery = bench.deliver(MINE)
    assert delivery.said == [f"{MINE} 2.0.0 delivered to mailbox"]


def test_forward_by_extension(tmp_path: Path) -> None:
    path = f"{tmp_path}/forward${{recipient_delimiter}}${{extension}}, {tmp_path}/forward"
    bench = Bench(tmp_path, recipient_delimiter="+", forward_path=path)
    (tmp_path / "forward").write_text("plain@far.test")
    (tmp_path / "forward+news").write_text("news@far.test")
    bench.deliver(f"{ME}+News@here.test")
    bench.deliver(f"{ME}+other@here.test")
    bench.deliver(MINE)
    sent = [one.recipients for one in bench.cleanup.submissions]
    assert sent == [["news@far.test"], ["plain@far.test"], ["plain@far.test"]]


def test_transport_to_itself(tmp_path: Path) -> None:
    delivery = Bench(tmp_path, mailbox_transport="local:x").deliver(MINE)
    assert delivery.said == [f"{MINE} 4.3.5 mail system configuration error"]


def test_luser_relay(tmp_path: Path) -> None:
    bench = Bench(tmp_path, luser_relay="admin+$local@far.test")
    delivery = bench.deliver("no$home@here.test")
    assert delivery.said == ["no$home@here.test 2.0.0 forwarded as NEW1"]
    assert bench.cleanup.submissions[0].recipients == ["admin+no$home@far.test"]


def test_luser_relay_to_nobody(tmp_path: Path) -> None:
    delivery = Bench(tmp_path, luser_relay="nosuch2").deliver("nosuch@here.test")
    assert delivery.said == ['nosuch2@here.test 5.1.1 unknown user: "nosuch2"']


@pytest.mark.parametrize(
    ("relay", "said"),
    [
        ("gone+$extension", 'gone+@here.test 5.1.1 unknown user: "gone"'),
        ("$local@$domain", 'nosuch@here.test 5.1.1 unknown user: "nosuch"'),
        ("$shell", "mailer-daemon@here.test 2.0.0 discarded"),
        ("${user", "nosuch@here.test 4.3.5 mail system configuration error"),
    ],
    ids=["undefined is empty", "itself", "nothing", "malformed"],
)
def test_luser_relay_that_leads_nowhere(tmp_path: Path, relay: str, said: str) -> None:
    bench = Bench(tmp_path, luser_relay=relay, recipient_delimiter="+")
    assert bench.deliver("nosuch@here.test").said == [said]


def test_owner_is_not_special(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**ALIASES, ME: ME}, owner_request_special=False)
    bench.deliver("owned@here.test")
    assert bench.cleanup.submissions[0].sender == "from@far.test"


def test_extension_is_used_up_by_the_name_of_the_file(tmp_path: Path) -> None:
    path = f"{tmp_path}/forward${{recipient_delimiter}}${{extension}}, {tmp_path}/forward"
    bench = Bench(
        tmp_path, recipient_delimiter="+", forward_path=path,
        propagate_unmatched_extensions=("forward",),
    )  # fmt: skip
    (tmp_path / "forward").write_text("plain@far.test")
    (tmp_path / "forward+news").write_text("news@far.test")
    bench.deliver(f"{ME}+news@here.test")
    bench.deliver(f"{ME}+other@here.test")
    sent = [one.recipients for one in bench.cleanup.submissions]
    assert sent == [["news@far.test"], ["plain+other@far.test"]]


def test_no_original_recipient(tmp_path: Path) -> None:
    bench = Bench(tmp_path, enable_original_recipient=False)
    bench.deliver(MINE)
    assert b"X-Original-To" not in bench.mailbox()


def test_mailbox_command(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox_command='env >"$HOME_OF_TEST"', export_environment=(
        f"HOME_OF_TEST={tmp_path}/env",), recipient_delimiter="+")  # fmt: skip
    delivery = bench.deliver(f"{ME}+x;y@here.test", sender="a`b@far.test")
    assert isinstance(delivery.outcomes[0][1], Sent)
    lines = (tmp_path / "env").read_text().splitlines()
    assert {f"USER={ME}", "EXTENSION=x_y", "SENDER=a_b@far.test", "DOMAIN=here.test"} <= set(lines)
    assert {"CLIENT_HOSTNAME=client.test", "CLIENT_HELO=helo.test"} <= set(lines)


def test_home_maildir(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mail_spool_directory=f"{tmp_path}/spool/")
    delivery = bench.deliver(MINE)
    assert delivery.said == [f"{MINE} 2.0.0 delivered to maildir"]
    (file,) = (tmp_path / "spool" / ME / "new").iterdir()
    assert file.read_bytes().endswith(b"\n\nhello\nFrom here\n")


def test_size_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox_size_limit=100)
    (outcome,) = [one for _, one in bench.deliver(MINE).outcomes]
    assert isinstance(outcome, Bounced)
    assert outcome.dsn == "5.2.2"
    path = f"{tmp_path}/mail/{ME}"
    assert outcome.reason == (
        f"cannot update mailbox {path} for user {ME}. error writing message: File too large"
    )
    assert not bench.mailbox()


def test_verify(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {**ALIASES, ME: ME})
    delivery = bench.deliver(
        "group@here.test", "null@here.test", "fail@here.test", flags=TraceFlag.USER_VERIFY
    )
    assert [one.reason for _, one in delivery.outcomes] == [
        "delivers to mailbox",
        "forwards to friend@far.test",
        "forwards to other@far.test",
        "delivers to file: /dev/null",
        "delivers to command: exit 67",
    ]
    assert not bench.mailbox()
    assert not bench.cleanup.submissions


def test_probe_asks_no_further(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"wrong": "x@bad.test"})
    (tmp_path / "forward").write_text(f"{ME}, friend@far.test")
    delivery = bench.deliver("wrong@here.test", MINE, flags=TraceFlag.MTA_VERIFY)
    assert delivery.said == [
        "wrong@here.test 2.0.0 aliased to x@bad.test",
        f"{MINE} 2.0.0 forward via file: {tmp_path}/forward",
    ]


def test_file_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.getpwnam(ME)
    own = pwd.struct_passwd((*entry[:5], f"{tmp_path}/", *entry[6:]))
    monkeypatch.setattr("daemons.local.user.pwd.getpwnam", lambda _: own)
    bench = Bench(tmp_path)
    (tmp_path / "forward").write_text("~/notes, ~bob/x")
    delivery = bench.deliver(MINE)
    assert [(one.dsn, one.reason) for _, one in delivery.outcomes] == [
        ("2.0.0", f"delivered to file: {tmp_path}/notes"),
        ("4.3.5", "mail system configuration error"),
    ]
    assert (tmp_path / "notes").read_bytes().endswith(b"\nhello\n>From here\n\n")


def test_home_of_nobody(tmp_path: Path) -> None:
    (outcome,) = Bench(tmp_path, {"list": "~/notes"}).deliver("list@here.test").outcomes
    assert isinstance(outcome[1], Deferred)


def test_command_is_told_of_the_null_sender(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mailbox_command=f"env >{tmp_path}/env")
    bench.deliver(MINE, sender="")
    assert "SENDER=" in (tmp_path / "env").read_text().splitlines()


def test_other_user_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    delivery = bench.deliver("root@here.test")
    assert delivery.said == ["root@here.test 4.3.5 mail system configuration error"]
