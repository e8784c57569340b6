"""The tree that an agent works in: its state before, the agent's edits, and the files to remove afterwards.

An agent leaves chats, caches and logs, and may leave links, pipes and folders without permissions. No link is followed,
only plain files are opened, and doubtful cases are left for the guard to refuse. Runs only while the agent does not
run. Knows only files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.source.editable import Editable
from pytest_autoresearch.source.guard import MOST_BYTES

_MOST_ENTRIES = 1_000_000  # limits of entries and editable text that are read; the guard refuses larger trees
_MOST_TEXT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Edits:
    """The changes in a tree.

    Attributes:
        texts: The changed editable files; None for one that is no longer a plain file.
        strayed: Whether other files were changed, too; the guard will refuse that.
    """

    texts: Mapping[str, bytes | None]
    strayed: bool


class Workspace:
    """A tree, with its state before the agent starts.

    Args:
        folder: The agent's start folder.
        editable: The files that may change, relative to `folder`.

    Attributes:
        top: The tree's top folder, which contains `folder`.
    """

    def __init__(self, folder: Path, editable: Editable) -> None:
        self._folder = folder
        self._editable = editable
        self.top = next((place for place in (folder, *folder.parents) if os.path.lexists(place / ".git")), folder)
        self._before = dict(self._entries())
        self._texts = self.texts()

    @property
    def files(self) -> tuple[str, ...]:
        """The editable files before the start, relative to the folder."""
        return tuple(self._texts)

    def texts(self) -> dict[str, bytes]:
        """The contents of the editable plain files; of files too large for the guard, only the beginning."""
        found, total = {}, 0
        for path, look in self._entries():
            name = self._editable_name(path)
            if name and stat.S_ISREG(look.st_mode):
                with suppress(OSError):
                    found[name] = read(path, MOST_BYTES + 1) if total < _MOST_TEXT_BYTES else b""
                    total += len(found[name])
        return dict(sorted(found.items()))

    def edits(self) -> Edits | None:
        """The changes; None if there are none. Call `tidy` first."""
        before, now = self._texts, self.texts()
        changed = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
        texts = {name: now.get(name) for name in sorted(changed)}
        others = {path: look for path, look in self._entries() if not self._editable_name(path)}
        gone = any(path not in others for path in self._before if not self._editable_name(path))
        strayed = gone or any(_signature(look) != self._signature(path) for path, look in others.items())
        return Edits(texts, strayed) if texts or strayed else None

    def write(self, texts: Mapping[str, bytes | None]) -> list[str]:
        """Restore an edit's versions of the editable files, following no link.

        Returns:
            The files that stay as they are, because the edit left no plain file there, or one that is too large.
        """
        lost = []
        for name, text in texts.items():
            path = self._folder / name
            plain = path.parent.resolve() == self._folder.resolve() / Path(name).parent and not path.is_symlink()
            if text is None or len(text) > MOST_BYTES or not plain:
                lost.append(name)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        return lost

    def take(self, name: str, most: int) -> bytes:
        """Read the first bytes of a new plain file and remove it; empty if there is none."""
        path, text = self._folder / name, b""
        if path not in self._before:
            with suppress(OSError):
                text = read(path, most)
            with suppress(OSError):
                path.unlink()
        return text

    def tidy(self) -> None:
        """Remove new files that are not editable, and folders that are then empty."""
        folders = []
        for path, look in list(self._entries(open_up=True)):
            if path in self._before:
                continue
            if stat.S_ISDIR(look.st_mode):
                folders.append(path)
            elif not self._editable_name(path):
                with suppress(OSError):
                    path.unlink()
        for path in sorted(folders, reverse=True):  # innermost first
            with suppress(OSError):
                path.rmdir()

    def _editable_name(self, path: Path) -> str:
        """The path relative to the folder; empty if it is not editable."""
        if not path.is_relative_to(self._folder):
            return ""
        name = path.relative_to(self._folder).as_posix()
        return name if name in self._editable else ""

    def _signature(self, path: Path) -> tuple[int, ...]:
        return _signature(self._before[path]) if path in self._before else ()

    def _entries(self, open_up: bool = False) -> Iterator[tuple[Path, os.stat_result]]:
        """All entries below the top, except git's link.

        Args:
            open_up: Whether to make new folders accessible first.
        """
        waiting, seen = [self.top], 0
        while waiting and seen < _MOST_ENTRIES:
            folder = waiting.pop()
            if open_up and folder not in self._before and folder != self.top:
                with suppress(OSError):
                    folder.chmod(0o700)
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    path = folder / entry.name
                    if path == self.top / ".git":
                        continue
                    with suppress(OSError):
                        look = entry.stat(follow_symlinks=False)
                        seen += 1
                        yield path, look
                        if stat.S_ISDIR(look.st_mode):
                            waiting.append(path)


def read(path: Path, most: int) -> bytes:
    """A plain file's first bytes.

    Raises:
        OSError: It is a link or not a plain file.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path} is not a plain file")
        return opened.read(most)


def _signature(look: os.stat_result) -> tuple[int, ...]:
    """Changes whenever the file changes. For a folder only its mode: its other fields change with its contents."""
    if stat.S_ISDIR(look.st_mode):
        return (look.st_mode,)
    return look.st_mode, look.st_size, look.st_ino, look.st_ctime_ns
