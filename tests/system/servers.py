"""Database and directory servers for tests: Debian's programs, in directories of their own.

Each runs as the account of rootless mode (two of them refuse root), listens on a port of 127.0.0.1,
and forgets about safety for speed: what it holds is gone with the test session. `stop` and
`start` are for tests of what happens meanwhile.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.system.harness import free_port, need_tool
from tests.system.processes import PATIENCE

__all__ = ["Ldap", "Mariadb", "Memcached", "Postgres", "Server"]

# The same in every server: address, where its mail goes. Alice has two aliases in LDAP.
MAILBOXES: Final = (("alice@virtual.test", "alice/"), ("o'hara@virtual.test", "ohara/"))


class Server:
    """A server process that can be stopped and started again."""

    kind = ""

    def __init__(self) -> None:
        self.port = free_port()
        self.top = Path(tempfile.mkdtemp(prefix="ms-"))
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self.top.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(self.top, self.user.pw_uid, self.user.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.certify("server")
            self.prepare()
            self.start()
            self.fill()
        except BaseException:
            self.close()
            raise

    # -- what the servers have each their way of

    def prepare(self) -> None:
        """Make what it needs before its first start."""

    def command(self) -> Sequence[str]:
        """The server in the foreground."""
        raise NotImplementedError

    def fill(self) -> None:
        """Put MAILBOXES into it."""

    def client_file(self, *lines: str) -> str:
        """The text of a client file for it."""
        raise NotImplementedError

    # -- life

    def certify(self, name: str) -> Path:
        """Make a certificate for 127.0.0.1 that vouches for itself, and its key."""
        path = self.top / f"{name}.pem"
        self.run(
            need_tool("openssl"),
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}.test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(path.with_suffix(".key")), "-out", str(path)),
        )
        return path

    def run(self, *command: str, stdin: str = "") -> None:
        """Run a program as the server's account, which has to succeed."""
        done = self._popen(command, subprocess.PIPE)
        out, _ = done.communicate(stdin.encode(), timeout=PATIENCE)
        assert done.returncode == 0, (command, out.decode("utf-8", "replace")[-4000:])

    def _popen(self, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
        change = os.geteuid() == 0
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self.top,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.top), "LC_ALL": "C"},
            user=self.user.pw_uid if change else None,
            group=self.user.pw_gid if change else None,
            extra_groups=[] if change else None,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.top / "log").open("ab") as log:
            # It ends with the tests, however those end.
            mortal = [need_tool("setpriv"), "--pdeathsig", "KILL"]
            self._process = self._popen([*mortal, *self.command()], log.fileno())
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            log_text = (self.top / "log").read_text("utf-8", "replace")[-4000:]
            assert self._process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 10).close()
        except OSError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.communicate()

    def close(self) -> None:
        """Stop it for good and remove its directory."""
        self.stop()
        shutil.rmtree(self.top, ignore_errors=True)


