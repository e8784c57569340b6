"""Three-way merges in which a line that one side left alone stays as the other side has it.

Git's own merge calls changes of neighbouring lines a conflict, so two constants below each other would not merge. Here
git finds the changed lines, and changes of different lines are all made. Works on trees and blobs; knows no worktree.
"""

from __future__ import annotations

import re
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from pytest_autoresearch.core.errors import MergeConflict
from pytest_autoresearch.ledger.git import DIFF, Git

_HEAD = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_REGULAR = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class _Change:
    """Lines `start` to `end` of a text, exclusive, are replaced by `lines`."""

    start: int
    end: int
    lines: tuple[bytes, ...]

    @property
    def _resizes(self) -> bool:
        return self.end - self.start != len(self.lines)

    def overlaps(self, other: _Change) -> bool:
        """Whether both change the same line."""
        return self.start < other.end and other.start < self.end

    def meets(self, other: _Change) -> bool:
        """Whether both change the same line, or add or remove lines at the same place."""
        touches = self.start <= other.end and other.start <= self.end
        return self.overlaps(other) or (touches and self._resizes and other._resizes)


def merge(git: Git, base: str, ours: str, theirs: str, *, theirs_wins: bool = False) -> str:
    """The tree of `ours` with the changes from `base` to `theirs`.

    Args:
        git: Git in the repository; its index and its files are not used.
        theirs_wins: Whether theirs is taken where both changed the same line; else that is a conflict.

    Raises:
        MergeConflict: Both changed the same line, or one deleted what the other changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = git.on_index(Path(folder, "index"))
        index("read-tree", "-i", "-m", "--aggressive", base, ours, theirs)
        sides: dict[str, dict[int, tuple[str, str]]] = {}
        for row in filter(None, index("ls-files", "--unmerged", "-z").split("\0")):
            head, _, path = row.partition("\t")
            mode, blob, stage = head.split()
            sides.setdefault(path, {})[int(stage)] = (mode, blob)
        entries = {path: _merged(git, path, found, theirs_wins) for path, found in sides.items()}
        gone = f"0 {'0' * len(git('rev-parse', f'{ours}^{{tree}}'))}"
        lines = "".join(f"{gone}\t{path}\0{entry}\t{path}\0" for path, entry in entries.items())
        if lines:
            index("update-index", "-z", "--index-info", stdin=lines)
        return index("write-tree")


def undone(git: Git, steps: Mapping[str, tuple[str, str]], head: str, candidate: str) -> list[str]:
    """The names of the steps of which the candidate takes back a line.

    Args:
        git: Git in the repository.
        steps: Two commits or trees for each name, before and after; all of them led to the head.
        head: The commit or tree that the candidate changes.
        candidate: The commit or tree with the change.
    """
    made = {path: (now, set(_changes(git, now, then))) for path, (now, then) in _changed(git, head, candidate).items()}
    lines = {change.lines for _, changes in made.values() for change in changes}
    found = []
    for name, (before, after) in steps.items():
        for path, (old, new) in _changed(git, before, after).items():
            now, here = made.get(path, ("", set()))
            backwards = [change for change in _changes(git, new, old) if change.lines in lines] if now else []
            later = _changes(git, new, now) if backwards else []
            if any(_moved(change, later) in here for change in backwards):
                found.append(name)
                break
    return found


def _merged(git: Git, path: str, sides: dict[int, tuple[str, str]], theirs_wins: bool) -> str:
    """Mode and blob of the merged file."""
    if theirs_wins and sides.keys() == {2, 3}:
        return " ".join(sides[3])
    if len(sides) < 3 or any(mode not in _REGULAR for mode, _ in sides.values()):
        raise MergeConflict(path)
    (mode, base), (our_mode, ours), (their_mode, theirs) = sides[1], sides[2], sides[3]
    mode = our_mode if their_mode == mode else their_mode
    text = _lines(git, base)
    merged = _joined(path, text, _changes(git, base, ours), _changes(git, base, theirs), theirs_wins)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "merged")
        file.write_bytes(merged)
        return f"{mode} {git('hash-object', '-w', '--no-filters', str(file))}"


def _joined(
    path: str, text: Sequence[bytes], ours: Sequence[_Change], theirs: Sequence[_Change], theirs_wins: bool
) -> bytes:
    """The text with both sides' changes; at the same place, the lines that ours adds come first.

    Raises:
        MergeConflict: Two different changes meet.
    """
    same = set(ours) & set(theirs)
    kept = []
    conflicts = []
    for change in ours:
        against = [other for other in _near(theirs, change) if other.meets(change) and other not in same]
        if change in same or not against or (theirs_wins and not any(other.overlaps(change) for other in against)):
            kept.append(change)
        elif not theirs_wins:
            conflicts.append((_said(change), _said(against[0])))
    if conflicts:
        raise MergeConflict(path, conflicts)
    merged: list[bytes] = []
    at = 0
    for change in sorted([*kept, *(one for one in theirs if one not in same)], key=lambda one: (one.start, one.end)):
        merged += [*text[at : change.start], *change.lines]
        at = change.end
    return b"".join([*merged, *text[at:]])


def _said(change: _Change) -> str:
    """The first line of the change, for people."""
    return next(iter(change.lines), b"").decode("utf-8", "replace").strip()


def _near(changes: Sequence[_Change], change: _Change) -> Iterator[_Change]:
    """Those of the changes, ordered by place, that touch the place of the change."""
    first = bisect_left(changes, change.start, key=lambda one: one.end)
    return takewhile(lambda one: one.start <= change.end, islice(changes, first, None))


def _moved(change: _Change, later: Sequence[_Change]) -> _Change | None:
    """The change after later changes of the same text; None if one of them changed the same lines."""
    if any(other.meets(change) for other in _near(later, change)):
        return None
    shift = sum(len(other.lines) - (other.end - other.start) for other in later if other.end <= change.start)
    return _Change(change.start + shift, change.end + shift, change.lines)


def _changes(git: Git, old: str, new: str) -> list[_Change]:
    """The changed lines between two blobs; where as many lines replace others, each line is a change of its own."""
    if old == new:
        return []
    after = _lines(git, new)
    found = []
    for row in git.run("diff", *DIFF, "--text", "--unified=0", "--inter-hunk-context=0", old, new).split(b"\n"):
        if known := _HEAD.match(row):
            start, count, there, more = (1 if one is None else int(one) for one in known.groups())
            first, then = start - bool(count), there - bool(more)  # git counts from 1; nothing stands behind its line
            lines = tuple(after[then : then + more])
            if count == more:
                found += [_Change(first + n, first + n + 1, lines[n : n + 1]) for n in range(count)]
            else:
                found.append(_Change(first, first + count, lines))
    return found


def _changed(git: Git, old: str, new: str) -> dict[str, tuple[str, str]]:
    """The blobs of the files that both trees have with different contents, by path."""
    fields = git("diff-tree", "-r", "-z", "--no-renames", "--diff-filter=M", old, new).split("\0")
    return {path: (head.split()[2], head.split()[3]) for head, path in zip(fields[0::2], fields[1::2], strict=False)}


def _lines(git: Git, blob: str) -> list[bytes]:
    """The lines of a blob with their ends; a line ends with a line feed alone."""
    *whole, last = git.run("cat-file", "blob", blob).split(b"\n")
    return [*(line + b"\n" for line in whole), *([last] if last else [])]
