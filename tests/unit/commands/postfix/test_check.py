"""What `postfix check` finds: tables, address classes, ways to relay, files in the jail."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.postfix.classes import class_problems
from commands.postfix.jails import copies_that_differ
from commands.postfix.relaying import relay_problems
from commands.postfix.tables import named_tables, table_problems
from libmail.config import Config, open_config, read_master_cf
from libmail.config.master_cf import ServiceEntry


def configuration(
    folder: Path, main: str, master: str = ""
) -> tuple[Config, tuple[ServiceEntry, ...]]:
    (folder / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = mail.test\n" + main)
    (folder / "master.cf").write_text(master)
    return open_config(str(folder)), read_master_cf(str(folder))


@pytest.mark.parametrize(
    ("setting", "specs"),
    [
        ("virtual_alias_maps = hash:/a, proxy:lmdb:/b", ["hash:/a", "lmdb:/b"]),
        ("transport_maps = inline:{ {a=b}, {c = d} } texthash:/t", [
            "inline:{ {a=b}, {c = d} }", "texthash:/t"]),
        ("smtpd_client_restrictions = check_client_access { cidr:/x, default_action=DUNNO }, "
         "reject", ["cidr:/x"]),
        ("smtpd_milters = unix:/run/m, inet:localhost:1", []),
        ("local_recipient_maps = proxy:unix:passwd.byname $alias_maps\nalias_maps = hash:/etc/a",
         ["unix:passwd.byname", "hash:/etc/a", "hash:/etc/a"]),
        ("address_verify_map = btree:/var/lib/v", []),
        ("c = lmdb:/var/lib/c\npostscreen_cache_map = $c\nproxy_write_maps = proxy:$c", []),
        ("address_verify_map = proxy:btree:/v\nproxy_read_maps = proxy:btree:/v, hash:/t",
         ["hash:/t"]),
        ("virtual_alias_maps = unionmap:{hash:/u,cdb:/v}", ["unionmap:{hash:/u,cdb:/v}"]),
        ("relayhost = [smtp.test]:587", []),
    ],
)  # fmt: skip
def test_which_tables_are_named(tmp_path: Path, setting: str, specs: list[str]) -> None:
    config, entries = configuration(tmp_path, setting + "\n")
    assert [table.spec for table in named_tables(config, entries)] == specs


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("/a/ OK\n")
    bad.write_text("/a/ OK\n/(/ REJECT\n")
    config, entries = configuration(
        tmp_path,
        f"header_checks = regexp:{good}\nbody_checks = pcre:{bad} pcre:{bad}\n",
        f"25 inet n - n - - smtpd\n -o smtpd_helo_restrictions=lmdb:{tmp_path}/none\n",
    )
    first, second = table_problems(config, entries)
    assert first.startswith(f"{tmp_path}/main.cf, line 4: body_checks: pcre map {bad}, line 2: ")
    assert second == (
        f"{tmp_path}/master.cf, line 1: smtpd_helo_restrictions: "
        f"open database {tmp_path}/none.lmdb: No such file or directory"
    )


def test_no_table_is_trusted_in_data_directory(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a b\n")
    config, entries = configuration(
        tmp_path,
        f"data_directory = {tmp_path}\ntransport_maps = texthash:$data_directory/t\n"
        "address_verify_map = btree:$data_directory/v\n",
    )
    (line,) = table_problems(config, entries)
    assert line.startswith(
        f"{tmp_path}/main.cf, line 4: transport_maps: texthash:{tmp_path}/t is in data_directory"
    )


@pytest.mark.parametrize(
    ("main", "found"),
    [
        ("", []),
        ("mydestination = a.test\nrelay_domains = $mydestination", []),
        ("mydestination = mail.a.test, a.test\nrelay_domains = $mydestination a.test", []),
        ("mydestination = a.test, B.test\nvirtual_mailbox_domains = c.test b.test", [
            ("b.test", "mydestination", "virtual_mailbox_domains", "local")]),
        ("mydestination = a.test\nvirtual_alias_maps = inline:{a.test=x, u@b.test=v}", [
            ("a.test", "mydestination", "virtual_alias_domains", "local")]),
        ("mydestination=\nvirtual_mailbox_domains = m.x.test\nrelay_domains = x.test", [
            ("m.x.test", "virtual_mailbox_domains", "relay_domains", "virtual mailbox")]),
        ("mydestination = a.test\nvirtual_mailbox_domains = hash:/nowhere", []),
    ],
)  # fmt: skip
def test_domains_in_two_classes(
    tmp_path: Path, main: str, found: list[tuple[str, str, str, str]]
) -> None:
    config, _ = configuration(tmp_path, main + "\n")
    lines = list(class_problems(config))
    assert len(lines) == len(found)
    for line, (domain, winner, loser, kind) in zip(lines, found, strict=True):
        assert line.startswith(f"do not list domain {domain} in BOTH {winner} and {loser}: ")
        assert line.endswith(f"; {winner} wins, so its mail is {kind} mail")


@pytest.mark.parametrize(
    ("main", "master", "count"),
    [
        ("", "25 inet n - n - - smtpd\n", 0),
        ("mynetworks = 127.0.0.0/8 [::1]/128 10.0.0.0/8 host.test", "", 0),
        ("mynetworks = 0.0.0.0/0", "", 1),
        ("mynetworks = [::]/0, 128.0.0.0/1", "", 2),
        ("", "25 inet n - n - - smtpd -o smtpd_relay_restrictions=permit\n"
             " -o smtpd_recipient_restrictions=permit\n", 1),
        ("smtpd_relay_restrictions=\nsmtpd_recipient_restrictions = permit_mynetworks",
         "25 inet n - n - - smtpd\n587 inet n - n - - smtpd\n", 2),
    ],
)  # fmt: skip
def test_ways_to_relay(tmp_path: Path, main: str, master: str, count: int) -> None:
    config, entries = configuration(tmp_path, main + "\n", master)
    assert len(list(relay_problems(config, entries))) == count


def test_copies_in_the_jail(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/services").write_bytes(Path("/etc/services").read_bytes())
    (tmp_path / "etc/hosts").write_text("not that of the system\n")
    (tmp_path / "etc/no-such-file").write_text("")
    (tmp_path / "active").mkdir()
    (tmp_path / "active/etc").write_text("")
    _, confined = configuration(tmp_path, "", "25 inet n - y - - smtpd\n")
    assert sorted(copies_that_differ(str(tmp_path), confined)) == [
        f"{tmp_path}/etc/hosts and /etc/hosts differ",
        f"{tmp_path}/etc/no-such-file and /etc/no-such-file differ",
    ]
    _, free = configuration(tmp_path, "", "25 inet n - n - - smtpd\nx unix n - y - 0 cleanup\n")
    assert list(copies_that_differ(str(tmp_path), free)) == []
