"""Mail that databases and directories route: with real servers, and while they are away."""

from __future__ import annotations

import smtplib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from tests.mongo_server import MongoServer
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import PATIENCE
from tests.system.servers import MAILBOXES, Ldap, Mariadb, Postgres, Server, need_python_ldap

MESSAGE: Final = b"Subject: test\r\n\r\nHello\r\n"
KINDS: Final = ("mysql", "pgsql", "ldap")
TYPES: Final = {"mysql": Mariadb, "pgsql": Postgres, "ldap": Ldap}

# None of these is a key of any table, and none of them may be more than a key.
HOSTILE: Final = (
    "' OR '1'='1",
    "\\",
    "\\' OR 1=1 -- ",
    "'; DROP TABLE box; -- ",
    '" OR ""="',
    "*",
    "alice*",
    "*)(mail=*",
    "alice@virtual.test)(objectClass=*",
    "%s%s%n",
    "%",
    "x" * 10000,
    "\u00bf\\' OR 1=1 -- ",
    "\u7e17' OR 1=1 -- ",
)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, Server]]:
    """Those that were asked for by now."""
    started: dict[str, Server] = {}
    yield started
    for server in started.values():
        server.close()


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    """Each of the servers, running."""
    return running(str(request.param), servers)


def running(kind: str, servers: dict[str, Server]) -> Server:
    if kind == "ldap":
        need_python_ldap()
    if kind not in servers:
        servers[kind] = TYPES[kind]()
    return servers[kind]


def client_file(system: MailSystem, kind: str, text: str, name: str = "box") -> str:
    """Write a client file; the table."""
    path = system.config_directory / f"{name}.cf"
    path.write_text(text)
    return f"{kind}:{path}"


def query(system: MailSystem, table: str, key: str) -> str | None:
    """What postmap -q finds; it has to work."""
    done = system.run("postmap", "-q", key, table)
    assert (done.returncode == 0) == bool(done.stdout), (key, done)
    assert done.stderr == b"", (key, done)
    return done.stdout.decode().removesuffix("\n") if done.stdout else None


def replies(system: MailSystem, recipients: Sequence[str]) -> list[int]:
    """Reply codes to RCPT TO, in one session."""
    with system.smtp() as client:
        client.ehlo()
        client.mail("sender@client.test")
        return [client.rcpt(recipient)[0] for recipient in recipients]


def deliver(system: MailSystem, server: Server, prefix: str = "") -> None:
    """Mail to MAILBOXES arrives, mail to others is refused. prefix: "proxy:" or nothing."""
    table = prefix + client_file(system, server.kind, server.client_file())
    system.configure({"virtual_mailbox_maps": table})
    system.start()
    with system.smtp() as client:
        client.ehlo()
        client.mail("sender@client.test")
        codes = [client.rcpt(address)[0] for address, _ in MAILBOXES]
        codes += [client.rcpt(name)[0] for name in ("nobody@virtual.test", "*@virtual.test")]
        assert codes == [250, 250, 550, 550]
        assert client.data(MESSAGE)[0] == 250
    system.wait_for_queue_empty(PATIENCE)
    for _, box in MAILBOXES:
        assert len(system.maildir(box)) == 1


def test_delivery(make_system: MakeSystem, server: Server) -> None:
    deliver(make_system(), server)


@pytest.mark.root
@pytest.mark.parametrize("prefix", ["", "proxy:"])
def test_delivery_from_the_jail(make_system: MakeSystem, server: Server, prefix: str) -> None:
    """smtpd and trivial-rewrite look up in a directory without a file of any library."""
    system = make_system(privileged=True)
    system.configure(
        {},
        [
            f"127.0.0.1:{system.smtp_port} inet n - y - - smtpd",
            "rewrite unix - - y - - trivial-rewrite",
        ],
    )
    deliver(system, server, prefix)


