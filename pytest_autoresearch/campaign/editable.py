"""The editable files of the user's checkout, as git sees them: in a commit, in an index, on the disk.

Files are compared by mode and blob, as `git add` would store them, so the user's line ends and filters make no
difference. Reading uses a temporary index. Only `move_index` writes the user's index, and only `bring` writes files.
Knows nothing of experiments.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from pytest_autoresearch.core.errors import MergeConflict
from pytest_autoresearch.ledger.git import DIFF, PATCH, Git
from pytest_autoresearch.ledger.merge import merge
from pytest_autoresearch.proposers.checkout import Edit
from pytest_autoresearch.source.editable import Editable

Files = dict[str, str]  # path, from the repository's top: mode and blob

_WHOLE = ("-c", "core.splitIndex=false")  # a split temporary index would leave a file in the user's git folder


@dataclass(frozen=True, slots=True)
class Working:
    """The files on the disk.

    Attributes:
        files: Every file.
        looks: The metadata of each file just before it was read, to detect later edits; None if the file is missing.
    """

    files: Files
    looks: dict[str, tuple[int, ...] | None]


class EditableFiles:
    """The editable files of one checkout.

    Args:
        git: Git in the checkout's top folder.
        editable: The files, relative to the top.
    """

    def __init__(self, git: Git, editable: Editable) -> None:
        self._git = git
        self._editable = editable

    # ------------------------------------------------------------------------------------------------ looking

    def committed(self, commit: str) -> Files:
        """The editable files of a commit."""
        said = self._git("ls-tree", "-r", "-z", "--full-tree", commit, "--", *self._where())
        rows = (row.partition("\t") for row in said.split("\0") if row)
        return {path: " ".join(head.split()[::2]) for head, _, path in rows if self.has(path)}

    def indexed(self, git: Git) -> Files:
        """The editable files of git's index; a file in conflict equals no other."""
        said = git("ls-files", "-z", "--stage", "--", *self._where())
        rows = (row.partition("\t") for row in said.split("\0") if row)
        return {
            path: head.removesuffix(" 0") if head.endswith(" 0") else "in conflict"
            for head, _, path in rows
            if self.has(path)
        }

    def working(self, commit: str) -> Working:
        """The editable files on the disk, looked up by their names on the disk and in the commit."""
        with self.scratch(commit) as git:
            looks = self._take_in(git)
            return Working(self.indexed(git), looks)

    def distances(self, commits: Iterable[str]) -> dict[str, int]:
        """How many lines and files on the disk differ from each commit."""
        found = {}
        with self.scratch("HEAD") as git:
            self._take_in(git)
            for commit in commits:
                rows = [row for row in self._counts(git, commit) if self.has(row[2])]
                found[commit] = sum(1 + _count(row[0]) + _count(row[1]) for row in rows)
        return found

    def edit(self, commit: str) -> Edit | None:
        """The changes against the commit, staged or not; None if there are none."""
        with self.scratch(commit) as git:
            self._take_in(git)
            patch = git.run("diff-index", "--cached", *PATCH, commit)
            rows = self._counts(git, commit)
            files, tree = self.indexed(git), git("write-tree")
        if not patch:
            return None
        added, removed = (sum(_count(row[side]) for row in rows) for side in (0, 1))
        return Edit(commit, tree, patch, tuple(row[2] for row in rows), added, removed, files)

    def _counts(self, git: Git, commit: str) -> list[list[str]]:
        """The lines added and removed since the commit, and the path, of every changed file in git's index."""
        said = git("diff-index", "--cached", *DIFF, "--numstat", "-z", commit)
        return [row.split("\t", 2) for row in said.split("\0") if row]

    @contextlib.contextmanager
    def scratch(self, commit: str) -> Iterator[Git]:
        """Git on a temporary index, which holds the commit."""
        with tempfile.TemporaryDirectory() as folder:
            git = self._git.on_index(Path(folder, "index"))
            git(*_WHOLE, "read-tree", commit)
            yield git

    def _take_in(self, git: Git) -> dict[str, tuple[int, ...] | None]:
        """Add the files on the disk to git's index, as `git add` would; returns their metadata just before that."""
        listed = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *self._where())
        paths = {path for path in listed.split("\0") if self.has(path)} | set(self.indexed(git))
        looks = {path: _look(self._git.folder / path) for path in paths}
        command = ("update-index", "--add", "--remove", "--replace", "-z", "--stdin")
        git(*_WHOLE, "-c", "core.safecrlf=false", *command, stdin="".join(f"{path}\0" for path in paths))
        return looks

    def _where(self) -> list[str]:
        """Pathspecs of the folders that can contain the files, so that git need not search a large repository."""
        places = (PurePosixPath(*_plain_parts(pattern)).as_posix() for pattern in self._editable)
        return [f":(literal){place}" if place != "." else ":(top)" for place in places]

    def has(self, path: str) -> bool:
        """Whether the path, from the repository's top, is one of the files."""
        return path in self._editable

    # ------------------------------------------------------------------------------------------------ writing

    def merge(self, git: Git, edit: Edit, head: str) -> bool:
        """Merge the edit into the head in git's index; on failure the index stays. Returns the success."""
        try:
            tree = merge(git, edit.base, head, edit.tree)
        except MergeConflict:
            return False
        git(*_WHOLE, "read-tree", tree)
        return True

    def bring(self, git: Git, now: Working, known: list[Files]) -> list[str]:
        """Make the working files equal to git's index, except files with unknown content.

        Args:
            git: Git on a scratch index.
            now: The working files.
            known: Contents that may be overwritten.

        Returns:
            The files that were left unchanged, because their content is not in `known` or changed meanwhile.
        """
        target = self.indexed(git)
        due = [path for path in sorted({*now.files, *target}) if now.files.get(path) != target.get(path)]
        left = [
            path for path in due
            if all(files.get(path) != now.files.get(path) for files in known) or not _is_plain(target.get(path))
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            written = "".join(f"{path}\0" for path in due if path in target and path not in left)
            git("checkout-index", "--quiet", "--force", f"--prefix={folder}/", "-z", "--stdin", stdin=written)
            for path in (path for path in due if path not in left):
                whole = self._git.folder / path
                if _look(whole) != now.looks[path]:  # edited since it was read
                    left.append(path)
                elif path in target:
                    _replace(Path(folder, path), whole)
                else:
                    whole.unlink()
        return left

    def move_index(self, head: str, known: list[Files]) -> None:
        """Make the editable files in the user's index equal to the head, except entries that are not in `known`."""
        target, index = self.committed(head), self.indexed(self._git)
        nothing, gone = self._git("hash-object", "--stdin"), f"0 {'0' * len(head)}"  # `git add -N` makes empty entries
        lines = [
            f"{target.get(path, gone)}\t{path}\0"
            for path, entry in {**dict.fromkeys(target), **index}.items()
            if entry != target.get(path)
            and (any(files.get(path) == entry for files in known) or (entry or "").endswith(nothing))
        ]
        if lines:
            self._git("update-index", "-z", "--index-info", stdin="".join(lines))
        there = "".join(f"{path}\0" for path, entry in self.indexed(self._git).items() if entry == target.get(path))
        if there:
            command = ("add", "--refresh", "--pathspec-from-file=-", "--pathspec-file-nul")
            self._git("--literal-pathspecs", *command, stdin=there)


def _count(lines: str) -> int:
    """A number of lines; a binary file has a dash."""
    return int(lines) if lines.isdecimal() else 0


def _is_plain(entry: str | None) -> bool:
    return entry is None or entry.startswith("100")


def _plain_parts(pattern: str) -> list[str]:
    """The parts of the pattern before the first glob."""
    return list(takewhile(lambda part: not set(part) & set("*?["), PurePosixPath(pattern).parts))


def _look(path: Path) -> tuple[int, ...] | None:
    """Metadata that changes when the file is written; None if the file is missing."""
    try:
        seen = path.lstat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_mode


def _replace(source: Path, target: Path) -> None:
    """Replace the target's content atomically; take the source's mode only if exactly one of them is executable."""
    mode = stat.S_IMODE(source.stat().st_mode)
    if target.exists() and (target.stat().st_mode ^ mode) & stat.S_IXUSR == 0:
        mode = stat.S_IMODE(target.stat().st_mode)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with part.open("wb") as file:
        file.write(source.read_bytes())
        file.flush()
        os.fsync(file.fileno())
    part.chmod(mode)
    part.replace(target)
