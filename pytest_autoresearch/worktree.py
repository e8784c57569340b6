"""A lane's own tree: where a proposal is edited, committed and trained, while the user's checkout stays as it is."""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.errors import GitError
from pytest_autoresearch.git import Git

_REGULAR = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class Change:
    """One path that a proposal changed.

    Attributes:
        path: Relative to the repository's top, with slashes.
        kind: `A`dded, `M`odified, `D`eleted or `T`ype changed.
        regular: Whether it is a plain file afterwards, with the mode it had before.
    """

    path: str
    kind: str
    regular: bool


class Worktree:
    """A git worktree that one lane of one session holds.

    Attributes:
        top: The worktree's own folder.
        folder: The same place inside it as pytest's root inside the user's checkout; training starts here.
        out: The folder for what training leaves behind, beside the worktree.
    """

    def __init__(self, repository: Git, top: Path, prefix: Path, lock: int) -> None:
        self._repository = repository
        self._lock = lock
        self.top = top
        self.folder = top / prefix
        self.out = top.with_name(f"{top.name}-out")
        self.git = repository.at(top, raw=True)
        self._git_folder = top / ".git"

    @classmethod
    def claim(cls, repository: Git, home: Path, prefix: Path, lane: int) -> Worktree:
        """The first of the lane's trees that no living session holds, made where it is missing."""
        home.mkdir(parents=True, exist_ok=True)
        for turn in range(1000):
            name = f"lane-{lane}" + (f"-{turn}" if turn else "")
            lock = os.open(home / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            tree = cls(repository, home / name, prefix, lock)
            tree._make()
            return tree
        raise GitError(f"a thousand sessions hold the trees of lane {lane} in {home}")

    def _make(self) -> None:
        if not self._is_ours():
            if self.top.is_symlink():
                self.top.unlink()
            shutil.rmtree(self.top, ignore_errors=True)
            self._repository("worktree", "add", "--force", "--detach", "--no-checkout", str(self.top), "HEAD")
        # A candidate can write to the tree. Were git to look for its folder there, or above it, it could be led to the
        # user's checkout, and reset that.
        self._git_folder = Path(self.git("rev-parse", "--absolute-git-dir"))
        self.git.bind(self._git_folder)
        self.git.without_filters()
        # The lane is held by this process, so a lock in it was left by a git that is dead.
        for lock in self._git_folder.glob("*.lock"):
            lock.unlink()

    def _is_ours(self) -> bool:
        """Whether the folder is the worktree that this very repository knows by its place.

        It is not where the repository was copied, nor where a candidate has made its `.git` name another git folder.
        """
        said = self.git.ask("rev-parse", "--absolute-git-dir")
        if said is None or self.top.is_symlink():
            return False
        common = Path(self._repository("rev-parse", "--path-format=absolute", "--git-common-dir"))
        place = Path(said, "gitdir")
        return (
            Path(said).parent == common / "worktrees"
            and place.is_file()
            and place.read_text("utf-8", "surrogateescape").rstrip("\n") == str(self.top / ".git")
        )

    def release(self) -> None:
        """Let another session have the tree."""
        os.close(self._lock)

    def reset(self, commit: str) -> None:
        """Exactly the commit: nothing changed, nothing untracked, nothing ignored; an empty out folder."""
        self._restore()
        # Not `reset --hard`: should somebody have attached this HEAD to a branch, that would move the branch.
        self.git("checkout", "--quiet", "--force", "--detach", commit)
        self.git("clean", "-ffdxq")
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def _restore(self) -> None:
        """Undo what a candidate did to the tree's own folder and its `.git`."""
        if self.top.is_symlink():
            self.top.unlink()
        self.top.mkdir(exist_ok=True)
        link, text = self.top / ".git", f"gitdir: {self._git_folder}\n"
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        if link.is_symlink() or not link.is_file() or link.read_bytes() != text.encode("utf-8", "surrogateescape"):
            link.unlink(missing_ok=True)
            link.write_text(text, "utf-8", "surrogateescape")

    def changes(self, base: str) -> list[Change]:
        """What the tree has that the base has not; ignored files are not looked at and not committed."""
        self.git("add", "--all")
        fields = self.git("diff", "--cached", "--raw", "-z", "--no-renames", base).split("\0")
        found = []
        for head, path in zip(fields[0::2], fields[1::2], strict=False):
            before, after, _, _, kind = head.lstrip(":").split()
            same_mode = kind == "D" or (after in _REGULAR and (kind == "A" or before == after))
            found.append(Change(path, kind, same_mode))
        return found

    def commit(self, base: str, message: str) -> tuple[str, str]:
        """Commit what `changes` saw on top of the base; the commit and its tree. No branch moves."""
        tree = self.git("write-tree")
        printable = "".join(c for c in message if c.isprintable() or c == "\n")
        commit = self.git("commit-tree", tree, "-p", base, stdin=printable)
        self.reset(commit)
        return commit, tree

    def bring(self, commit: str) -> None:
        """Apply what the commit changed to the tree as it is; where both changed a line, the commit's side is taken.

        What comes out is measured as it stands, so a crude merge costs a run, never a wrong number.

        Raises:
            GitError: It cannot be merged at all.
        """
        try:
            self.git("cherry-pick", "--no-commit", "--allow-empty", "--strategy-option=theirs", commit)
        finally:
            self.git.ask("cherry-pick", "--quit")
