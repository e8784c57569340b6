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
from pathlib import Path

MOST_BYTES, MOST_FILE_BYTES, MOST_FILES = 64 * 2**20, 8 * 2**20, 5000
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
        settings: Files and folders to copy, by where they go, relative to the home folder. The first come first, and
            what lies beyond the bounds is left out.
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
    for name, source in settings.items():
        for path, size in _to_copy(source):
            to = home / name / path.relative_to(source)
            if files >= MOST_FILES or size > left or os.path.lexists(to) or _leads_out(to.parent, home):
                continue
            with suppress(OSError):
                to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.copy(path, to)
                files, left = files + 1, left - size


def remove(folder: Path) -> None:
    """Leave nothing of a folder that an agent could write to, however deep it is and whatever its modes say."""
    # Not shutil.rmtree, which ends at a thousand folders within each other.
    commands = (["rm", "-rf", "--"], ["chmod", "-R", "u+rwx", "--"], ["rm", "-rf", "--"])
    for command in commands:
        if not os.path.lexists(folder):
            return
        subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL, check=False)


def _to_copy(source: Path) -> Iterator[tuple[Path, int]]:
    """The files of one setting with their sizes, those of outer folders first. The user's own links are followed."""
    waiting, entered = deque([source]), set()
    while waiting:
        path = waiting.popleft()
        with suppress(OSError):
            look = path.stat()
            if stat.S_ISDIR(look.st_mode):
                if look.st_ino not in entered:  # links may lead around
                    entered.add(look.st_ino)
                    waiting += [path / name for name in sorted(os.listdir(path)) if name not in _LEFT_OUT]
            elif stat.S_ISREG(look.st_mode) and look.st_size <= MOST_FILE_BYTES and not path.name.endswith(".log"):
                yield path, look.st_size


def _leads_out(folder: Path, home: Path) -> bool:
    """Whether a link on the way leads to what is shared for real."""
    return not folder.resolve().is_relative_to(home.resolve())
