"""As root: what a process of mail_owner, or a user, plants for root to stumble over.

Every directory that mail_owner may write in holds names that programs open as root: before their
jail, in `postfix start`, in tablewatch. Each test plants something there, has root come by, and
looks at what mail_owner has gained.
"""

from __future__ import annotations

import os
import pwd
import shutil
import smtplib
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from libmail.files.safe_open import Place, PlantedName, safe_open
from libmail.privileges import Identity, acting_as, identity_of
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import wait_until

pytestmark = pytest.mark.root

SECRET = "hunter2 correct-horse-battery"
TEXT_TABLES = ("texthash", "regexp", "pcre", "cidr")


def owner() -> Identity:
    return identity_of("postfix")


def give(path: Path) -> None:
    """To mail_owner."""
    os.chown(path, owner().uid, owner().gid, follow_symlinks=False)


def plant(name: Path, target: Path) -> None:
    """A symbolic link, as a process of mail_owner makes it."""
    with acting_as(owner()):
        name.symlink_to(target)


def secret_file(system: MailSystem) -> Path:
    """A file that mail_owner cannot read, though its own mode allows it."""
    folder = system.top / "root"
    folder.mkdir(mode=0o700)
    path = folder / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o644)
    return path


def leaks(system: MailSystem, secret: Path) -> list[Path]:
    """Files outside of its directory with what is in the secret file."""
    wanted = SECRET.split()[1].encode()
    files = [path for path in system.top.rglob("*") if path.is_file() and not path.is_symlink()]
    outside = [path for path in files if secret.parent not in path.parents]
    return [path for path in outside if wanted in path.read_bytes()]


def come_by(system: MailSystem) -> None:
    """All that root does by itself, and a message, which has every service start."""
    assert system.run("postfix", "start").returncode == 0
    system.session = system.master_pid() or 0
    for command in ("reload", "check", "set-permissions"):
        system.run("postfix", command)
    attempt(system)


def attempt(system: MailSystem) -> None:
    """A message, which is answered with 4xx where a table cannot be opened."""
    with suppress(smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused):
        system.send("a@mail.test", ["x@void.test"], b"Subject: x\r\n\r\nx\r\n")


@pytest.fixture
def system(make_system: MakeSystem) -> MailSystem:
    system = make_system(privileged=True)
    system.route("void.test", "discard:")
    return system


def test_no_cache_is_built(system: MailSystem) -> None:
    data, secret = system.top / "data", secret_file(system)
    system.configure(
        {
            "smtp_tls_session_cache_database": "btree:${data_directory}/smtp_scache",
            "address_verify_map": "btree:$data_directory/verify",
            "proxy_read_maps": "proxy:btree:$data_directory/verify",
        }
    )
    system.allow("this parameter has no effect yet")
    for name in ("smtp_scache", "verify"):
        plant(data / name, secret)
    come_by(system)
    (data / "verify").unlink()
    plant(data / "verify", secret)  # which tablewatch would see
    system.send("a@mail.test", ["x@void.test"], b"Subject: x\r\n\r\nx\r\n")
    assert sorted(path.name for path in data.iterdir() if "lock" not in path.name) == [
        "smtp_scache", "verify"]  # fmt: skip


def test_no_source_is_read_for_another(system: MailSystem) -> None:
    data, secret = system.top / "data", secret_file(system)
    system.configure({"relocated_maps": f"hash:{data}/x", "canonical_maps": f"cdb:{data}/sub/y"})
    system.allow(r"data/(x|sub/y)|_maps lookup failure")
    plant(data / "x", secret)
    plant(data / "sub", secret.parent)
    (secret.parent / "y").write_text(f"{SECRET}\n")
    come_by(system)
    (data / "x").unlink()
    plant(data / "x", secret)  # which tablewatch sees
    attempt(system)
    system.wait_for_log("data/x.*keeping the old content")
    assert not leaks(system, secret)
    assert sorted(path.name for path in secret.parent.iterdir()) == ["secret", "y"]


