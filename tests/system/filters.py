"""Debian's content filters as peers: Milters, scanners behind them, filters that speak SMTP.

Each runs in a directory of its own with the rules of a test: one virus, one pattern of spam, no
network, no database. So they are up in a second or two.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.system.harness import need_tool
from tests.system.processes import kill_session
from tests.system.servers import Server

__all__ = [
    "EICAR",
    "GTUBE",
    "Amavisd",
    "ClamavMilter",
    "Clamd",
    "Filter",
    "Mimedefang",
    "Opendmarc",
    "Pymilter",
    "Rspamd",
    "SpamassMilter",
    "Spamd",
]

GTUBE: Final = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
EICAR: Final = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


class Filter(Server):
    """A filter, and all that it has started."""

    kind = "filter"

    def certify(self, name: str) -> Path:
        """It needs no certificate."""
        return self.top / name

    @property
    def endpoint(self) -> str:
        """Where a Milter is, for main.cf."""
        return f"inet:127.0.0.1:{self.port}"

    def write(self, name: str, text: str) -> Path:
        """A file for it to read."""
        path = self.top / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def kill(self) -> None:
        """Kill -9 of it and its children."""
        process = self._process
        if process is not None:
            kill_session(process.pid)
            self.stop(signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        super().close()


# scanners


class Clamd(Filter):
    """ClamAV's scanner, which knows one virus, Test.EICAR."""

    def prepare(self) -> None:
        self.socket = self.top / "clamd.sock"
        (self.top / "db").mkdir()
        # One line of the extended signature format: name, any file, anywhere, octets.
        self.write("db/test.ndb", f"Test.EICAR:0:*:{EICAR.hex()}\n")
        settings = (
            f"LocalSocket {self.socket}",
            f"DatabaseDirectory {self.top}/db",
            f"TemporaryDirectory {self.top}",
            "Foreground yes",
            "SelfCheck 0",
            "MaxThreads 4",
        )
        self.write("clamd.conf", "\n".join([*settings, ""]))

    def command(self) -> Sequence[str]:
        return [need_tool("clamd"), "-c", f"{self.top}/clamd.conf"]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"PING\n")
                return connection.recv(100) == b"PONG\n"
            except OSError:
                return False


def spamassassin_rules(server: Filter) -> tuple[Path, Path]:
    """Directories of its rules, and of the site's, with one rule: GTUBE is spam."""
    server.write("rules/check.pre", "loadplugin Mail::SpamAssassin::Plugin::Check\n")
    pattern = "".join(f"\\{c}" if c in "*." else c for c in GTUBE.decode())
    rules = (f"body GTUBE /{pattern}/", "score GTUBE 1000", "util_rb_tld test")
    path = server.write("rules/rules.cf", "\n".join([*rules, ""]))
    site = server.write(
        "site/local.cf", "add_header all Status _YESNO_, score=_SCORE_ required=_REQD_\n"
    )
    return path.parent, site.parent


class Spamd(Filter):
    """SpamAssassin's server, with one rule."""

    def prepare(self) -> None:
        self.rules, self.site = spamassassin_rules(self)

    def command(self) -> Sequence[str]:
        return [
            need_tool("spamd"),
            *("-L", "-x", "-s", "stderr", "-m", "2", "--min-children=1", "--max-spare=1"),
            *("-i", "127.0.0.1", "-p", str(self.port), "-H", str(self.top)),
            *("-C", str(self.rules), f"--siteconfigpath={self.site}"),
        ]


# Perl with the switch of the program's first line, and its log on standard error: spampd has none
# but syslog's. It may not be given --homedir, which SpamAssassin 4.0.1 takes for tainted, and ends.
_SPAMPD: Final = """\
use Sys::Syslog;
BEGIN {
    no warnings;
    *Sys::Syslog::setlogsock = *Sys::Syslog::openlog = sub { 1 };
    *Sys::Syslog::syslog = sub { shift; print STDERR sprintf(shift, @_), "\\n" };
}
do "$program"; die $@;
"""


