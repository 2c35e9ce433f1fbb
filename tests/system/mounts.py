"""Small file systems of a test's own, in a mount namespace that ends with the test session.

Needs root, and a kernel that lets root mount: in some containers it does not, and the test is
skipped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_CLONE_NEWNS: Final = 0x00020000
_SYSTEM_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_EXT4_IOC_SHUTDOWN: Final = 0x8004587D
_NOLOGFLUSH: Final = 2
_FIFREEZE: Final = 0xC0045877
_FITHAW: Final = 0xC0045878
_SIZE: Final = 1 << 26


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


@dataclass(frozen=True, slots=True)
class Ext4:
    """A mounted file system in a file."""

    image: Path
    folder: Path

    def mount(self) -> bool:
        """Returns whether root may do it here. What the journal has is recovered."""
        command = ["mount", "-o", "loop", str(self.image), str(self.folder)]
        return _unshare() and subprocess.run(command, capture_output=True).returncode == 0

    def unmount(self, *options: str) -> None:
        subprocess.run(["umount", *options, str(self.folder)], check=True)

    def fail(self) -> None:
        """As at a power failure: what is not on disk by now is lost, and all else fails."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _EXT4_IOC_SHUTDOWN, struct.pack("=I", _NOLOGFLUSH))
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It answers nobody who wants to write."""
        folder = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(folder, _FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(folder, _FITHAW, 0)
            os.close(folder)


@contextlib.contextmanager
def ext4(folder: Path, tmp_path: Path) -> Iterator[Ext4]:
    """An empty file system at the directory, owned as that is. tmp_path: where its file is."""
    status, disk = folder.stat(), Ext4(tmp_path / "image", folder)
    with disk.image.open("wb") as file:
        file.truncate(_SIZE)
    make = ["mkfs.ext4", "-q", "-F", "-E", f"root_owner={status.st_uid}:{status.st_gid}"]
    environment = {**os.environ, "PATH": _SYSTEM_PATH}
    subprocess.run([*make, str(disk.image)], check=True, env=environment)
    if not disk.mount():
        pytest.skip("root may not mount here")
    try:
        (folder / "lost+found").rmdir()
        folder.chmod(status.st_mode & 0o7777)
        yield disk
    finally:
        disk.unmount("--lazy")


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