def test_no_table_is_written_for_another(system: MailSystem) -> None:
    """A source of mail_owner, whose indexed file leads to one of root."""
    data = system.top / "data"
    aliases = system.config_directory / "aliases"
    aliases.write_text("root: alice\n")
    system.run("postalias", f"lmdb:{aliases}")
    before = Path(f"{aliases}.lmdb").read_bytes()
    system.configure({"relocated_maps": f"lmdb:{data}/vcache"})
    system.allow("data/vcache")
    with acting_as(owner()):
        (data / "vcache").write_text("root mallory\n")
    plant(data / "vcache.lmdb", Path(f"{aliases}.lmdb"))
    done = system.run("postfix", "start")
    assert done.returncode == 0
    system.session = system.master_pid() or 0
    system.wait_for_log("vcache.*(Permission denied|keeping|not rebuilding)")
    assert Path(f"{aliases}.lmdb").read_bytes() == before
    for command in ("postmap", "postalias"):
        done = system.run(command, f"lmdb:{data}/vcache")
        assert done.returncode != 0, command
        assert Path(f"{aliases}.lmdb").read_bytes() == before, command


def test_a_table_of_mail_owner_is_still_kept(system: MailSystem) -> None:
    data = system.top / "data"
    system.configure({"virtual_alias_maps": f"lmdb:{data}/v"})
    with acting_as(owner()):
        (data / "v").write_text("x@mail.test y@void.test\n")
    system.start()
    system.send("a@mail.test", ["x@mail.test"], b"Subject: x\r\n\r\nx\r\n")
    system.wait_for_log("to=<y@void.test>.* status=sent")
    assert (data / "v.lmdb").stat().st_uid == owner().uid
    with acting_as(owner()):
        (data / "v").write_text("x@mail.test z@void.test\n")
    wait_until(
        lambda: (
            system.run("postmap", "-q", "x@mail.test", f"lmdb:{data}/v").stdout == b"z@void.test\n"
        ),
        system.end_of_log,
    )


def test_a_race_gains_nothing(system: MailSystem) -> None:
    """The name is an ordinary file whenever somebody looks, and a link whenever it is opened."""
    data, secret = system.top / "data", secret_file(system)
    system.configure({"relocated_maps": f"lmdb:{data}/x"})
    system.allow("data/x|is not running")
    flipping = (
        "import os,sys\nos.chdir(sys.argv[1])\n"
        "while True:\n"
        "  open('a','w').write('own value\\n'); os.rename('a','x')\n"
        "  os.symlink(sys.argv[2],'b'); os.rename('b','x')\n"
    )
    flipper = subprocess.Popen(
        [sys.executable, "-c", flipping, str(data), str(secret)],
        user=owner().uid, group=owner().gid, extra_groups=[],
    )  # fmt: skip
    try:
        config = ["-c", str(system.config_directory)]
        for _ in range(10):
            system.run("postfix", *config, "reload")  # rebuilds, then finds no master
            system.run("postmap", f"lmdb:{data}/x")
            system.run("postmap", "-q", "hunter2", f"texthash:{data}/x")
        found = [system.run("postmap", "-q", "hunter2", f"lmdb:{data}/x").stdout]
    finally:
        flipper.kill()
        flipper.wait()
    assert found == [b""]
    assert not leaks(system, secret)


@pytest.mark.parametrize("kind", [*TEXT_TABLES, "list"])
def test_what_root_reads_before_the_jail(system: MailSystem, kind: str) -> None:
    """Its lines would stand in warnings about lines that are none, or be answers."""
    data, secret = system.top / "data", secret_file(system)
    plant(data / "t", secret)
    if kind == "list":
        system.configure({"relay_domains": f"{data}/t"})
    else:
        system.configure({"relocated_maps": f"{kind}:{data}/t"})
    system.allow(r".*")
    come_by(system)
    system.wait_for_log("data/t")
    assert not leaks(system, secret)


