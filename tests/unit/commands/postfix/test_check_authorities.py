"""What `postfix check` says of clients that trust nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.postfix.authorities import authority_problems
from libmail.config import open_config, read_master_cf

STS = "smtp_tls_policy_maps = texthash:/x, mta-sts:\n"
OPTION = "sts unix - - n - - smtp -o smtp_tls_policy_maps=mta-sts:\n"


@pytest.mark.parametrize(
    ("main", "master", "names"),
    [
        ("", "", []),
        (STS, "", ["smtp"]),
        (f"{STS}smtp_tls_CApath = /etc/ssl/certs\n", "", []),
        (f"{STS}smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt\n", "", []),
        (f"{STS}tls_append_default_CA = yes\n", "", []),
        (f"{STS}lmtp_tls_policy_maps = mta-sts:\n", OPTION, ["smtp", "lmtp"]),
        ("", OPTION, ["smtp"]),
        ("smtp_tls_policy_maps = $loop\nloop = $loop\n", "", []),
    ],
)
def test_authorities(tmp_path: Path, main: str, master: str, names: list[str]) -> None:
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{main}")
    (tmp_path / "master.cf").write_text(master)
    config = open_config(str(tmp_path))
    told = authority_problems(config, read_master_cf(config.directory))
    assert [line.partition("_")[0] for line in told] == names