def test_delivery_by_sqlite(make_system: MakeSystem) -> None:
    system = make_system()
    path = system.config_directory / "db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE box (address, place)")
        database.executemany("INSERT INTO box VALUES (?, ?)", MAILBOXES)
    database.close()
    table = client_file(
        system,
        "sqlite",
        f"dbpath = {path}\nquery = SELECT place FROM box WHERE address = '%s'\n",
    )
    system.configure({"virtual_mailbox_maps": table})
    system.start()
    addresses = [address for address, _ in MAILBOXES]
    assert replies(system, [*addresses, "nobody@virtual.test"]) == [250, 250, 550]
    system.send("sender@client.test", addresses, MESSAGE)
    system.wait_for_queue_empty(PATIENCE)
    assert len(system.maildir("ohara/")) == 1


def test_delivery_by_mongodb(make_system: MakeSystem) -> None:
    documents = [{"address": address, "place": box} for address, box in MAILBOXES]
    with MongoServer(documents) as server:
        system = make_system()
        table = client_file(
            system,
            "mongodb",
            f"uri = mongodb://127.0.0.1:{server.port}/\ndbname = mail\ncollection = box\n"
            'query_filter = {"address": "%s"}\nresult_attribute = place\n',
        )
        system.configure({"virtual_mailbox_maps": table})
        system.start()
        addresses = [address for address, _ in MAILBOXES]
        assert replies(system, [*addresses, "nobody@virtual.test"]) == [250, 250, 550]
        system.send("sender@client.test", addresses, MESSAGE)
        system.wait_for_queue_empty(PATIENCE)
        assert len(system.maildir("ohara/")) == 1


def test_hostile_keys(make_system: MakeSystem, server: Server) -> None:
    system = make_system()
    table = client_file(system, server.kind, server.client_file())
    are_only_keys(system, table, [*HOSTILE, *(f"{key}@virtual.test" for key in HOSTILE)])
    assert query(system, table, "alice@virtual.test\n") is None


@pytest.mark.parametrize("charset", ["utf8mb4", "latin1", "gbk", "sjis", "big5"])
def test_hostile_keys_in_any_charset(
    make_system: MakeSystem, servers: dict[str, Server], charset: str
) -> None:
    server = running("mysql", servers)
    system = make_system()
    table = client_file(system, "mysql", server.client_file() + f"charset = {charset}\n")
    are_only_keys(system, table, HOSTILE)


def are_only_keys(system: MailSystem, table: str, keys: Sequence[str]) -> None:
    """Whether none of the keys finds anything, and MAILBOXES are found among and after them."""
    text = "".join(f"{key}\n" for key in [*keys, *(address for address, _ in MAILBOXES)])
    done = system.run("postmap", "-q", "-", table, stdin=text.encode())
    wanted = "".join(f"{address}\t{box}\n" for address, box in MAILBOXES)
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted.encode(), b"")


def test_outage(make_system: MakeSystem, server: Server) -> None:
    """A server that goes away makes mail wait; nothing is lost, nobody is called unknown."""
    system = make_system()
    table = client_file(system, server.kind, server.client_file())
    # trivial-rewrite and virtual ask, too: what smtpd accepted meets the outage in the queue.
    system.configure(
        {
            "virtual_mailbox_maps": table,
            "minimal_backoff_time": "1",
            "maximal_backoff_time": "1",
            "queue_run_delay": "1",
        }
    )
    system.allow(
        "lookup (error|failure|problem)|query failed|connect to .* server|dict_ldap|table lookup"
    )
    system.allow("timed out|unavailable")
    system.start()
    accepted = attempts = refused = 0
    stopped = started = False
    deadline = time.monotonic() + PATIENCE
    while accepted < 40:
        assert time.monotonic() < deadline, system.log_text()[-4000:]
        attempts += 1
        if accepted >= 15 and not stopped:
            server.stop()
            stopped = True
            first = attempts
        if stopped and not started and attempts >= first + 10:
            server.start()
            started = True
        code = send_one(system, "alice@virtual.test")
        assert code == 250 or 400 <= code < 500, code
        accepted += code == 250
        if code != 250:
            refused += 1
            time.sleep(0.05)
    assert refused
    system.wait_for_queue_empty(PATIENCE)
    assert len(system.maildir("alice/")) == accepted
    assert not system.log_lines("status=bounced")


