"""tcp and socketmap: what goes over the wire, and what becomes of a server's odd behaviour."""

from __future__ import annotations

import asyncio
import socketserver
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.config import Config
from libmail.net.endpoint import Endpoint, parse_endpoint
from libmail.net.stream_client import LinkError, NotConnected, StreamClient
from libmail.tables.registry import open_with
from libmail.tables.servers.socketmap import SocketmapTable, netstring_parser
from libmail.tables.servers.tcp import TcpTable, decode_reply, encode_request, first_line
from libmail.tables.table import TableConfigError, TableOptions, TableRetry, lookup_now
from libmail.text.netstrings import netstring
from tests.unit.libmail.tables.recorder import Recorder
from tests.unit.libmail.tables.stream_server import Serve, Server, run

SERVER = "db.example.org:99"
TCP = f"tcp:{SERVER}"
SOCKETMAP = "socketmap:unix:/run/x:aliases"


def tcp_table(server: Server, log: Recorder) -> TcpTable:
    return TcpTable(TCP, SERVER, server, TableOptions(log=log))


def socketmap(server: Server, log: Recorder, config: Config | None = None) -> SocketmapTable:
    options = TableOptions(log=log, config=config or Config(""))
    return SocketmapTable(SOCKETMAP, "/run/x", "aliases", server, options)


@pytest.mark.parametrize(
    ("key", "request_line"),
    [
        ("user@example.org", b"get user@example.org\n"),
        ("a b", b"get a%20b\n"),
        ("100%", b"get 100%25\n"),
        ("é\n\x7f", b"get %C3%A9%0A%7F\n"),
        ("\udcff", b"get %FF\n"),
    ],
)
def test_tcp_request(key: str, request_line: bytes) -> None:
    assert encode_request(key) == request_line


@given(st.text(max_size=20))
def test_tcp_encoding_comes_back(key: str) -> None:
    line = encode_request(key.encode("utf-8", "replace").decode()).removesuffix(b"\n")
    assert b"\n" not in line
    assert decode_reply(line.replace(b"get", b"200", 1))[1] == key.encode("utf-8", "replace")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"200",
        b"20 x",
        b"2000 x",
        b"300 x",
        b"200 %",
        b"200 %4",
        b"200 %zz",
        b"200 % 1",
        b"200 %+1",
        b"hello there",
    ],
)
def test_tcp_malformed(line: bytes) -> None:
    with pytest.raises(LinkError, match=r"malformed reply|bad status code"):
        decode_reply(line)


@given(st.binary(max_size=40))
def test_tcp_any_reply_is_an_answer_or_an_error(line: bytes) -> None:
    try:
        status, _ = decode_reply(line)
    except LinkError:
        return
    assert status in (200, 400, 500)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (b"200 value\n", "value"),
        (b"200 two%20words \n", "two words "),
        (b"200 a b\r\n", "a b"),
        (b"200 \n", ""),
        (b"500 none\n", None),
    ],
)
def test_tcp_values(answer: bytes, value: str | None) -> None:
    async def main(serve: Serve) -> None:
        log = Recorder()
        table = tcp_table(serve({b"get Key\n": answer}), log)
        assert await table.lookup("Key") == value
        assert await table.lookup("") is None
        table.close()
        assert log.lines == []

    run(main)


@pytest.mark.parametrize(
    ("answer", "warning", "reason"),
    [
        (b"400 try later\n", "", "try later"),
        (b"junk\n", "malformed reply: junk", "malformed reply: junk"),
        (b"200 a%0Db\n", "malformed reply: a?b", "malformed reply: a?b"),
        (b"200 " + b"x" * 4096, "text longer than 4096", "text longer than 4096"),
        (None, "unexpected disconnect", "unexpected disconnect"),
    ],
)
def test_tcp_no_answer(answer: bytes | None, warning: str, reason: str) -> None:
    async def main(serve: Serve) -> None:
        log = Recorder()
        table = tcp_table(serve({b"get k\n": answer}), log)
        with pytest.raises(TableRetry) as caught:
            await table.lookup("k")
        assert str(caught.value) == f"table {TCP} lookup error: {reason}"
        start = f"warning: read TCP map reply from {SERVER}: "
        assert log.lines == ([start + warning] if warning else [])
        table.close()

    run(main)


