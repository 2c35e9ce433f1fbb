"""The package on a clean Debian: installed by apt, controlled by systemd, upgraded, removed.

The tests of this file share a machine, and run in their order.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.package.conftest import NEXT_VERSION, MakeMachine
from tests.package.machine import Container, Machine
from tests.system.harness import ROOT, need_tool
from tests.system.processes import wait_until

pytestmark = pytest.mark.package

INSTALL = "apt-get install /packages/posthorn_*.deb /packages/posthorn-pcre_*.deb"
# How cron, PHP's mail() and others call sendmail.
SUBMISSIONS = (
    "printf 'Subject: cron\n\nx\n' | /usr/sbin/sendmail -FCronDaemon -i -B8BITMIME -oem user",
    "printf 'To: user\nSubject: php\n\nx\n' | /usr/sbin/sendmail -t -i",
    "printf 'Subject: lib\n\nx\n' | /usr/lib/sendmail user",
    "echo x | su user -c 'mail -s user user'",
)
ON_THE_WAY = ("maildrop", "incoming", "active")
LOAD = """
i=0
while [ ! -e /run/enough ]; do
    i=$((i + 1))
    printf 'Subject: load %s\n\nx\n' $i | sendmail load && echo $i >>/run/accepted
done
touch /run/ended
"""

PASSWORD = "correct horse"
LOG_IN = """
import smtplib, sys
mechanism, password = sys.argv[1:]
with smtplib.SMTP("localhost") as client:
    client.starttls()
    client.ehlo()
    client.user, client.password = "user", password
    way = getattr(client, "auth_" + mechanism.lower().replace("-", "_"))
    try:
        client.auth(mechanism, way)
    except smtplib.SMTPAuthenticationError:
        sys.exit(1)
"""


@pytest.fixture(scope="module")
def machine(make_machine: MakeMachine) -> Machine:
    """A machine with the package installed, and a user."""
    machine = make_machine("bookworm")
    install(machine)
    return machine


def install(machine: Machine) -> None:
    machine.install(INSTALL)
    machine.shell("useradd -m user; useradd -m load")


def runs(machine: Machine) -> bool:
    """Whether the mail system runs, by what scripts of others look at."""
    return machine.try_run("/usr/lib/postfix/sbin/master", "-t").returncode != 0


def subjects(machine: Container, user: str = "user") -> list[str]:
    """Of the messages in a user's mailbox, in order."""
    try:
        text = (machine.top / f"var/mail/{user}").read_text("utf-8")
    except FileNotFoundError:
        return []
    return [line.partition(" ")[2] for line in text.splitlines() if line.startswith("Subject: ")]


def queue(machine: Container, name: str) -> list[str]:
    """The files of one of the queues."""
    found = machine.shell(f"find /var/spool/postfix/{name} -type f")
    return found.split()


