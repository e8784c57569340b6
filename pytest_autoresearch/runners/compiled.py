"""What compilers keep between runs: copied before training has seen data, and given to later runs as a copy.

A cache that a run can write to is a way to carry weights to the next one. So what is kept is copied at the moment when
training asks for its clock, before it is handed a row; and what a run adds afterwards goes with its own copy. Knows
folders alone.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

MOST_MB = 2048.0
MOST_FILES = 20_000
_MOST_DEPTH = 12
_CHUNK = 1024 * 1024


def variables(cache: Path) -> dict[str, str]:
    """What leads PyTorch's compiler, and Triton's, to a folder."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "TRITON_CACHE_DIR": str(cache / "triton")}


def copy(source: Path, target: Path) -> bool:
    """Copy a folder's plain files; false, and nothing at the target, where there are none or too many.

    The source is written to by somebody who is not trusted, perhaps now: links are not followed, what is no plain file
    is left out, and what is there at the target is whole or not there at all.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        count = _Copy().folder(source, part)
        if count:
            part.replace(target)
        return bool(count)
    except (OSError, OverflowError):  # it costs the next run a compilation
        return False
    finally:
        shutil.rmtree(part, ignore_errors=True)


def fill(cache: Path, kept: Iterable[Path]) -> None:
    """Copy the first of the kept folders that is there into the empty one."""
    for folder in kept:
        if folder.is_dir() and copy(folder, cache):
            return
    cache.mkdir(exist_ok=True)


class _Copy:
    """Counts what it copies.

    Raises:
        OverflowError: There is more than is worth keeping.
    """

    def __init__(self) -> None:
        self._files = 0
        self._bytes = 0

    def folder(self, source: Path, target: Path, depth: int = 0) -> int:
        """The number of files copied so far."""
        if depth > _MOST_DEPTH:
            raise OverflowError("too deep")
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    inside = target / entry.name
                    inside.mkdir()
                    self.folder(Path(entry.path), inside, depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    self._file(entry.path, target / entry.name)
        return self._files

    def _file(self, source: str, target: Path) -> None:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file, target.open("xb") as copied:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("no plain file any more")
            self._files += 1
            while chunk := file.read(_CHUNK):
                self._bytes += len(chunk)
                if self._bytes > MOST_MB * 1024 * 1024 or self._files > MOST_FILES:
                    raise OverflowError("too much")
                copied.write(chunk)
        shutil.copystat(source, target, follow_symlinks=False)