def test_tcp_value_must_be_utf8() -> None:
    async def main(serve: Serve) -> None:
        table = tcp_table(serve({b"get k\n": b"200 \xff\n"}), Recorder())
        with pytest.raises(TableRetry, match="non-UTF-8 value"):
            await table.lookup("k")
        table.close()

    run(main)


def test_no_connection() -> None:
    async def main(serve: Serve) -> None:
        log = Recorder()
        table = tcp_table(serve({}, refuse=True), log)
        with pytest.raises(TableRetry, match="lookup error: Connection refused"):
            await table.lookup("k")
        other = socketmap(serve({}, refuse=True), log)
        with pytest.raises(TableRetry, match="lookup error: Connection refused"):
            await other.lookup("k")
        assert log.lines == [
            f"warning: connect to TCP map {SERVER}: Connection refused",
            "warning: connect to /run/x: Connection refused",
            f"warning: table {SOCKETMAP} lookup error: Connection refused",
        ]

    run(main)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", None),
        (b"3", None),
        (b"3:abc", None),
        (b"3:abc,", (b"abc", 6)),
        (b"3:abc,x", (b"abc", 6)),
        (b"0:,", (b"", 3)),
        (b"10:0123456789,", (b"0123456789", 14)),
    ],
)
def test_netstring(data: bytes, answer: tuple[bytes, int] | None) -> None:
    assert netstring_parser(10)(data) == answer


@pytest.mark.parametrize("data", [b":", b"x", b"-1:", b"11:", b"999", b"3:abcx", b"3 :abc,"])
def test_no_netstring(data: bytes) -> None:
    with pytest.raises(LinkError, match=r"input (format error|exceeds size limit)"):
        netstring_parser(10)(data)


@given(st.binary(max_size=100), st.binary(max_size=5))
def test_netstrings_come_back(data: bytes, more: bytes) -> None:
    parse, whole = netstring_parser(100), netstring(data)
    assert parse(whole + more) == (data, len(whole))
    for end in range(len(whole)):
        assert parse(whole[:end]) is None


@given(st.binary(max_size=30))
def test_any_octets_are_an_answer_or_an_error(data: bytes) -> None:
    for parse in (netstring_parser(20), first_line):
        try:
            found = parse(data)
        except LinkError:
            continue
        assert found is None or found[1] <= len(data)


@pytest.mark.parametrize(
    ("reply", "value"),
    [(b"OK value x", "value x"), (b"OK ", ""), (b"NOTFOUND ", None), (b"NOTFOUND", None)],
)
def test_socketmap_values(reply: bytes, value: str | None) -> None:
    async def main(serve: Serve) -> None:
        log = Recorder()
        table = socketmap(serve({b"13:aliases Key a,": netstring(reply)}), log)
        assert await table.lookup("Key a") == value
        table.close()
        assert log.lines == []

    run(main)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (netstring(b"TEMP later"), "socketmap server temporary error: later"),
        (netstring(b"TIMEOUT slow"), "socketmap server timeout error: slow"),
        (netstring(b"PERM bad\nx"), "socketmap server permanent error: bad?x"),
        (netstring(b"OK"), "socketmap server unknown error"),
        (netstring(b"OK a\nb"), "socketmap server unknown error"),
        (netstring(b""), "socketmap server unknown error"),
        (netstring(b"HELLO you"), "socketmap server unknown error"),
    ],
)
def test_socketmap_no_answer(answer: bytes, problem: str) -> None:
    async def main(serve: Serve) -> None:
        log = Recorder()
        table = socketmap(serve({b"9:aliases k,": answer}), log)
        with pytest.raises(TableRetry) as caught:
            await table.lookup("k")
        assert str(caught.value) == f"table {SOCKETMAP} lookup error: {problem}"
        assert log.lines == [f"warning: {SOCKETMAP} {problem}"]
        table.close()

    run(main)


