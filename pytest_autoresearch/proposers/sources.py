"""The editable files as text for a language model: whole files, each in a fence.

Reads and never writes. Links and files that are not text or too large are named, not shown.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pytest_autoresearch.proposers.quoting import fenced, line
from pytest_autoresearch.source.editable import Editable, is_trusted
from pytest_autoresearch.source.guard import MOST_BYTES

_MOST_NAMED = 20  # of the files that are not shown


def sources(folder: Path, editable: Editable) -> str:
    """Every editable file in the folder, path and text, sorted by path.

    Args:
        editable: The files that may change, relative to the folder.
    """
    shown, left_out, room = [], [], MOST_BYTES
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name not in editable:
            continue
        text, why = _text(path, room)
        if why:
            left_out.append(f"{line(name, 200)}: {why}")
        else:
            room -= len(text.encode())
            shown.append(fenced(name, text))
    if left_out:
        more = [f"and {len(left_out) - _MOST_NAMED} more"] if len(left_out) > _MOST_NAMED else []
        shown.append(fenced("files that are not shown", "\n".join(left_out[:_MOST_NAMED] + more)))
    return "\n\n".join(shown) or "There are no files yet: add one."


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_trusted(name))
        yield from (Path(here, name) for name in sorted(names))


def _text(path: Path, room: int) -> tuple[str, str]:
    """A file's text, or the reason why it is not shown."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):  # a link may lead out of the tree, to the user's own files
            return "", "not a plain file"
        if status.st_size > MOST_BYTES:
            return "", f"too large, {status.st_size:,} bytes"
        text = path.read_bytes().decode()
    except OSError as error:
        return "", f"unreadable, {error.strerror}"
    except UnicodeDecodeError:
        return "", "not UTF-8 text"
    if "\0" in text:
        return "", "not text"
    if status.st_size > room:
        return "", f"no room left for its {status.st_size:,} bytes"
    return text, ""
