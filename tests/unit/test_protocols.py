"""Whoever is listened to by a protocol of ours: what it does not read is not added to for ever."""

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
# These connect to a server themselves and ask one thing at a time, or give one short answer.
ASKING: Final = {
    "commands/qmqp_sink.py": "an answer to each client",
    "commands/qmqp_source.py": "a message to each server",
    "commands/smtp_source/session.py": "a command at a time",
    "libmail/clients/dovecot.py": "Dovecot, a request of each session",
    "libmail/clients/policy.py": "a policy server",
    "libmail/net/introduction.py": "connector(8) of this system",
    "libmail/net/stream_client.py": "servers of tables",
    "libmail/service/link.py": "a service of this system, a question of each session",
    "daemons/qmgr/agents.py": "delivery agents, a request at a time",
}


def test_protocols_know_when_their_peer_is_slow() -> None:
    found = []
    for top in ("libmail", "daemons", "commands", "master"):
        for path in sorted((ROOT / top).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and name not in ASKING:
                    methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                    if "data_received" in methods:
                        found.append((name, methods))
    assert [name for name, methods in found if "pause_writing" not in methods] == []
    assert len(found) >= 3  # smtpd's channel, qmgr's front, Connection
