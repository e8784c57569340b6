"""Finds validation documents that training can read on this machine, whole or in part, by their content.

A sandbox shows an interpreter with its packages, compilers and other parts of the machine. Among them may be copies of
validation text. Compares three lines at a time, without indentation and empty lines, and very long lines alone. Knows
nothing of shards or rows.
"""

import gzip
import json
import os
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from harness import progress, workers

LARGEST_FILE = 2**23
LEAST_SHARE = 0.05
LEAST_CHARACTERS = 2_000
"""A document leaves the pool if this share of its text is visible, or this many characters."""

_LONG_LINE = 200
_PASSAGES, _BYTES_OF_A_PASSAGE = 400_000, 32  # of more passages, a sample is compared
_FILES_AT_ONCE = 2_000
# Libraries, archives, compiled code, pictures, tables of numbers, and headers, which are large and no text.
_OTHER_KINDS = frozenset(
    (
        *(".so", ".a", ".o", ".pyc", ".pyd", ".exe", ".dll", ".cubin", ".fatbin", ".bc", ".jar", ".tar", ".xz"),
        *(".bz2", ".zst", ".png", ".jpg", ".jpeg", ".gif", ".ico", ".svg", ".pdf", ".ttf", ".woff", ".woff2"),
        *(".afm", ".npz", ".npy", ".pt", ".pth", ".bin", ".pkl", ".parquet", ".mat", ".dat", ".mo", ".pem"),
        *(".h", ".hpp", ".hh", ".cuh", ".inl", ".map", ".css"),
    )
)
_ZIPPED = (".zip", ".whl", ".egg")
_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile)

Passage = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Visible:
    """What a sandbox shows.

    Attributes:
        shown: Files and folders.
        covered: Folders inside that appear empty.
    """

    shown: tuple[Path, ...]
    covered: tuple[Path, ...]


def visible(hidden: Iterable[Path]) -> Visible:
    """What training can read: the folders in AUTORESEARCH_VISIBLE, else what the plugin's sandbox shows.

    Without the plugin, this interpreter alone.

    Args:
        hidden: Folders that the sandbox covers because validation text was taken from them.
    """
    folders = tuple(path.resolve() for path in hidden)
    if named := os.environ.get("AUTORESEARCH_VISIBLE"):
        return Visible(tuple(Path(place) for place in named.split(os.pathsep) if place), folders)
    command = [sys.executable, "-m", "pytest_autoresearch.sandboxes.shown", *map(str, folders)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        return Visible(tuple(dict.fromkeys(Path(prefix) for prefix in (sys.prefix, sys.base_prefix))), folders)
    said = json.loads(done.stdout)
    return Visible(tuple(map(Path, said["shown"])), (*map(Path, said["covered"]), *folders))


def exposed(documents: Iterable[str], text_bytes: int, seen: Visible, processes: int) -> tuple[int, ...]:
    """The numbers of the documents that are visible, whole or in part, in ascending order.

    Args:
        documents: Validation documents, in order.
        text_bytes: About how much text they are.
        seen: What training can read.
        processes: Number of worker processes.
    """
    every = max(1, text_bytes // (_BYTES_OF_A_PASSAGE * _PASSAGES))
    places: dict[Passage, list[int]] = {}
    whole: Counter[int] = Counter()
    for number, document in enumerate(documents):
        for passage in _passages(document.encode(), every):
            places.setdefault(passage, []).append(number)
            whole[number] += _size(passage)
    found: set[Passage] = set()
    paths = list(_files(seen))
    tasks = [paths[start : start + _FILES_AT_ONCE] for start in range(0, len(paths), _FILES_AT_ONCE)]
    with progress.counted("comparing with the files that training can read", len(paths)) as advance:

        def take(result: tuple[int, set[Passage]]) -> None:
            advance(result[0])
            found.update(result[1])

        workers.each(partial(_search, frozenset(places), every), tasks, take, processes=min(processes, len(tasks) // 4))
    shown: Counter[int] = Counter()
    for passage in found:
        for number in places[passage]:
            shown[number] += _size(passage)
    left_out = [
        number
        for number, size in shown.items()
        if size >= LEAST_SHARE * whole[number] or size * every >= LEAST_CHARACTERS
    ]
    return tuple(sorted(left_out))


def _search(wanted: frozenset[Passage], every: int, paths: list[str]) -> tuple[int, set[Passage]]:
    """The number of these files, and the wanted passages in them."""
    found: set[Passage] = set()
    for path in paths:
        for text in _contents(path):
            found |= wanted.intersection(_passages(text, every))
    return len(paths), found


def _passages(text: bytes, every: int) -> Iterator[Passage]:
    """Three consecutive lines each, and each very long line; on request only one in `every`, chosen by its content."""
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line]
    found = chain(
        zip(lines, lines[1:], lines[2:], strict=False), ((line,) for line in lines if len(line) >= _LONG_LINE)
    )
    return (passage for passage in found if zlib.crc32(passage[0]) % every == 0) if every > 1 else found


def _size(passage: Passage) -> int:
    """The characters that a passage stands for: its first line."""
    return len(passage[0])


def _files(seen: Visible) -> Iterator[str]:
    """The files of text that a sandbox shows, each once."""
    covered = {os.path.realpath(path) for path in seen.covered}
    for top in _outermost(map(os.path.realpath, seen.shown)):
        if os.path.isfile(top):
            yield top
        for place, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name != "__pycache__" and f"{place}/{name}" not in covered]
            yield from (f"{place}/{name}" for name in names if _may_be_text(name))


def _outermost(places: Iterable[str]) -> Iterator[str]:
    """The paths that are not inside another one."""
    last = ""
    for place in sorted(set(places), key=lambda path: path.split("/")):
        if not last or not place.startswith(f"{last}/"):
            last = place
            yield place


def _may_be_text(name: str) -> bool:
    return os.path.splitext(name)[1].lower() not in _OTHER_KINDS and ".so." not in name


def _contents(path: str) -> Iterator[bytes]:
    """The text of a file, or of each file in an archive."""
    try:
        if path.endswith(_ZIPPED):
            with zipfile.ZipFile(path) as archive:
                members = (one for one in archive.infolist() if one.file_size <= LARGEST_FILE)
                yield from (archive.read(one) for one in members if _may_be_text(one.filename))
        elif path.endswith(".gz"):
            with gzip.open(path) as file:
                yield file.read(LARGEST_FILE)
        else:
            yield _content(path)
    except _UNREADABLE:
        return


def _content(path: str) -> bytes:
    """A file's content; nothing if it is not text, too large, or not readable."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        start = os.read(file, 4096)
        if b"\0" in start or os.fstat(file).st_size > LARGEST_FILE:
            return b""
        return start + os.read(file, LARGEST_FILE) if len(start) == 4096 else start
    except OSError:
        return b""
    finally:
        os.close(file)