def send_one(system: MailSystem, recipient: str) -> int:
    """Send a message; the code of the reply that decided."""
    with system.smtp() as client:
        try:
            client.sendmail("sender@client.test", [recipient], MESSAGE)
        except smtplib.SMTPRecipientsRefused as error:
            return error.recipients[recipient][0]
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
    return 250


def test_old_form_of_mysql(make_system: MakeSystem, servers: dict[str, Server]) -> None:
    """As people wrote it before there was `query`, with `host` for one server."""
    server = running("mysql", servers)
    system = make_system()
    table = client_file(
        system,
        "mysql",
        f"host = 127.0.0.1:{server.port}\nuser = mail\npassword = Godknows\ndbname = mail\n\n"
        "table = box\n\nselect_field = place\n\nwhere_field = address\n\n"
        "additional_conditions = and status = 'abcd'\n",
    )
    assert query(system, table, "alice@virtual.test") == "alice/"
    assert query(system, table, "old@virtual.test") is None


MORE: Final = [
    ("mysql", ["query = CALL find_box('%s')"], "alice@virtual.test", "alice/"),
    ("mysql", ["query = CALL find_box('%s')"], "nobody@virtual.test", None),
    ("mysql", ["query = SET @x = '%s'", "require_result_set = no"], "x", None),
    (
        "mysql",
        ["query = SELECT place, status, NULL, 7 FROM box WHERE address = '%s'"],
        "alice@virtual.test",
        "alice/,abcd,7",
    ),
    ("mysql", ["query = SELECT '%u', \"%d\"", "result_format = <%s>"], 'a"b@c', '<a"b>,<c>'),
    ("pgsql", ["query =", "select_function = find_box"], "alice@virtual.test", "alice/"),
    (
        "pgsql",
        ["select_field=place", "table=box", "where_field=address"],
        "o'hara@virtual.test",
        "ohara/",
    ),
    ("pgsql", ["query = SELECT E'%u', 7, true, NULL WHERE '%d' <> ''"], "a\\b@c", "a\\b,7,t"),
    ("pgsql", ["query = SELECT '%s'", "encoding = LATIN1"], "\xe9", "\xe9"),
    ("pgsql", ["query = SELECT '%s'", "encoding = LATIN1"], "\u20ac", None),
    (
        "ldap",
        [
            "query_filter = (mail=%s)",
            "special_result_attribute = member",
            "leaf_result_attribute = mail",
            "result_attribute =",
        ],
        "team@virtual.test",
        "alice@virtual.test,o'hara@virtual.test",
    ),
    (
        "ldap",
        [
            "query_filter = (objectClass=*)",
            "search_base = mail=%s,dc=test",
            "result_attribute = description",
        ],
        "alice@virtual.test",
        "alice/",
    ),
    (
        "ldap",
        [
            "query_filter = (objectClass=*)",
            "search_base = mail=%s,dc=test",
            "result_attribute = description",
        ],
        "a, b+c=d\\",
        None,
    ),
    (
        "ldap",
        ["bind = no", "query_filter = (mail=%s)", "result_attribute = description"],
        "alice@virtual.test",
        "alice/",
    ),
]


@pytest.mark.parametrize(("kind", "lines", "key", "value"), MORE)
def test_more_queries(
    make_system: MakeSystem,
    servers: dict[str, Server],
    kind: str,
    lines: Sequence[str],
    key: str,
    value: str | None,
) -> None:
    server = running(kind, servers)
    system = make_system()
    text = server.client_file("#")
    names = {line.partition("=")[0].strip() for line in lines}
    kept = [line for line in text.splitlines() if line.partition("=")[0].strip() not in names]
    table = client_file(system, kind, "\n".join([*kept, *lines, ""]))
    assert query(system, table, key) == value


