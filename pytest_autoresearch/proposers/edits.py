"""Exact edits: pieces of text that are replaced where they stand, and whole files; all of them or none.

Deciding what the files become is pure: it is told what they hold. Beside it is the little that reads and writes a
folder in the same terms, where a line ends with a line feed alone and no link is followed. Knows nothing of who edits.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pytest_autoresearch.source.guard import is_editable

_SHOWN_LINES = 12
_SHOWN_CHARACTERS = 1200  # of the lines that an edit may have meant
_SHOWN_PROBLEMS = 4


@dataclass(frozen=True, slots=True)
class TextEdit:
    """The text `old`, which stands exactly once in the file, becomes `new`."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file that becomes `text`, whether it was there or not."""

    path: str
    text: str


class EditError(Exception):
    """An edit is not possible; the text says which and why, for whoever made it."""


def rewritten(
    edits: Sequence[TextEdit],
    files: Sequence[WholeFile],
    editable: tuple[str, ...],
    read: Callable[[str], str | None],
) -> dict[str, str]:
    """What the files become, by path; the edits of one file apply in their order.

    Args:
        editable: The paths that may change, relative to the folder.
        read: What a file holds now, or None where there is none. Raises EditError where it is no plain file.

    Raises:
        EditError: Something cannot be done, and then nothing is.
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
                raise EditError("the file is given as a whole too: do one or the other")
            texts[path] = _edited(edit, texts[path] if path in texts else read(path))
        except EditError as error:
            problems.append(f"edit {number} of {_shown(edit.path)}: {error}")
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        said = [*problems[:_SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        raise EditError("\n".join(said))
    return texts


def _edited(edit: TextEdit, text: str | None) -> str:
    """The text with one edit made."""
    if text is None:
        raise EditError("there is no such file; a new one is given as a whole, in files")
    old, new = edit.old.replace("\r\n", "\n"), _sound(edit.new)
    if not old:
        raise EditError("the old text is empty; a file that is written anew is given as a whole, in files")
    if old == new:
        raise EditError("the old text and the new one are the same")
    at = text.find(old)
    if at < 0:
        raise EditError(f"the old text does not occur; {_nearest(text, old)}")
    if text.find(old, at + 1) >= 0:
        raise EditError(f"the old text occurs {_times(text, old)} times; add the lines around it")
    return text[:at] + new + text[at + len(old) :]


def _times(text: str, old: str) -> int:
    """How often it occurs, where occurrences may overlap."""
    count, at = 0, text.find(old)
    while at >= 0:
        count, at = count + 1, text.find(old, at + 1)
    return count


def _nearest(text: str, old: str) -> str:
    """The lines of the file that may have been meant."""
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
            return "nothing in the file is like it"
        start = plain.index(close[0])
    shown = "\n".join(lines[start : start + min(len(wanted), _SHOWN_LINES)])[:_SHOWN_CHARACTERS]
    return f"the nearest lines are, from line {start + 1} on:\n{shown}"


def _checked(path: str, editable: tuple[str, ...]) -> str:
    """The path in its plain form."""
    plain = PurePosixPath(path)
    if not path.isprintable() or "\\" in path or plain.is_absolute() or ".." in plain.parts or not plain.parts:
        raise EditError("it is no path inside the folder")
    if not is_editable(str(plain), editable):
        raise EditError(f"it may not change; {', '.join(editable)} may")
    return str(plain)


def _sound(text: str) -> str:
    """Text that a file can hold, its lines ending with a line feed."""
    if any("\ud800" <= letter <= "\udfff" for letter in text) or "\0" in text:
        raise EditError("the new text holds a character that no text file holds")
    return text.replace("\r\n", "\n")


def _shown(path: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in path[:100]) or "no path"


# --------------------------------------------------------------------------------------------- the folder itself


def read_text(folder: Path, path: str) -> str | None:
    """What a file of the folder holds, None where there is none; bytes that are no UTF-8 stay as they are.

    Raises:
        EditError: There is something else than a file, or a link on the way to it.
    """
    here = folder
    for part in PurePosixPath(path).parts:
        if here != folder and here.exists() and not here.is_dir():
            raise EditError(f"{here.relative_to(folder).as_posix()} is no folder")
        here /= part
        if here.is_symlink():
            raise EditError("it is a link, or lies behind one; only plain files may change")
    if not here.exists():
        return None
    if not here.is_file():
        raise EditError("it is no plain file")
    return here.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Put texts that `read_text` allowed into the folder; a file whose lines ended otherwise keeps its way."""
    for path, text in texts.items():
        file = folder / path
        before = file.read_bytes() if file.exists() else b""
        if before.count(b"\r\n") > before.count(b"\n") / 2:
            text = text.replace("\n", "\r\n")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