def test_socketmap_limits() -> None:
    config = Config("").override(
        [("socketmap_max_reply_size", "8"), ("socketmap_max_query_size", "3")]
    )

    async def main(serve: Serve) -> None:
        log = Recorder()
        answers: dict[bytes, bytes | None] = {
            b"11:aliases abc,": netstring(b"OK 45678"),
            b"9:aliases d,": netstring(b"OK 456789"),
        }
        table = socketmap(serve(answers), log, config)
        assert await table.lookup("abc") == "45678"
        with pytest.raises(TableRetry, match="input exceeds size limit"):
            await table.lookup("d")
        assert await table.lookup("abcd") is None
        assert "exceeds socketmap_max_query_size (3)" in log.lines[-1]
        table.close()

    run(main)


LINES = {b"a\n": b"1\n", b"b\n": b"2\n", b"close\n": None, b"much\n": b"1\n2\n", b"mute\n": b""}


def client(
    server: Server, timeout: float = 60.0, idle: float = 10.0, life: float = 100.0
) -> StreamClient[bytes]:
    return StreamClient(server, first_line, timeout=timeout, idle=idle, life=life)


def test_a_connection_is_used_again_for_its_time() -> None:
    async def main(serve: Serve) -> None:
        server = serve(dict(LINES))
        one = client(server)
        assert [await one.ask(b"a\n"), await one.ask(b"b\n")] == [b"1", b"2"]
        assert [number for number, _ in server.asked] == [0, 0]
        one.close()
        server = serve(dict(LINES))
        short = client(server, life=-1.0)
        assert [await short.ask(b"a\n"), await short.ask(b"b\n")] == [b"1", b"2"]
        assert [number for number, _ in server.asked] == [0, 1]
        idle = client(server, idle=0.0)
        await idle.ask(b"a\n")
        while not server.connections[2].is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0)
        short.close()
        idle.close()

    run(main)


def test_many_at_a_time_have_connections_of_their_own() -> None:
    async def main(serve: Serve) -> None:
        server = serve(dict(LINES))
        one = client(server)
        answers = await asyncio.gather(*(one.ask(b"a\n") for _ in range(100)))
        assert answers == [b"1"] * 100
        assert 1 < len(server.connections) <= 20
        one.close()

    run(main)


@pytest.mark.parametrize("look", [True, False])
def test_a_kept_connection_that_was_closed_is_replaced(look: bool) -> None:
    async def main(serve: Serve) -> None:
        server = serve(dict(LINES))
        one = client(server)
        await one.ask(b"a\n")
        if look:
            server.connections[0].abort()
            await asyncio.sleep(0.01)
        else:
            server.answers[b"b\n"] = None  # closes it when asked

            def restart() -> None:
                server.answers[b"b\n"] = b"2\n"

            asyncio.get_running_loop().call_soon(restart)
            server.connections[0].abort()
        assert await one.ask(b"b\n") == b"2"
        assert server.asked[-1] == (1, b"b\n")
        one.close()

    run(main)


def test_a_fresh_connection_that_is_closed_is_an_error() -> None:
    async def main(serve: Serve) -> None:
        server = serve(dict(LINES))
        one = client(server)
        await one.ask(b"a\n")
        with pytest.raises(LinkError, match="unexpected disconnect"):
            await one.ask(b"close\n")
        assert [number for number, _ in server.asked] == [0, 0, 1]
        assert await one.ask(b"a\n") == b"1"
        one.close()

    run(main)