class Spampd(Filter):
    """spampd, an SMTP proxy that marks what SpamAssassin, with Debian's rules, calls spam."""

    def __init__(self, onward: int) -> None:
        """onward: the port that gets the mail."""
        self.onward = onward
        super().__init__()

    def command(self) -> Sequence[str]:
        program = _SPAMPD.replace("$program", need_tool("spampd"))
        return [
            *(need_tool("perl"), "-T", "-e", program, "--", "--nodetach", "--local-only"),
            *(f"--host=127.0.0.1:{self.port}", f"--relayhost=127.0.0.1:{self.onward}"),
            *("--children=2", f"--user={self.user.pw_name}", f"--group={self.user.pw_gid}"),
            *(f"--pid={self.top}/pid", "--tagall"),
        ]


# Milters


class ClamavMilter(Filter):
    """clamav-milter: refuses what clamd finds, marks what is clean."""

    def __init__(self, clamd: Clamd) -> None:
        self.clamd = clamd
        super().__init__()

    def prepare(self) -> None:
        settings = (
            f"MilterSocket inet:{self.port}@127.0.0.1",
            f"ClamdSocket unix:{self.clamd.socket}",
            f"TemporaryDirectory {self.top}",
            "Foreground yes",
            "OnClean Accept",
            "OnInfected Reject",
            'RejectMsg "found %v"',
            "OnFail Defer",
            "AddHeader Add",
        )
        self.write("milter.conf", "\n".join([*settings, ""]))

    def command(self) -> Sequence[str]:
        return [need_tool("clamav-milter"), "-c", f"{self.top}/milter.conf"]


class SpamassMilter(Filter):
    """spamass-milter: refuses what spamd gives 15 points or more."""

    def __init__(self, spamd: Spamd) -> None:
        self.spamd = spamd
        super().__init__()

    def command(self) -> Sequence[str]:
        listen = f"inet:{self.port}@127.0.0.1"
        where = ("--", "-d", "127.0.0.1", "-p", str(self.spamd.port))
        return [need_tool("spamass-milter"), "-p", listen, "-r", "15", *where]


_RSPAMD_CONF: Final = """\
options {{
  pidfile = "{top}/pid";
  url_tld = "{top}/tld";
  filters = "";
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
  tempdir = "{top}";
  control_socket = "{top}/control.sock";
  hs_cache_dir = "{top}";
  cache_file = "{top}/symbols.cache";
}}
logging {{ type = "console"; level = "warning"; }}
lang_detection {{ languages = "{top}"; }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{port}";
  milter = yes;
  upstream "local" {{ self_scan = yes; }}
}}
actions {{ reject = 15; add_header = 6; }}
modules {{ path = "/usr/share/rspamd/plugins/milter_headers.lua"; }}
milter_headers {{ use = ["x-spamd-result", "x-rspamd-server"]; skip_local = false; }}
"""


class Rspamd(Filter):
    """rspamd's proxy, which scans by itself: GTUBE is built in, and it marks what it has seen."""

    def prepare(self) -> None:
        self.write("tld", "test\n")
        self.write("rspamd.conf", _RSPAMD_CONF.format(top=self.top, port=self.port))

    def command(self) -> Sequence[str]:
        return [need_tool("rspamd"), "-f", "-c", f"{self.top}/rspamd.conf"]


class Opendmarc(Filter):
    """OpenDMARC, which obeys the policy of the sender's domain, found by the name server of the
    machine."""

    def prepare(self) -> None:
        suffixes, nobody = self.write("suffixes", "test\n"), self.write("nobody", "192.0.2.1\n")
        settings = (
            f"Socket inet:{self.port}@127.0.0.1",
            "Background false",
            "AuthservID mail.test",
            "RejectFailures true",
            f"IgnoreHosts {nobody}",
            "SPFSelfValidate true",
            "Syslog false",
            f"PublicSuffixList {suffixes}",
        )
        self.write("opendmarc.conf", "\n".join([*settings, ""]))

    def command(self) -> Sequence[str]:
        return [need_tool("opendmarc"), "-f", "-c", f"{self.top}/opendmarc.conf"]


_MIMEDEFANG_FILTER: Final = """\
sub filter {
    my ($entity, $name, $extension, $type) = @_;
    return action_bounce('no programs, please') if $extension eq '.exe';
    return action_drop_with_warning('A script was here.') if $extension eq '.sh';
    return action_accept();
}
sub filter_end { action_add_header('X-Defanged', 'looked at'); }
1;
"""