class Mariadb(Server):
    """MariaDB, with the table `box` in the database `mail`."""

    kind = "mysql"

    def prepare(self) -> None:
        need_tool("mariadbd")
        self.run(
            need_tool("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.top}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        )

    def command(self) -> Sequence[str]:
        return [
            need_tool("mariadbd"),
            "--no-defaults",
            f"--datadir={self.top}/data",
            f"--socket={self.top}/socket",
            f"--pid-file={self.top}/pid",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            f"--ssl-cert={self.top}/server.pem",
            f"--ssl-key={self.top}/server.key",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=8M",
        ]

    def fill(self) -> None:
        rows = ", ".join(
            f"('{address.replace(chr(39), chr(39) * 2)}', '{box}', 'abcd')"
            for address, box in MAILBOXES
        )
        self.run(
            need_tool("mariadb"),
            "--no-defaults",
            f"--socket={self.top}/socket",
            "--user=root",
            stdin="CREATE DATABASE mail CHARACTER SET utf8mb4; USE mail;"
            "CREATE TABLE box (address VARCHAR(200), place VARCHAR(200), status VARCHAR(9));"
            f"INSERT INTO box VALUES {rows}, ('old@virtual.test', 'old/', 'gone');"
            "CREATE PROCEDURE find_box(IN who VARCHAR(200)) READS SQL DATA"
            " SELECT place FROM box WHERE address = who;"
            "CREATE USER mail@'%' IDENTIFIED BY 'Godknows'; GRANT ALL ON mail.* TO mail@'%';",
        )

    def client_file(self, *lines: str) -> str:
        usual = [
            f"hosts = 127.0.0.1:{self.port}",
            "user = mail",
            "password = Godknows",
            "dbname = mail",
            "option_group =",
            "retry_interval = 1",
        ]
        query = ["query = SELECT place FROM box WHERE address = '%s'"]
        return "\n".join([*usual, *(lines or query), ""])


class Postgres(Server):
    """PostgreSQL, with the table `box` in the database `mail`."""

    kind = "pgsql"

    @staticmethod
    def _program(name: str) -> str:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        return str(found[-1]) if found else need_tool(name)

    def prepare(self) -> None:
        self.run(
            self._program("initdb"),
            f"--pgdata={self.top}/data",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--username=mail",
        )

    def command(self) -> Sequence[str]:
        settings = (
            *("fsync=off", "listen_addresses=127.0.0.1", "shared_buffers=16MB", "ssl=on"),
            f"ssl_cert_file={self.top}/server.pem",
            f"ssl_key_file={self.top}/server.key",
        )
        options = [word for setting in settings for word in ("-c", setting)]
        where = ["-D", f"{self.top}/data", "-k", str(self.top), "-p", str(self.port)]
        return [self._program("postgres"), *where, *options]

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        super().stop(how)  # which does not wait until the clients have gone

    def answers(self) -> bool:
        done = self._popen(
            [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
            subprocess.DEVNULL,
        )
        done.communicate()
        return done.returncode == 0

    def _sql(self, database: str, text: str) -> None:
        where = ["-h", str(self.top), "-p", str(self.port), "-U", "mail", database]
        self.run(self._program("psql"), "-q", "-v", "ON_ERROR_STOP=1", *where, stdin=text)

    def fill(self) -> None:
        rows = ", ".join(
            f"('{address.replace(chr(39), chr(39) * 2)}', '{box}')" for address, box in MAILBOXES
        )
        self._sql("postgres", "CREATE DATABASE mail;")
        self._sql(
            "mail",
            "CREATE TABLE box (address TEXT, place TEXT);"
            f"INSERT INTO box VALUES {rows};"
            "CREATE FUNCTION find_box(who TEXT) RETURNS SETOF TEXT LANGUAGE SQL AS"
            " 'SELECT place FROM box WHERE address = who';",
        )

    def client_file(self, *lines: str) -> str:
        usual = [
            f"hosts = 127.0.0.1:{self.port}",
            "user = mail",
            "dbname = mail",
            "retry_interval = 1",
        ]
        query = ["query = SELECT place FROM box WHERE address = '%s'"]
        return "\n".join([*usual, *(lines or query), ""])


_SLAPD_CONF: Final = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {top}/pid
TLSCertificateFile {top}/server.pem
TLSCertificateKeyFile {top}/server.key
argsfile {top}/args
authz-regexp gidNumber=.*,cn=peercred,cn=external,cn=auth cn=admin,dc=test
database mdb
maxsize 10485760
dbnosync
suffix dc=test
rootdn cn=admin,dc=test
rootpw secret
directory {top}/data
access to dn.base=cn=secret,dc=test by anonymous auth by * none
access to * by * read
"""

_LDIF: Final = """\
dn: dc=test
objectClass: dcObject
objectClass: organization
o: test
dc: test

dn: cn=secret,dc=test
objectClass: person
cn: secret
sn: secret

dn: cn=team,dc=test
objectClass: groupOfNames
objectClass: extensibleObject
cn: team
mail: team@virtual.test
{members}

"""


class Ldap(Server):
    """OpenLDAP, with entries below dc=test: mail is the address, description where it goes."""

    kind = "ldap"

    def prepare(self) -> None:
        # A copy, because AppArmor lets the program at its own place see only its own directories.
        self.program = shutil.copy(need_tool("slapd"), self.top / "slapd")
        (self.top / "slapd.conf").write_text(_SLAPD_CONF.format(top=self.top))
        for name in ("slapd", "slapd.conf"):
            (self.top / name).chmod(0o755)
        (self.top / "data").mkdir(mode=0o755)
        if os.geteuid() == 0:
            os.chown(self.top / "data", self.user.pw_uid, self.user.pw_gid)

    def command(self) -> Sequence[str]:
        socket_url = f"ldapi://{str(self.top).replace('/', '%2F')}%2Fsocket"
        listen = f"ldap://127.0.0.1:{self.port} {socket_url}"
        return [str(self.program), "-d", "0", "-f", f"{self.top}/slapd.conf", "-h", listen]

    def fill(self) -> None:
        members = "\n".join(f"member: mail={address},dc=test" for address, _ in MAILBOXES)
        people = "\n".join(
            f"dn: mail={address},dc=test\nobjectClass: inetOrgPerson\ncn: {address}\nsn: x\n"
            f"mail: {address}\ndescription: {box}\n"
            for address, box in MAILBOXES
        )
        self.run(
            need_tool("ldapadd"),
            *("-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", "cn=admin,dc=test"),
            *("-w", "secret"),
            stdin=_LDIF.format(members=members) + people,
        )

    def client_file(self, *lines: str) -> str:
        usual = [
            f"server_host = ldap://127.0.0.1:{self.port}",
            "search_base = dc=test",
            "bind_dn = cn=admin,dc=test",
            "bind_pw = secret",
        ]
        query = ["query_filter = (mail=%s)", "result_attribute = description"]
        return "\n".join([*usual, *(lines or query), ""])


def need_python_ldap() -> None:
    """Skip a test where python-ldap could not be installed; packaging/make-venv fails in CI."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("ldap")


class Memcached(Server):
    """memcached, which forgets all when it ends."""

    kind = "memcache"

    def certify(self, name: str) -> Path:
        """It needs none."""
        return self.top / name

    def command(self) -> Sequence[str]:
        return [need_tool("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0"]

    def store(self, key: str, value: str) -> None:
        """Set a key."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            data = value.encode()
            connection.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(data), data))
            assert connection.recv(100) == b"STORED\r\n"

    def client_file(self, *lines: str) -> str:
        return "\n".join((f"memcache = inet:127.0.0.1:{self.port}", *lines, ""))
