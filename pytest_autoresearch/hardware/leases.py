"""Leases of devices, so that two sessions of one machine never use the same GPU.

A lease is a lock on a file of the device's name. The kernel releases it when its holder ends, however it ends. Children
do not inherit it. Knows no campaign and no driver.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

# The same folder for every process of the machine: TMPDIR and XDG_RUNTIME_DIR may differ from shell to shell.
FOLDER = Path("/tmp/pytest-autoresearch-devices")


@dataclass(slots=True, eq=False)
class Lease:
    """This process's hold on a device, until `release` or the end of the process."""

    _descriptor: int | None

    def release(self) -> None:
        """Let others have the device."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever holds a device.

    Attributes:
        pid: Its process; None if it belongs to another user and could not be written down.
    """

    pid: int | None

    def __str__(self) -> str:
        return f"the session with pid {self.pid}" if self.pid else "another session"


def lease(device: str) -> Lease | Holder:
    """Take a device, or say who has it.

    Args:
        device: Its name on this machine, such as a GPU's UUID.

    Raises:
        OSError: The lock's file cannot be made.
    """
    file = _open(FOLDER / re.sub(r"[^\w.-]", "_", device))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return Holder(_pid(os.pread(file, 32, 0)))
        finally:
            os.close(file)
    with contextlib.suppress(OSError):  # the file of another user can be locked, but not written
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return Lease(file)


def _open(path: Path) -> int:
    """Open the lock's file, which may belong to another user. The descriptor is closed in every program started."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir()
        path.parent.chmod(0o1777)  # every user of the machine may add a file, and remove no other user's
    for flags in (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            return os.open(path, flags | os.O_NOFOLLOW, 0o644)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _pid(written: bytes) -> int | None:
    """The holder's process, unless it is that of an earlier holder."""
    if not written.strip().isdigit():
        return None
    pid = int(written)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return pid
