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
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

_CHUNK = 2**30
_SHARE = 0.5  # of the available memory, for the files
_MOST_WORKERS = 16
_PARTS = 8  # for each worker, so that all have about as much to do


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

        Pages that another program has mapped cannot be dropped. One process for each core does its part: most of the
        time goes into opening files.
        """
        workers = min(_MOST_WORKERS, os.cpu_count() or 1)
        covered = frozenset(os.path.realpath(path) for path in self.covered)
        places = _split(list(_outermost(map(os.path.realpath, self.shown))), covered, workers * _PARTS)
        started: list[tuple[int, socket.socket]] = []
        for first in range(workers):
            started.append(_start(places[first::workers], covered, [end for _, end in started]))
        sizes = [int(end.recv(32) or b"0") for _, end in started]
        fits = sum(sizes) <= _SHARE * _available()
        for _, end in started:
            with suppress(OSError):
                end.sendall(b"1" if fits else b"0")
        for pid, end in started:
            os.waitpid(pid, 0)
            end.close()
        return fits


def _start(
    places: Sequence[str], covered: frozenset[str], others: Iterable[socket.socket]
) -> tuple[int, socket.socket]:
    """Start a process that lists files, says how large they are together, hears whether they fit, and does its part.

    If this process dies, the started one ends: it holds no end of the `others`.
    """
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        for end in (ours, *others):
            end.close()
        files = list(_files(places, covered))
        theirs.sendall(b"%d" % sum(size for _, size in files))
        if word := theirs.recv(1):
            _bring(files, into_memory=word == b"1")
    finally:
        os._exit(0)


def _bring(files: Iterable[tuple[str, int]], into_memory: bool) -> None:
    with open(os.devnull, "wb") as nowhere:
        for path, _ in files:
            with suppress(OSError):
                file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    if into_memory:
                        while os.sendfile(nowhere.fileno(), file, None, _CHUNK):
                            pass
                    else:
                        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(file)


def _split(places: list[str], covered: frozenset[str], count: int) -> list[str]:
    """The places, and in place of large folders what is in them, until there are enough parts or only files."""
    done: list[str] = []
    while places and len(places) + len(done) < count:
        inside: list[str] = []
        for place in places:
            try:
                with os.scandir(place) as entries:
                    inside += [
                        entry.path
                        for entry in entries
                        if (entry.is_dir(follow_symlinks=False) and entry.path not in covered)
                        or entry.is_file(follow_symlinks=False)
                    ]
            except NotADirectoryError:
                done.append(place)
            except OSError:  # gone, or not readable, for a sandbox neither
                continue
        places = inside
    return [*done, *places]


def _files(places: Sequence[str], covered: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Every regular file of these places with its size, once."""
    waiting = list(places)
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
        except OSError:
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