def test_directories_are_changed_by_their_descriptors(system: MailSystem) -> None:
    """A queue directory that was given to mail_owner as a whole, by mistake."""
    system.allow("not owned by|group or other writable|unable to|not used")
    assert system.run("postfix", "check").returncode == 0
    queue, victim = system.queue_directory, secret_file(system).parent
    give(queue)
    for name in ("maildrop", "public", "pid"):
        shutil.rmtree(queue / name)
        plant(queue / name, victim)
    before = victim.stat()
    for command in ("check", "set-permissions", "start"):
        system.run("postfix", command)
        after = victim.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (
            before.st_mode, before.st_uid, before.st_gid), command  # fmt: skip
    assert system.master_pid() is None
    assert [path.name for path in victim.iterdir()] == ["secret"]


def test_the_log_file_is_no_link(system: MailSystem) -> None:
    secret = secret_file(system)
    give(system.top / "log")
    plant(system.top / "log/sub", secret.parent)
    system.configure({"maillog_file": f"{system.top}/log/sub/maillog"})
    system.run("postfix", "check")
    assert not (secret.parent / "maillog").exists()


def test_check_changes_nothing(system: MailSystem) -> None:
    """In the queue directory of a Postfix, which may be running."""
    assert system.run("postfix", "check").returncode == 0
    queue = system.queue_directory
    (queue / "maildrop").chmod(0o1730)
    (queue / "public").chmod(0o2710)
    before = {path: path.stat() for path in [queue, *queue.rglob("*")]}
    assert system.run("postfix", "check").returncode == 0
    for path, status in before.items():
        now = path.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (
            status.st_mode, status.st_uid, status.st_gid), path  # fmt: skip


# the rules of safe_open


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of mail_owner, below one that everybody may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.name.startswith(("pytest", "test")):
            folder.chmod(0o755)
    place = tmp_path / "own"
    place.mkdir(mode=0o755)
    give(place)
    return place


def opened(path: Path, flags: int = os.O_RDONLY, *, follow: bool = True) -> bytes:
    fd = safe_open(str(path), flags, follow=follow)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_links_of_mail_owner_lead_to_his_files_only(place: Path, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("root's")
    with acting_as(owner()):
        (place / "file").write_text("his")
    plant(place / "his", place / "file")
    plant(place / "planted", tmp_path / "root")
    plant(place / "relative", Path("../root"))
    plant(place / "folder", tmp_path)
    plant(place / "again", place / "planted")
    (tmp_path / "by-root").symlink_to(place / "planted")
    (tmp_path / "fine").symlink_to(place / "his")
    assert opened(place / "his") == opened(tmp_path / "fine") == b"his"
    for name in ("planted", "relative", "again", "folder/root"):
        with pytest.raises(PlantedName):
            opened(place / name)
    with pytest.raises(PlantedName):
        opened(tmp_path / "by-root")
    with acting_as(owner()):  # his own rights are the kernel's business
        assert opened(place / "planted") == b"root's"


def test_what_root_puts_there_is_root_s(place: Path, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("root's")
    (place / "file").write_text("root's")
    (place / "link").symlink_to(tmp_path / "root")
    assert opened(place / "file") == opened(place / "link") == b"root's"


def test_hard_links(place: Path, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("root's")
    (place / "hard").hardlink_to(tmp_path / "root")
    with pytest.raises(PlantedName):
        opened(place / "hard")
    (tmp_path / "second").hardlink_to(tmp_path / "root")
    assert opened(tmp_path / "second") == b"root's"


def test_nothing_is_made_behind_a_link(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    plant(place / "folder", folder)
    plant(place / "new", folder / "made")
    for name in ("folder/made", "new"):
        with pytest.raises(PlantedName):
            opened(place / name, os.O_RDWR | os.O_CREAT)
        with Place(str(place / name)) as there, pytest.raises(PlantedName):
            there.check()
    assert list(folder.iterdir()) == []
    assert pwd.getpwuid(os.stat(place).st_uid).pw_name == "postfix"


def test_not_following_is_for_the_last_name(place: Path) -> None:
    with acting_as(owner()):
        (place / "file").write_text("his")
    plant(place / "his", place / "file")
    with pytest.raises(OSError, match="symbolic"):
        opened(place / "his", follow=False)
    loop = place / "loop"
    plant(loop, loop)
    with pytest.raises(OSError, match="symbolic"):
        opened(loop)
