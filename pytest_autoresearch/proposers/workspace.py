"""The tree that an agent has worked in: what it looked like before, what was changed, and what has to go again.

An agent leaves chats, caches and logs, and may leave anything: links, pipes, folders that nobody may enter. Nothing
is followed, nothing that is not a plain file is opened, and what is left in doubt is left for the guard to refuse.
Runs while nothing of the agent runs. Knows files alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.source.guard import MOST_BYTES, is_editable

_MOST_ENTRIES = 1_000_000  # of a tree that is looked at, and below it of editable text: more is left to the guard
_MOST_TEXT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Edits:
    """What was changed in a tree.

    Attributes:
        texts: The editable files that are not what they were; None for one that is no plain file any more.
        strayed: Whether anything else was changed, too, which the guard will say.
    """

    texts: Mapping[str, bytes | None]
    strayed: bool


class Workspace:
    """A tree as it was before the agent came.

    Args:
        folder: Where the agent starts.
        editable: The paths that may change, relative to it.

    Attributes:
        top: The tree's own folder, which `folder` may be a part of.
    """

    def __init__(self, folder: Path, editable: tuple[str, ...]) -> None:
        self._folder = folder
        self._editable = editable
        self.top = next((place for place in (folder, *folder.parents) if os.path.lexists(place / ".git")), folder)
        self._before = dict(self._entries())
        self._texts = self.texts()

    @property
    def files(self) -> tuple[str, ...]:
        """The editable files that were there, relative to the folder."""
        return tuple(self._texts)

    def texts(self) -> dict[str, bytes]:
        """The editable files that are there and are plain files; of one that the guard will not take, its beginning."""
        found, total = {}, 0
        for path, look in self._entries():
            name = self._editable_name(path)
            if name and stat.S_ISREG(look.st_mode):
                with suppress(OSError):
                    found[name] = read(path, MOST_BYTES + 1) if total < _MOST_TEXT_BYTES else b""
                    total += len(found[name])
        return dict(sorted(found.items()))

    def edits(self) -> Edits | None:
        """What was changed; None when nothing was. Tidy up first."""
        before, now = self._texts, self.texts()
        changed = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
        texts = {name: now.get(name) for name in sorted(changed)}
        others = {path: look for path, look in self._entries() if not self._editable_name(path)}
        gone = any(path not in others for path in self._before if not self._editable_name(path))
        strayed = gone or any(_signature(look) != self._signature(path) for path, look in others.items())
        return Edits(texts, strayed) if texts or strayed else None

    def write(self, texts: Mapping[str, bytes | None]) -> None:
        """Make editable files what they were in an edit, following no link."""
        for name, text in texts.items():
            path = self._folder / name
            if text is None:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            no_link = path.parent.resolve() == self._folder.resolve() / Path(name).parent and not path.is_symlink()
            if no_link and len(text) <= MOST_BYTES:
                path.write_bytes(text)

    def take(self, name: str, most: int) -> bytes:
        """The first bytes of a new plain file, which is removed; nothing where there is none."""
        path, text = self._folder / name, b""
        if path not in self._before:
            with suppress(OSError):
                text = read(path, most)
            with suppress(OSError):
                path.unlink()
        return text

    def tidy(self) -> None:
        """Remove what is new and not editable, with the folders that are empty then."""
        folders = []
        for path, look in list(self._entries(open_up=True)):
            if path in self._before:
                continue
            if stat.S_ISDIR(look.st_mode):
                folders.append(path)
            elif not self._editable_name(path):
                with suppress(OSError):
                    path.unlink()
        for path in sorted(folders, reverse=True):  # the innermost first
            with suppress(OSError):
                path.rmdir()

    def _editable_name(self, path: Path) -> str:
        """Relative to the folder; empty where the path is not editable."""
        if not path.is_relative_to(self._folder):
            return ""
        name = path.relative_to(self._folder).as_posix()
        return name if is_editable(name, self._editable) else ""

    def _signature(self, path: Path) -> tuple[int, ...]:
        return _signature(self._before[path]) if path in self._before else ()

    def _entries(self, open_up: bool = False) -> Iterator[tuple[Path, os.stat_result]]:
        """Everything below the top, git's own link excepted.

        Args:
            open_up: Whether folders that are new are made to be entered.
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
        OSError: It is a link, or no plain file.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path} is no plain file")
        return opened.read(most)


def _signature(look: os.stat_result) -> tuple[int, ...]:
    """Changes whenever the file does; of a folder its kind and mode alone, since that changes with what lies in it."""
    if stat.S_ISDIR(look.st_mode):
        return (look.st_mode,)
    return look.st_mode, look.st_size, look.st_ino, look.st_ctime_ns