def test_sockets_and_uris(make_system: MakeSystem, servers: dict[str, Server]) -> None:
    system = make_system()
    mysql, pgsql = running("mysql", servers), running("pgsql", servers)
    lines = ["user=mail", "query = SELECT place FROM box WHERE address = '%s'", ""]
    places = {
        f"mysql:unix:{mysql.top}/socket": ["dbname=mail", "password=Godknows"],
        f"pgsql:postgresql://mail@127.0.0.1:{pgsql.port}/mail": [],
        f"pgsql:postgres:///mail?host={pgsql.top}&port={pgsql.port}&user=mail": [],
    }
    for place, more in places.items():
        kind, _, hosts = place.partition(":")
        table = client_file(system, kind, "\n".join([f"hosts = {hosts}", *more, *lines]))
        assert query(system, table, "alice@virtual.test") == "alice/"


def test_ldap_binds(make_system: MakeSystem, servers: dict[str, Server]) -> None:
    server = running("ldap", servers)
    system = make_system()
    url = f"ldapi://{str(server.top).replace('/', '%2F')}%2Fsocket"
    lines = ["search_base = dc=test", "query_filter = (cn=%s)", "result_attribute = sn", ""]
    sasl = [f"server_host = {url}", "bind = sasl", "sasl_mechs = EXTERNAL", *lines]
    none = [f"server_host = {url}", "bind = none", *lines]
    wrong = [f"server_host = {url}", "bind_dn = cn=admin,dc=test", "bind_pw = wrong", *lines]
    assert query(system, client_file(system, "ldap", "\n".join(sasl)), "secret") == "secret"
    assert query(system, client_file(system, "ldap", "\n".join(none)), "secret") is None
    table = client_file(system, "ldap", "\n".join(wrong))
    done = system.run("postmap", "-q", "secret", table)
    assert done.returncode == 1
    assert b"dict_ldap_connect: Unable to bind to server" in done.stderr
    assert b"49 (Invalid credentials)" in done.stderr


def test_tls(make_system: MakeSystem, server: Server) -> None:
    """With the right certificate there is an answer, with another one there is none."""
    system = make_system()
    other = server.certify("other")
    for authority, status in ((server.top / "server.pem", 0), (other, 1)):
        lines = {
            "mysql": ["tls_verify_cert = yes", f"tls_CAfile = {authority}"],
            "pgsql": [
                f"hosts = postgresql://mail@127.0.0.1:{server.port}/mail"
                f"?sslmode=verify-full&sslrootcert={authority}"
            ],
            "ldap": [
                "start_tls = yes",
                "tls_require_cert = yes",
                f"tls_ca_cert_file = {authority}",
            ],
        }[server.kind]
        names = {line.partition(" ")[0] for line in lines}
        kept = (
            line for line in server.client_file().splitlines() if line.split(" ")[0] not in names
        )
        table = client_file(system, server.kind, "\n".join([*kept, *lines, ""]))
        done = system.run("postmap", "-q", "alice@virtual.test", table)
        assert done.returncode == status, done
        assert done.stdout == (b"" if status else b"alice/\n")
        assert (b"connect" in done.stderr.lower()) == bool(status), done


def test_failover(make_system: MakeSystem, servers: dict[str, Server]) -> None:
    """Of several servers one is enough."""
    system = make_system()
    for kind in ("mysql", "pgsql"):
        server = running(kind, servers)
        text = server.client_file().replace("hosts =", "hosts = 127.0.0.1:1 unix:/nowhere")
        done = system.run("postmap", "-q", "alice@virtual.test", client_file(system, kind, text))
        assert done.stdout == b"alice/\n", done
    server = running("ldap", servers)
    text = server.client_file().replace("server_host =", "server_host = 127.0.0.1:1")
    assert query(system, client_file(system, "ldap", text), "alice@virtual.test") == "alice/"


def test_settings_in_main_cf(make_system: MakeSystem, servers: dict[str, Server]) -> None:
    """`ldap:people`: the oldest form, people_server_host and so on."""
    server = running("ldap", servers)
    system = make_system()
    for line in server.client_file().splitlines():
        name, _, value = line.partition(" = ")
        system.configure({f"people_{name}": value})
    assert query(system, "ldap:people", "alice@virtual.test") == "alice/"
