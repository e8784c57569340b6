"""Makes a private home folder for an agent: copies of its settings, and links to folders that it shares with the user.

An agent reads text that candidates and strangers wrote, so it may be tricked into changing its settings: a hook, a
server to start, another address to send keys to. With the user's own settings, other programs would then use them. The
copy is deleted after the job; a token that the agent refreshed in the copy is lost too.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

MOST_BYTES, MOST_FILE_BYTES, MOST_FILES = 64 * 2**20, 8 * 2**20, 5000
MOST_LOOKS, MOST_LINKED = 20_000, 1000  # files and folders that are looked at: in all, and below one link
_LEFT_OUT = frozenset({
    *("projects", "sessions", "history", "transcripts", "shell-snapshots", "shell_snapshots", "file-history", "todos"),
    *("cache", "caches", "Cache", "CachedData", "logs", "log", "tmp", "debug", "telemetry", "statsig", "backups"),
    *("history.jsonl", "session-state", "session-store.db", "archived_sessions", "paste-cache", "antigravity"),
    *("node_modules", ".git", "snapshot", "storage", "local", "versions", "bin"),
})  # fmt: skip
"""Names of files and folders that are not settings: histories, caches and programs."""


def make(home: Path, settings: Mapping[str, Path], shared: Iterable[Path], users: Path) -> None:
    """Fill a home folder.

    Args:
        home: The folder to create, readable for this user alone.
        settings: Files and folders to copy, by their target relative to `home`. The deepest files are copied last, and
            files beyond the bounds are left out.
        shared: Paths that the agent uses directly. Those in the user's home folder are linked from `home`.
        users: The user's home folder.
    """
    home.mkdir(mode=0o700)
    for path in shared:
        if path.is_relative_to(users):
            link = home / path.relative_to(users)
            link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            link.symlink_to(path)
    files, left = 0, MOST_BYTES
    for place, path, size in _to_copy(settings):
        to = home / place
        if size > left or os.path.lexists(to) or _leads_out(to.parent, home):
            continue
        with suppress(OSError):
            to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copy(path, to)
            files, left = files + 1, left - size
        if files >= MOST_FILES:
            return


def remove(folder: Path) -> None:
    """Remove a folder that an agent could write to, however deep it is and whatever its file modes are."""
    # Not shutil.rmtree, which fails on a thousand nested folders.
    commands = (["rm", "-rf", "--"], ["chmod", "-R", "u+rwx", "--"], ["rm", "-rf", "--"])
    for command in commands:
        if not os.path.lexists(folder):
            return
        subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL, check=False)


def _to_copy(settings: Mapping[str, Path]) -> Iterator[tuple[Path, Path, int]]:
    """The files to copy, outer folders first: target, source, and size in bytes."""
    waiting = deque((Path(name), source) for name, source in settings.items())
    sources, left = frozenset(settings.values()), MOST_LOOKS
    while waiting and left > 0:
        place, path = waiting.popleft()
        left -= 1
        with suppress(OSError):
            look = path.stat()
            if stat.S_ISREG(look.st_mode):
                if look.st_size <= MOST_FILE_BYTES and not path.name.endswith(".log"):
                    yield place, path, look.st_size
            elif stat.S_ISDIR(look.st_mode):
                if path.is_symlink() and path not in sources:
                    inside, looks = _linked(path)
                    left -= looks
                else:
                    inside = _entries(path)
                waiting += [(place / one.relative_to(path), one) for one in inside]


def _linked(link: Path) -> tuple[list[Path], int]:
    """The files of a small folder that a link points to, and how many files and folders were looked at.

    Skills and commands are often kept elsewhere and linked to. A large folder, or a folder that contains the link, is a
    project or a program, not a setting. Copying it at every start would be slow and a partial copy useless, so nothing
    is copied. Links to folders inside are not followed.
    """
    if link.parent.resolve().is_relative_to(link.resolve()):
        return [], 1
    files, waiting, looks = [], deque([link]), 0
    while waiting:
        for path in _entries(waiting.popleft()):
            looks += 1
            if looks > MOST_LINKED:
                return [], looks
            if not path.is_dir():
                files.append(path)
            elif not path.is_symlink():
                waiting.append(path)
    return files, looks


def _entries(folder: Path) -> list[Path]:
    """The sorted entries of a folder, without those in `_LEFT_OUT`; at most `MOST_LOOKS`."""
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, MOST_LOOKS)]
        return [folder / name for name in sorted(names) if name not in _LEFT_OUT]
    return []


def _leads_out(folder: Path, home: Path) -> bool:
    """Whether a link on the path leads out of the private home, to a shared folder."""
    return not folder.resolve().is_relative_to(home.resolve())