def test_lintian(packages: Path) -> None:
    need_tool("lintian")
    changes = next(packages.glob("*.changes"))
    done = subprocess.run(
        ["lintian", "--fail-on", "error", "--allow-root", changes], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_where_it_runs(machine: Machine) -> None:
    """Says why where systemd could not be booted: the tests below are then by init script."""
    assert machine.booted or machine.why_not_booted
    if not machine.booted:
        pytest.skip(machine.why_not_booted)


def test_it_runs_after_the_installation(machine: Machine) -> None:
    assert runs(machine)
    text = (machine.top / "var/spool/postfix/pid/master.pid").read_text()
    program = machine.run("readlink", f"/proc/{int(text)}/exe").strip()
    assert program.endswith("/master")
    files = machine.run("dpkg", "-L", "posthorn").split()
    modes = [(machine.top / path[1:]).lstat().st_mode for path in files]
    assert not [mode for mode in modes if mode & 0o6000]
    assert machine.run("postfix", "check") == ""


def test_programs_are_content(machine: Machine) -> None:
    """Packages that need a mail system keep this one, or take it for Postfix."""
    machine.run("apt-get", "install", "-y", "bsd-mailx")
    for name in ("mailutils", "bsd-mailx", "mailman3", "postfix-mta-sts-resolver"):
        plan = machine.run("apt-get", "install", "--simulate", name)
        assert "Remv posthorn" not in plan
        assert "Inst postfix " not in plan
        assert "Inst exim4" not in plan


def test_local_mail(machine: Machine) -> None:
    for command in SUBMISSIONS:
        machine.shell(command)
    wait_until(lambda: len(subjects(machine)) == len(SUBMISSIONS))
    assert sorted(subjects(machine)) == ["cron", "lib", "php", "user"]
    assert machine.run("mailq") == "Mail queue is empty\n"


def test_control(machine: Machine) -> None:
    """By service, which is what scripts use; it asks systemd where that runs."""
    for action, running in (("stop", False), ("start", True), ("restart", True), ("reload", True)):
        machine.run("service", "postfix", action)
        assert runs(machine) is running, action
        status = machine.try_run("service", "postfix", "status")
        assert (status.returncode == 0) is running, action
    machine.run("/etc/network/if-up.d/postfix")
    machine.run("/etc/resolvconf/update-libc.d/postfix")
    assert runs(machine)


def test_systemd(machine: Machine) -> None:
    if not machine.booted:
        pytest.skip(machine.why_not_booted)
    for action, running in (("stop", False), ("start", True), ("restart", True), ("reload", True)):
        machine.run("systemctl", action, "postfix")
        assert runs(machine) is running, action
        unit = machine.try_run("systemctl", "is-active", "postfix@-").stdout
        assert (unit == b"active\n") is running, action
    assert machine.run("systemctl", "is-enabled", "postfix") == "enabled\n"


def test_instances(machine: Machine) -> None:
    """A second instance, with a unit of its own."""
    machine.run("postmulti", "-e", "init")
    machine.run("postmulti", "-I", "postfix-out", "-G", "out", "-e", "create")
    machine.run("postmulti", "-i", "postfix-out", "-e", "enable")
    listed = [line.split() for line in machine.run("postmulti", "-l").splitlines()]
    assert listed == [
        ["-", "-", "y", "/etc/postfix"],
        ["postfix-out", "out", "y", "/etc/postfix-out"],
    ]
    assert machine.try_run("postfix", "stop").returncode == 1  # that of the second, never started
    machine.run("postfix", "start")
    assert "is running" in machine.shell("postmulti -i postfix-out -p status 2>&1")
    if machine.booted:
        machine.run("postfix", "stop")
        machine.shell("systemctl daemon-reload; systemctl restart postfix")
        assert machine.run("systemctl", "is-active", "postfix@postfix-out") == "active\n"
    machine.run("postmulti", "-i", "postfix-out", "-p", "stop")
    machine.run("postmulti", "-i", "postfix-out", "-e", "disable")
    machine.run("postmulti", "-i", "postfix-out", "-e", "destroy")
    assert not (machine.top / "etc/postfix-out").exists()
    assert not (machine.top / "var/spool/postfix-out").exists()
    assert runs(machine)


def test_php(machine: Machine) -> None:
    """Its function mail, as it is after the installation."""
    machine.run("apt-get", "install", "-y", "php-cli")
    before = len(subjects(machine))
    machine.run("php", "-r", 'mail("user", "from php", "x") || exit(1);')
    wait_until(lambda: len(subjects(machine)) > before)
    assert subjects(machine)[-1] == "from php"


# What the tests of Debian's own package do, from here to test_set_permissions.


def test_mailbox_command(machine: Machine) -> None:
    machine.run("apt-get", "install", "-y", "procmail")
    machine.run("postconf", "-e", 'mailbox_command=procmail -a "$EXTENSION"')
    machine.run("postfix", "reload")
    before = len(subjects(machine))
    machine.shell("printf 'Subject: by procmail\n\nx\n' | sendmail user")
    wait_until(lambda: len(subjects(machine)) > before)
    machine.run("postconf", "-X", "mailbox_command")
    machine.run("postfix", "reload")


def test_mailbox_that_is_a_link_to_a_file_of_root(machine: Machine) -> None:
    """A user cannot have mail written where the user may not write (CVE-2008-2936)."""
    secret, mailbox = machine.top / "root/secret", machine.top / "var/mail/load"
    secret.write_text("secret\n")
    machine.shell("su load -c 'ln -s /root/secret /tmp/link'; mv /tmp/link /var/mail/load")
    machine.shell("printf 'Subject: mine\n\nx\n' | sendmail load")
    wait_until(lambda: not [queue(machine, one) for one in ON_THE_WAY if queue(machine, one)])
    assert secret.read_text() == "secret\n"
    mailbox.unlink()
    machine.run("postsuper", "-d", "ALL")


def log_in(machine: Machine, mechanism: str, password: str) -> bool:
    """Whether the user may log in over TLS, with the mechanism that is left to the client."""
    done = machine.try_run("python3", "-c", LOG_IN, mechanism, password)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def test_logins_by_saslauthd(machine: Machine) -> None:
    """Cyrus SASL, configured where Debian has that: /etc/postfix/sasl/smtpd.conf."""
    machine.run("apt-get", "install", "-y", "sasl2-bin", "libsasl2-modules")
    machine.run("postconf", "-e", "smtpd_sasl_auth_enable=yes")
    (machine.top / "etc/postfix/sasl/smtpd.conf").write_text(
        "pwcheck_method: saslauthd\nmech_list: PLAIN LOGIN\n"
    )
    machine.shell(f"echo 'user:{PASSWORD}' | chpasswd; adduser --quiet postfix sasl")
    machine.shell("echo START=yes >>/etc/default/saslauthd")
    machine.run("service", "saslauthd", "restart")
    machine.run("service", "postfix", "restart")
    for mechanism in ("PLAIN", "LOGIN"):
        assert log_in(machine, mechanism, PASSWORD)
        assert not log_in(machine, mechanism, "wrong")


def test_logins_by_sasldb(machine: Machine) -> None:
    (machine.top / "etc/postfix/sasl/smtpd.conf").write_text(
        "pwcheck_method: auxprop\nmech_list: PLAIN CRAM-MD5\n"
    )
    machine.shell(
        f"echo '{PASSWORD}' | saslpasswd2 -p -c -u $(postconf -h myhostname) user;"
        "chgrp postfix /etc/sasldb2; chmod 640 /etc/sasldb2"
    )
    machine.run("service", "postfix", "restart")
    for mechanism in ("PLAIN", "CRAM-MD5"):
        assert log_in(machine, mechanism, PASSWORD)
        assert not log_in(machine, mechanism, "wrong")


def test_programs_that_only_debian_has(machine: Machine) -> None:
    """Services for filters and policy servers; mail by UUCP; pages where that package has them."""
    machine.run("postfix-add-filter", "scan", "10025")
    assert machine.try_run("postfix-add-filter", "scan", "10026").returncode == 1
    machine.run("postfix-add-policy", "spf", "nobody", "/usr/bin/policyd-spf", "-x")
    added = machine.run("postconf", "-M", "scan/unix", "127.0.0.1:10025/inet", "spf/unix")
    assert "receive_override_options=no_header_body_checks" in added
    assert "spawn user=nobody argv=/usr/bin/policyd-spf -x" in added
    before = len(subjects(machine))
    machine.run("postfix", "reload")
    assert machine.run("postfix", "check") == ""
    lines = "From one Jan 1 remote from hosta\\n>From two Jan 1 remote from hostb\\n"
    machine.shell(f"printf '{lines}Subject: uucp\\n\\nx\\n' | rmail user")
    wait_until(lambda: len(subjects(machine)) > before)
    if machine.booted:  # else nobody writes a log
        log = machine.run("postfix-collate", "/var/log/mail.log").split("\n\n")
        (group,) = [group for group in log if "from=<hosta!hostb!two>" in group]
        assert group.endswith("removed")
    for service in ("scan/unix", "127.0.0.1:10025/inet", "spf/unix"):
        machine.run("postconf", "-M", "-X", service)
    machine.run("postfix", "reload")
    assert (machine.top / "usr/share/man/man8/lmtp.8postfix.gz").is_symlink()


def test_other_answers(machine: Machine) -> None:
    """dpkg-reconfigure changes what main.cf says, and keeps the rest of it."""
    machine.run("postconf", "-e", "message_size_limit=4711000")
    for kind, interfaces, transport in (
        ("Local only", "loopback-only", "error"),
        ("Internet Site", "all", "smtp"),
    ):
        selection = f"posthorn postfix/main_mailer_type select {kind}"
        selection += "\\nposthorn postfix/root_address string user"
        machine.shell(f"printf '{selection}\\n' | debconf-set-selections")
        machine.run("dpkg-reconfigure", "posthorn")
        found = machine.run("postconf", "-h", "inet_interfaces", "default_transport")
        assert found.split() == [interfaces, transport]
        assert runs(machine)
    assert machine.run("postconf", "-h", "message_size_limit") == "4711000\n"
    assert machine.run("postalias", "-q", "root", "hash:/etc/aliases") == "user\n"
    assert machine.run("postfix", "check") == ""


def test_openrc(machine: Machine) -> None:
    """The service script for OpenRC, by OpenRC itself."""
    machine.run("apt-get", "install", "-y", "openrc")
    machine.run("service", "postfix", "stop")
    theirs, ours = machine.top / "etc/init.d/postfix", ROOT / "packaging/openrc/postfix"
    kept = theirs.read_bytes()
    theirs.write_bytes(ours.read_bytes())
    local = machine.top / "etc/init.d/localmount"  # any system with OpenRC has one
    local.write_text("#!/sbin/openrc-run\nstart() { :; }\n")
    local.chmod(0o755)
    machine.shell("mkdir -p /run/openrc; echo default >/run/openrc/softlevel")
    try:
        for action, running in (
            ("start", True), ("restart", True), ("reload", True), ("check", True), ("flush", True),
            ("stop", False), ("start", True), ("abort", False), ("start", True), ("stop", False),
        ):  # fmt: skip
            machine.run("rc-service", "postfix", action)
            assert runs(machine) is running, action
            status = machine.try_run("rc-service", "postfix", "status")
            assert (status.returncode == 0) is running, action
        machine.run("rc-service", "postfix", "start")
        machine.run("postfix", "stop")
        machine.run("rc-service", "postfix", "stop")  # it has ended already
    finally:
        theirs.write_bytes(kept)
        local.unlink()
    machine.run("service", "postfix", "start")


def test_set_permissions(machine: Machine) -> None:
    """Their end; post-install is called by others."""
    machine.run("postfix", "set-permissions")
    machine.run("/usr/lib/postfix/sbin/post-install", "meta_directory=/etc/postfix",
                "create-missing")  # fmt: skip
    machine.run("postfix", "check")
    assert runs(machine)


def test_reboot(machine: Machine) -> None:
    if not machine.booted:
        pytest.skip(machine.why_not_booted)
    machine.reboot()
    wait_until(lambda: runs(machine))
    before = len(subjects(machine))
    machine.shell("printf 'Subject: again\n\nx\n' | sendmail user")
    wait_until(lambda: len(subjects(machine)) > before)


def test_upgrade_under_load(machine: Machine) -> None:
    """Mail that was accepted before, during and after it arrives once; what waits still waits."""
    machine.run("postconf", "-e", "transport_maps=inline:{later.test=retry:later}")
    machine.run("postfix", "reload")
    machine.shell("printf 'Subject: waits\n\nx\n' | sendmail someone@later.test")
    wait_until(lambda: len(queue(machine, "deferred")) == 1)
    (machine.top / "root/load").write_text(LOAD)
    machine.shell("setsid sh /root/load >/dev/null 2>&1 &")
    wait_until(lambda: len(subjects(machine, "load")) > 5)
    machine.install("apt-get install /packages/next/posthorn_*.deb /packages/next/posthorn-pcre*")
    delivered = len(subjects(machine, "load"))
    wait_until(lambda: len(subjects(machine, "load")) > delivered)
    machine.run("touch", "/run/enough")
    wait_until(lambda: machine.try_run("test", "-e", "/run/ended").returncode == 0)
    accepted = sorted(machine.run("cat", "/run/accepted").split())
    wait_until(lambda: len(subjects(machine, "load")) >= len(accepted))
    arrived = sorted(one.partition(" ")[2] for one in subjects(machine, "load"))
    assert arrived == accepted
    assert len(queue(machine, "deferred")) == 1
    version = machine.run("dpkg-query", "-W", "-f", "${Version}", "posthorn")
    assert version == NEXT_VERSION


def test_another_mail_system(machine: Machine) -> None:
    """Exim takes its place, and the mail that waits; what is left of the package is purged."""
    machine.run("apt-get", "install", "-y", "exim4-daemon-light")
    assert not list(machine.top.glob("usr/lib/postfix/**/*"))
    assert queue(machine, "deferred") == []
    assert "Submitted: 1" in machine.run("/var/spool/posthorn-export/submit")
    log = machine.top / "var/log/exim4/mainlog"  # be it that Exim keeps it, or sends it back
    wait_until(lambda: "someone@later.test" in log.read_text("utf-8", "replace"))
    machine.shell("dpkg --purge posthorn")
    for path in ("var/spool/postfix", "etc/postfix", "var/lib/postfix"):
        assert not (machine.top / path).exists(), path
    left = shutil.which("postconf", path=str(machine.top / "usr/sbin"))
    assert left is None
