"""Exact edits: replacements of text in files, and whole files; all of them are made or none.

Computing the new texts is pure. Below it are two functions that read and write a folder: texts use line feeds alone,
and no link is followed. Knows nothing of who edits.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pytest_autoresearch.source.editable import Editable

_SHOWN_LINES = 12
_SHOWN_CHARACTERS = 1200  # of the lines nearest to an old text that was not found
_SHOWN_PROBLEMS = 4


@dataclass(frozen=True, slots=True)
class TextEdit:
    """Replaces the text `old`, which must occur exactly once in the file, with `new`."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class WholeFile:
    """Writes `text` as the whole file, new or existing."""

    path: str
    text: str


class EditError(Exception):
    """An edit is not possible; the text says which and why, for the editor."""


def rewritten(
    edits: Sequence[TextEdit],
    files: Sequence[WholeFile],
    editable: Editable,
    read: Callable[[str], str | None],
) -> dict[str, str]:
    """The new texts of the files, by path. The edits of one file are applied in order.

    Args:
        editable: The files that may change, relative to the folder.
        read: Gives a file's current text, or None if there is no file. Raises EditError if it is not a plain file.

    Raises:
        EditError: An edit is not possible; none is made.
    """
    if not edits and not files:
        raise EditError("there are neither edits nor files: give at least one")
    problems: list[str] = []
    texts: dict[str, str] = {}
    for number, file in enumerate(files, 1):
        where = f"file {number}, {_shown(file.path)}"
        try:
            path = _checked(file.path, editable)
            if path in texts:
                raise EditError("it is given twice")
            read(path)
            texts[path] = _sound(file.text)
        except EditError as error:
            problems.append(f"{where}: {error}")
    whole = set(texts)
    for number, edit in enumerate(edits, 1):
        try:
            path = _checked(edit.path, editable)
            if path in whole:
                raise EditError("the file is also given as a whole: do one or the other")
            texts[path] = _edited(edit, texts[path] if path in texts else read(path))
        except EditError as error:
            problems.append(f"edit {number} of {_shown(edit.path)}: {error}")
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        said = [*problems[:_SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        raise EditError("\n".join(said))
    return texts


def _edited(edit: TextEdit, text: str | None) -> str:
    """The text after one edit."""
    if text is None:
        raise EditError("there is no such file; give a new file as a whole, in files")
    old, new = edit.old.replace("\r\n", "\n"), _sound(edit.new)
    if not old:
        raise EditError("the old text is empty; to rewrite a file, give it as a whole, in files")
    if old == new:
        raise EditError("the old text and the new text are the same")
    at = text.find(old)
    if at < 0:
        raise EditError(f"the old text does not occur; {_nearest(text, old)}")
    if text.find(old, at + 1) >= 0:
        raise EditError(f"the old text occurs {_times(text, old)} times; add the lines around it")
    return text[:at] + new + text[at + len(old) :]


def _times(text: str, old: str) -> int:
    """The number of occurrences, including overlapping ones."""
    count, at = 0, text.find(old)
    while at >= 0:
        count, at = count + 1, text.find(old, at + 1)
    return count


def _nearest(text: str, old: str) -> str:
    """The lines of the file that are most similar to the old text."""
    lines, wanted = text.splitlines(), old.strip("\n").splitlines()
    plain, asked = [line.strip() for line in lines], [line.strip() for line in wanted]
    matcher = difflib.SequenceMatcher(None, plain, asked, autojunk=False)
    same = max((block for block in matcher.get_matching_blocks() if any(asked[block.b : block.b + block.size])),
               key=lambda block: block.size, default=None)  # fmt: skip
    if same is not None:
        start = max(0, same.a - same.b)
    else:
        first = next((line for line in asked if line), "")
        close = difflib.get_close_matches(first, plain, n=1, cutoff=0.5) if first else []
        if not close:
            return "the file has no similar lines"
        start = plain.index(close[0])
    shown = "\n".join(lines[start : start + min(len(wanted), _SHOWN_LINES)])[:_SHOWN_CHARACTERS]
    return f"the most similar lines, from line {start + 1}:\n{shown}"


def _checked(path: str, editable: Editable) -> str:
    """The normalised path.

    Raises:
        EditError: The path is outside the folder or not editable.
    """
    plain = PurePosixPath(path)
    if not path.isprintable() or "\\" in path or plain.is_absolute() or ".." in plain.parts or not plain.parts:
        raise EditError("it is not a path inside the folder")
    if plain not in editable:
        raise EditError(f"it may not change; {', '.join(editable)} may")
    return str(plain)


def _sound(text: str) -> str:
    """The text with line feeds alone.

    Raises:
        EditError: A text file cannot hold it.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text) or "\0" in text:
        raise EditError("the new text has a character that a text file cannot hold")
    return text.replace("\r\n", "\n")


def _shown(path: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in path[:100]) or "no path"


# --------------------------------------------------------------------------------------------- the folder itself


def read_text(folder: Path, path: str) -> str | None:
    """The text of a file in the folder, None if there is no file; bytes that are not UTF-8 are preserved.

    Raises:
        EditError: The path is not a plain file, or leads through a link.
    """
    here = folder
    for part in PurePosixPath(path).parts:
        if here != folder and here.exists() and not here.is_dir():
            raise EditError(f"{here.relative_to(folder).as_posix()} is not a folder")
        here /= part
        if here.is_symlink():
            raise EditError("it is a link or behind a link; only plain files may change")
    if not here.exists():
        return None
    if not here.is_file():
        raise EditError("it is not a plain file")
    return here.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts that `read_text` allowed into the folder; a file with CRLF line ends keeps them."""
    for path, text in texts.items():
        file = folder / path
        before = file.read_bytes() if file.exists() else b""
        if before.count(b"\r\n") > before.count(b"\n") / 2:
            text = text.replace("\n", "\r\n")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