def test_answers_are_never_taken_for_those_of_other_questions() -> None:
    async def main(serve: Serve) -> None:
        server = serve(dict(LINES))
        one = client(server)
        assert await one.ask(b"much\n") == b"1"
        assert await one.ask(b"b\n") == b"2"
        assert server.asked[-1][0] == 1
        server.connections[1].write(b"unasked\n")
        await asyncio.sleep(0.01)
        assert await one.ask(b"b\n") == b"2"
        server.answers[b"slow\n"] = b""
        slow = asyncio.create_task(one.ask(b"slow\n"))
        while server.asked[-1][1] != b"slow\n":  # noqa: ASYNC110
            await asyncio.sleep(0)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        server.connections[server.asked[-1][0]].write(b"9\n")
        assert await one.ask(b"b\n") == b"2"
        one.close()

    run(main)


def test_a_failed_question_is_asked_again() -> None:
    async def main(serve: Serve) -> None:
        server = serve({b"q\n": b"x" * 5000})
        one: StreamClient[bytes] = StreamClient(server, first_line, timeout=60, tries=3)
        with pytest.raises(LinkError, match="text longer"):
            await one.ask(b"q\n")
        assert len(server.asked) == 3
        down = serve({}, refuse=True)
        with pytest.raises(NotConnected):
            await StreamClient(down, first_line, timeout=60, tries=3, pause=60).ask(b"q\n")

    run(main)


def test_an_answer_that_does_not_come() -> None:
    async def main(serve: Serve) -> None:
        one = client(serve(dict(LINES)), timeout=0.01)
        with pytest.raises(LinkError, match="Connection timed out"):
            await one.ask(b"mute\n")
        one.close()

    run(main)


class Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for _ in iter(lambda: self.rfile.read(len("9:name key,")), b""):
            self.wfile.write(b"4:OK x,")


@pytest.fixture
def socket_path(short_tmp: Path) -> Iterator[Path]:
    path = short_tmp / "s"
    with socketserver.ThreadingUnixStreamServer(str(path), Lines) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_without_an_event_loop(socket_path: Path) -> None:
    table = open_with(f"socketmap:unix:{socket_path}:name", TableOptions(strict=True))
    assert table.pattern
    assert [lookup_now(table, "key") for _ in range(3)] == ["x"] * 3
    table.close()


def test_in_a_loop(socket_path: Path) -> None:
    async def main(_: Serve) -> None:
        table = open_with(f"socketmap:unix:{socket_path}:name", TableOptions(strict=True))
        assert [await table.lookup("key"), await table.lookup("key")] == ["x", "x"]
        table.close()

    run(main)


@pytest.mark.parametrize(
    ("text", "endpoint", "shown"),
    [
        ("inet:localhost:80", Endpoint("", "localhost", 80), "localhost:80"),
        ("inet:[::1]:80", Endpoint("", "::1", 80), "[::1]:80"),
        ("inet:127.0.0.1:smtp", Endpoint("", "127.0.0.1", 25), "127.0.0.1:25"),
        ("unix:/run/x", Endpoint("/run/x"), "/run/x"),
        ("local:run/x", Endpoint("run/x"), "run/x"),
        ("inet:99", Endpoint("", "localhost", 99), "localhost:99"),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint, shown: str) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "inet",
        "unix:",
        "local:",
        "LOCAL:/run/x",
        "tcp:a:1",
        "inet:::1:80",
        "inet:a:0",
        "inet:a:65536",
        "inet:a:no-such-service",
        "inet:a:",
    ],
)
def test_bad_endpoints(text: str) -> None:
    with pytest.raises(ValueError, match=r"instead of|invalid|unknown service|needs"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    "spec", ["tcp:nothing", "socketmap:inet:a:1", "socketmap:unix:/x:", "socketmap:foo:x:y"]
)
def test_cannot_be_opened(spec: str) -> None:
    with pytest.raises(TableConfigError):
        open_with(spec, TableOptions(strict=True))


@pytest.mark.parametrize("spec", ["tcp:127.0.0.1:1", "socketmap:unix:/x:y"])
def test_nobody_vouches_for_them(spec: str) -> None:
    with pytest.raises(TableConfigError, match="not allowed for security-sensitive data"):
        open_with(spec, TableOptions(strict=True, sensitive=True))
