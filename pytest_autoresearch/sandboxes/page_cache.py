"""The kernel's page cache of the files that several sandboxes see: brought into one state, whatever was read.

A page that is in memory is read faster than one on the disk, and any process can see or change which are. So a model
server, which has seen validation text, could leave a message for a process that must not see any. After each server,
all pages are read; if they do not fit into memory, all are dropped.

A script, for a scorer that starts several servers: `page_cache.py VIEW`, with the view as JSON. Imports nothing of this
package.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

_CHUNK = 2**30
_SHARE = 0.5  # of the available memory, for the files


@dataclass(frozen=True, slots=True)
class View:
    """The files that several sandboxes see.

    Attributes:
        shown: Files and folders.
        covered: Folders inside that nobody sees.
    """

    shown: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()

    def restore(self) -> bool:
        """Bring every page into memory, or drop every page if there is too little; returns whether they are in memory.

        Pages that another program has mapped cannot be dropped.
        """
        files = list(_files(self))
        fits = sum(size for _, size in files) <= _SHARE * _available()
        with open(os.devnull, "wb") as nowhere:
            for path, _ in files:
                with suppress(OSError):
                    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                    try:
                        if fits:
                            while os.sendfile(nowhere.fileno(), file, None, _CHUNK):
                                pass
                        else:
                            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    finally:
                        os.close(file)
        return fits


def _files(view: View) -> Iterator[tuple[str, int]]:
    """Every regular file of a view with its size, once."""
    covered = {os.path.realpath(path) for path in view.covered}
    waiting = list(_outermost(map(os.path.realpath, view.shown)))
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting += [entry.path] if entry.path not in covered else []
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path, entry.stat(follow_symlinks=False).st_size
        except NotADirectoryError:
            yield place, os.stat(place).st_size
        except OSError:  # gone, or not readable, for a sandbox neither
            continue


def _outermost(places: Iterable[str]) -> Iterator[str]:
    """The paths that are not inside another one."""
    last = ""
    for place in sorted(set(places), key=lambda path: path.split("/")):
        if not last or not place.startswith(f"{last}/"):
            last = place
            yield place


def _available() -> int:
    """Bytes of memory that processes can still use, also for the page cache."""
    with open("/proc/meminfo", encoding="ascii") as file:
        facts = dict(line.split(":", 1) for line in file)
    return int(facts["MemAvailable"].split()[0]) * 1024


def main(said: str) -> None:
    """Restore the view, a JSON object with the lists `shown` and `covered`."""
    view = json.loads(said)
    View(tuple(view["shown"]), tuple(view["covered"])).restore()


if __name__ == "__main__":
    main(sys.argv[1])
