"""A name server for tests: answers from text records on a loopback UDP port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset


class FakeServer:
    """Records are lines such as "a.test 60 IN MX 10 mx.a.test."; owners without dot at the end.

    "broken.test SERVFAIL", "silent.test TIMEOUT" and "odd.test GARBAGE" are special. What is asked
    for with DNSSEC is validated, but for "forged.test INSECURE".
    """

    def __init__(self, records: Iterable[str], address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._sets: dict[tuple[str, str], list[str]] = {}
        self._special: dict[str, str] = {}
        self._names: set[str] = set()
        self._insecure: set[str] = set()
        self.queries: list[tuple[str, str]] = []
        for line in records:
            owner, kind, *rest = line.split(None, 2)
            if kind == "INSECURE":
                self._insecure.add(owner)
            elif kind in ("SERVFAIL", "TIMEOUT", "GARBAGE"):
                self._special[owner] = kind
            else:
                self._sets.setdefault((owner, kind), []).append(rest[0])
                self._names.add(owner)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._address = self._socket.getsockname()
        self.port: int = self._address[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def change(self, owner: str, kind: str, *values: str) -> None:
        """Have these records from now on, in place of those of the same kind."""
        self._names.add(owner)
        if values:
            self._sets[owner, kind] = list(values)
        else:
            self._sets.pop((owner, kind), None)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._address)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            reply = self._reply(dns.message.from_wire(data))
            if reply is not None:
                self._socket.sendto(reply, peer)

    def _reply(self, query: dns.message.Message) -> bytes | None:
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower() or "."
        kind = dns.rdatatype.to_text(question.rdtype)
        self.queries.append((name, kind))
        special = self._special.get(name, "")
        if special == "TIMEOUT":
            return None
        reply = dns.message.make_response(query, recursion_available=True)
        if special == "GARBAGE":
            return reply.to_wire()[:12] + b"\xff\xff\xff"
        if special:
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply.to_wire()
        if query.flags & dns.flags.AD and name not in self._insecure:
            reply.flags |= dns.flags.AD
        if name not in self._names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        for found in (kind, "CNAME"):
            if (name, found) in self._sets:
                data = self._sets[name, found]
                reply.answer.append(
                    dns.rrset.from_text_list(question.name, 60, dns.rdataclass.IN, found, data)
                )
                break
        return reply.to_wire()
