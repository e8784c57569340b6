"""The folder of a session on a node of a cluster. It goes when the last process of the session there has ended.

A process holds the folder by a shared lock, which the kernel releases however the process ends. This file is also the
script that waits for that and removes the folder; so it imports only the standard library.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def hold(session: str) -> Path:
    """The folder of the session on this machine, which this process holds until it ends.

    Raises:
        PermissionError: The folder above belongs to another user.
    """
    home = Path(tempfile.gettempdir()) / f"pytest-autoresearch-nodes-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.is_symlink() or home.stat().st_uid != os.getuid():
        raise PermissionError(f"{home} belongs to another user")
    with locked(home / "lock"):
        _sweep(home)
        held = os.open(home / f"{session}.held", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(held, fcntl.LOCK_SH)
        (folder := home / session).mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-I", "-S", __file__, str(home), session], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, check=False,
    )  # fmt: skip
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(home: Path) -> None:
    """Remove the folders that nobody holds."""
    for left in home.glob("*.held"):
        with left.open("a") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink()


def _main(home: Path, session: str) -> None:
    """Wait until nobody holds the folder. Ray kills the children of its processes, so this is none."""
    if os.fork():
        return
    with suppress(FileNotFoundError):
        with (home / f"{session}.held").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
        with locked(home / "lock"):
            _sweep(home)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
