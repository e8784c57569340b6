"""The worktrees that ended sessions have left in the git folder: their sizes, and their removal. No ref is touched."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_autoresearch.ledger.worktree import empty_folder

_PARTS = ("", "-out", "-cache", "-agent")  # the tree, what training left there, compile caches, an agent's folder


def worktrees(home: Path) -> tuple[list[str], list[str]]:
    """The names of the worktrees that no session holds, and of those that one holds.

    Args:
        home: The folder of the worktrees.
    """
    free, held = list[str](), list[str]()
    for lock in sorted(home.glob("lane-*.lock")):
        with _locked(lock) as ours:
            if not ours:
                held.append(lock.stem)
            elif folders(home, lock.stem):
                free.append(lock.stem)
    return free, held


def folders(home: Path, name: str) -> list[Path]:
    """The folders of a worktree that are there."""
    return [path for part in _PARTS if os.path.lexists(path := home / f"{name}{part}")]


def remove(home: Path, name: str) -> bool:
    """Remove the folders of a worktree, and git's own note of it; False if a session holds it now."""
    with _locked(home / f"{name}.lock") as ours:
        if not ours:
            return False
        for folder in folders(home, name):
            empty_folder(folder)  # also where a candidate took the permissions away
            with contextlib.suppress(FileNotFoundError):
                (folder / ".git").unlink()
            folder.rmdir()
        with (home / "worktrees.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for note in (home.parent / "worktrees").glob("*/gitdir"):
                if note.read_text("utf-8", "surrogateescape").rstrip("\n") == str(home / name / ".git"):
                    shutil.rmtree(note.parent)
    return True


def size(folder: Path) -> int:
    """The bytes of all files below the folder. Links are not followed, and what cannot be read counts nothing."""
    found = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.lstat(os.path.join(top, name)).st_size
    return found


@contextlib.contextmanager
def _locked(lock: Path) -> Iterator[bool]:
    """Whether this process has the worktree of the lock now."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