class Mimedefang(Filter):
    """MIMEDefang and its multiplexor, with a filter that refuses programs and removes scripts."""

    def prepare(self) -> None:
        self.write("filter.pl", _MIMEDEFANG_FILTER)
        (self.top / "spool").mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.top / "spool", self.user.pw_uid, self.user.pw_gid)

    def command(self) -> Sequence[str]:
        both = f"-z {self.top}/spool"
        workers = (
            f"{need_tool('mimedefang-multiplexor')} -D -m 1 -x 2 {both} -s {self.top}/spool/mx"
            f" -f {need_tool('mimedefang.pl')} -F {self.top}/filter.pl"
        )
        milter = (
            f"exec {need_tool('mimedefang')} -D {both} -m {self.top}/spool/mx"
            f" -p inet:{self.port}@127.0.0.1"
        )
        return ["/bin/sh", "-c", f"{workers} & {milter}"]


class Pymilter(Filter):
    """A Milter in Debian's Python, by python3-milter: the body of the class is the test's."""

    def __init__(self, methods: str) -> None:
        self.methods = methods
        super().__init__()

    def prepare(self) -> None:
        head = "import Milter\n\n\nclass Changes(Milter.Base):\n"
        tail = (
            "\n\nMilter.factory = Changes\n"
            "Milter.set_flags(Milter.CURR_ACTS)\n"
            f"Milter.runmilter('changes', 'inet:{self.port}@127.0.0.1', timeout=60)\n"
        )
        self.write("changes.py", head + self.methods + tail)
        self.run("/usr/bin/python3", "-c", "import Milter")

    def command(self) -> Sequence[str]:
        return ["/usr/bin/python3", f"{self.top}/changes.py"]


# filters that speak SMTP

_AMAVISD_CONF: Final = """\
use strict;
$MYHOME = '{top}';
$TEMPBASE = '{top}/tmp';
$QUARANTINEDIR = undef;
$mydomain = 'mail.test'; $myhostname = 'filter.mail.test';
$pid_file = '{top}/pid'; $lock_file = '{top}/lock';
$max_servers = {servers};
$enable_db = 0; $enable_zmq = 0;
$DO_SYSLOG = 0; $LOGFILE = '{top}/amavis.log'; $log_level = 1;
$inet_socket_bind = '127.0.0.1'; $inet_socket_port = {port};
$unix_socketname = undef;
$forward_method = 'smtp:[127.0.0.1]:{onward}'; $notify_method = $forward_method;
$sa_configpath = '{rules}'; $sa_siteconfigpath = '{site}';
$sa_local_tests_only = 1;
$enable_dkim_verification = 0; $enable_dkim_signing = 0;
@local_domains_maps = (1);
$final_virus_destiny = {fate}; $final_spam_destiny = {fate}; $final_bad_header_destiny = D_PASS;
$sa_tag_level_deflt = 2; $sa_tag2_level_deflt = 6; $sa_kill_level_deflt = 6;
@decoders = (['mail', \\&do_mime_decode]);
@av_scanners = (['clamd', \\&ask_daemon, ["CONTSCAN {{}}\\n", '{clamd}'],
    qr/\\bOK$/m, qr/\\bFOUND$/m, qr/^.*?: (.*) FOUND$/m]);
@av_scanners_backup = ();
1;
"""


class Amavisd(Filter):
    """amavisd-new with SpamAssassin and clamd; only root can give it a configuration that it takes.

    onward: the port that gets what passes. fate: what becomes of the rest, a Perl constant.
    """

    def __init__(self, clamd: Clamd, onward: int, fate: str, *, servers: int = 2) -> None:
        self.clamd = clamd
        self.onward = onward
        self.fate = fate
        self.servers = servers
        super().__init__()

    def prepare(self) -> None:
        rules, site = spamassassin_rules(self)
        (self.top / "tmp").mkdir()
        os.chown(self.top / "tmp", self.user.pw_uid, self.user.pw_gid)
        text = _AMAVISD_CONF.format(
            top=self.top, port=self.port, onward=self.onward, fate=self.fate, rules=rules,
            site=site, clamd=self.clamd.socket, servers=self.servers,
        )  # fmt: skip
        self.write("conf/amavisd.conf", text)

    def command(self) -> Sequence[str]:
        return [need_tool("amavisd"), "-c", f"{self.top}/conf/amavisd.conf", "foreground"]
