"""A home folder of an agent's own: a copy of its settings, which it may change, and links to what it shares for real.

An agent reads what candidates and strangers wrote. Were its settings the user's, what it is talked into would be found
there by the next program: a hook, a server to start, another address to send keys to. A copy ends with the errand; so
does a token that was refreshed in it.
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
MOST_LOOKS, MOST_LINKED = 20_000, 1000  # at files and folders: in all, and where a link leads to
_LEFT_OUT = frozenset({
    *("projects", "sessions", "history", "transcripts", "shell-snapshots", "shell_snapshots", "file-history", "todos"),
    *("cache", "caches", "Cache", "CachedData", "logs", "log", "tmp", "debug", "telemetry", "statsig", "backups"),
    *("history.jsonl", "session-state", "session-store.db", "archived_sessions", "paste-cache", "antigravity"),
    *("node_modules", ".git", "snapshot", "storage", "local", "versions", "bin"),
})  # fmt: skip
"""Names of what is no setting: what was said and done before, and programs."""


def make(home: Path, settings: Mapping[str, Path], shared: Iterable[Path], users: Path) -> None:
    """Fill a home folder.

    Args:
        home: To be made, for this user alone.
        settings: Files and folders to copy, by where they go, relative to the home folder. What lies deepest comes
            last, and what lies beyond the bounds is left out.
        shared: What the agent may use for real: inside the user's home folder, it is found from the new one, too.
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
    """Leave nothing of a folder that an agent could write to, however deep it is and whatever its modes say."""
    # Not shutil.rmtree, which ends at a thousand folders within each other.
    commands = (["rm", "-rf", "--"], ["chmod", "-R", "u+rwx", "--"], ["rm", "-rf", "--"])
    for command in commands:
        if not os.path.lexists(folder):
            return
        subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL, check=False)


def _to_copy(settings: Mapping[str, Path]) -> Iterator[tuple[Path, Path, int]]:
    """The files of the settings, those of outer folders first: where each goes, where it is, and its size."""
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
    """The files of a small folder that a link leads to, and how many looks that took.

    Skills and commands are often kept elsewhere and linked to. A large folder, or one that the link itself lies in, is
    a project or a program and no setting: a copy at every start would take long, and a part of it would be of no use,
    so nothing of it is taken. Links to folders inside are not followed.
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
    """What lies in a folder, in order, but for what is no setting; not all of it where that is beyond all bounds."""
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, MOST_LOOKS)]
        return [folder / name for name in sorted(names) if name not in _LEFT_OUT]
    return []


def _leads_out(folder: Path, home: Path) -> bool:
    """Whether a link on the way leads to what is shared for real."""
    return not folder.resolve().is_relative_to(home.resolve())
