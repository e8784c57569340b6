"""Compile caches that are reused between runs.

A cache that a run can write to could carry weights to the next run. So only the baseline's cache is saved, which is the
user's own program, at the moment when training asks for its clock, before training receives data. Each later run gets
its own copy, which is deleted with the run.
Knows folders alone.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

MOST_MB = 1024.0
MOST_FILES = 10_000
_MOST_DEPTH = 12
_CHUNK = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def variables(cache: Path) -> dict[str, str]:
    """The variables that make PyTorch's compiler and Triton keep their caches in a folder."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "TRITON_CACHE_DIR": str(cache / "triton")}


def copy(source: Path, target: Path) -> bool:
    """Copy a folder's regular files. False, and no target, if there are none or too many.

    An untrusted process may write to the source during the copy. Folders are opened relative to their open parent, so a
    symbolic link that replaces a folder is not followed. Everything but regular files is left out. The target appears
    when it is complete, or not at all.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        part.mkdir(parents=True)
        top = os.open(source, _FOLDER)
        try:
            count = _Copy().folder(top, part)
        finally:
            os.close(top)
        if count:
            part.replace(target)
        return bool(count)
    except (OSError, OverflowError):  # without a copy the next run compiles again
        return False
    finally:
        shutil.rmtree(part, ignore_errors=True)


def fill(cache: Path, kept: Path) -> None:
    """Copy the kept folder, if it exists, into the empty folder `cache`."""
    if not (kept.is_dir() and copy(kept, cache)):
        cache.mkdir(exist_ok=True)


class _Copy:
    """Copies files and counts them.

    Raises:
        OverflowError: There are too many files or bytes.
    """

    def __init__(self) -> None:
        self._files = 0
        self._bytes = 0

    def folder(self, source: int, target: Path, depth: int = 0) -> int:
        """The number of files copied so far; `source` is a folder's descriptor."""
        if depth > _MOST_DEPTH:
            raise OverflowError("too deep")
        with os.scandir(source) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
        for name, mode in found:
            if stat.S_ISDIR(mode):
                inside = os.open(name, _FOLDER, dir_fd=source)
                try:
                    (target / name).mkdir()
                    self.folder(inside, target / name, depth + 1)
                finally:
                    os.close(inside)
            elif stat.S_ISREG(mode):
                self._file(os.open(name, _FILE, dir_fd=source), target / name)
        return self._files

    def _file(self, descriptor: int, target: Path) -> None:
        with os.fdopen(descriptor, "rb") as file, target.open("xb") as copied:
            look = os.fstat(descriptor)
            if not stat.S_ISREG(look.st_mode):
                raise OSError("not a regular file any more")
            self._files += 1
            while chunk := file.read(_CHUNK):
                self._bytes += len(chunk)
                if self._bytes > MOST_MB * 1024 * 1024 or self._files > MOST_FILES:
                    raise OverflowError("too much")
                copied.write(chunk)
            os.fchmod(copied.fileno(), stat.S_IMODE(look.st_mode) & 0o755 | 0o600)
