"""A small file system of a test's own, in a mount namespace that ends with the test session.

Needs root, and a kernel that lets root mount: in some containers it does not, and the test is
skipped.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_CLONE_NEWNS: Final = 0x00020000
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


@functools.cache
def _unshare() -> bool:
    """Leaves the mounts of all others alone from now on. Returns whether that is possible."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """An empty file system of this size ("2m") at the directory, owned as that is."""
    status = folder.stat()
    options = (
        f"size={size},mode={status.st_mode & 0o7777:o},uid={status.st_uid},gid={status.st_gid}"
    )
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not _unshare() or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("root may not mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def in_place_of(path: Path, text: str, tmp_path: Path) -> Iterator[None]:
    """A file of the system has this text, for the test and the programs that it starts.

    tmp_path: where to keep it meanwhile.
    """
    other = tmp_path / path.name
    other.write_text(text)
    command = ["mount", "--bind", str(other), str(path)]
    if not _unshare() or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("root may not mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    assert os.statvfs(folder).f_bavail == 0
    return path


@contextlib.contextmanager
def freezable(folder: Path, tmp_path: Path) -> Iterator[None]:
    """A file system at the directory, owned as that is, for `frozen`.

    tmp_path: where to keep it meanwhile.
    """
    status, image = folder.stat(), tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    make = ["mkfs.ext4", "-q", "-F", "-E", f"root_owner={status.st_uid}:{status.st_gid}"]
    if shutil.which(make[0], path=_SYSTEM_PATH) is None:
        pytest.skip("no mkfs.ext4")
    environment = {**os.environ, "PATH": _SYSTEM_PATH}
    subprocess.run([*make, str(image)], check=True, env=environment)
    command = ["mount", "-o", "loop", str(image), str(folder)]
    if not _unshare() or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("root may not mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """The file system there answers nobody who wants to write."""
    command = shutil.which("fsfreeze", path=_SYSTEM_PATH)
    if command is None or subprocess.run([command, "-f", folder]).returncode != 0:
        pytest.skip("file systems cannot be frozen here")
    try:
        yield
    finally:
        subprocess.run([command, "-u", folder], check=True)
