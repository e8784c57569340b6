"""A lane's own tree: where a proposal is edited, committed and trained, while the user's checkout stays as it is."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import stat
import subprocess
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pytest_autoresearch.core.errors import GitError, UserError
from pytest_autoresearch.core.file_change import FileChange
from pytest_autoresearch.ledger.git import Git

_REGULAR = ("100644", "100755")
_MOST_BYTES = 16 * 2**20  # of a changed file that git is made to read and keep
# The tree is the commit and nothing but the commit, whatever the repository's configuration was made to say.
_EXACT = (
    "--no-replace-objects",
    *("-c", "core.sparseCheckout=false", "-c", "core.fileMode=true", "-c", "core.symlinks=true"),
    *("-c", "core.ignoreCase=false", "-c", "core.precomposeUnicode=false", "-c", "submodule.recurse=false"),
)


class Worktree:
    """A git worktree that one lane of one session holds.

    Attributes:
        top: The worktree's own folder.
        folder: The same place inside it as pytest's root inside the user's checkout; training starts here.
        out: The folder for what training leaves behind, beside the worktree; `cache` for what compilers keep meanwhile.
    """

    def __init__(self, repository: Git, top: Path, prefix: Path, lock: int) -> None:
        self._repository = repository
        self._lock = lock
        self.top = top
        self.folder = top / prefix
        self.out = top.with_name(f"{top.name}-out")
        self.cache = top.with_name(f"{top.name}-cache")
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
            # A killed session may have left an agent's folder, with a copy of its keys.
            shutil.rmtree(home / f"{name}-agent", ignore_errors=True)
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
        self._open()

    def _open(self) -> None:
        """A door to git that leads nowhere else, and past every filter that the configuration has at this moment."""
        self.git = self._repository.at(self.top, raw=True)
        self.git.bind(self._git_folder)
        self.git.without_filters()

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
        """Exactly the commit: nothing changed, nothing untracked, nothing ignored; empty folders beside it.

        Written anew, every file: what an index remembers of a file can be forged, and git does not see sockets, pipes
        or what the index says to skip.
        """
        self._restore()
        self._forget()
        _empty(self.top)
        self._open()
        # Not `reset --hard`: should somebody have attached this HEAD to a branch, that would move the branch.
        self.git(*_EXACT, "checkout", "--quiet", "--force", "--detach", commit)
        for folder in (self.out, self.cache):
            _empty(folder)
            folder.rmdir()  # a folder keeps attributes
            folder.mkdir(mode=0o700)

    def show(self, root: Path, names: Iterable[str]) -> None:
        """Untracked things that training needs appear where they are in the user's checkout, whose `root` is given."""
        for name in names:
            path = Path(name).expanduser()
            if not path.is_absolute() and (root / path).exists():
                link = self.folder / path
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(root / path)

    def _forget(self) -> None:
        """No index, and no lock: the lane is held by this process, so that a lock was left by a git that is dead."""
        for path in (*self._git_folder.glob("*.lock"), self._git_folder / "index"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)

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

    def changes(self, base: str) -> list[FileChange]:
        """What the tree has that the base has not; ignored files are not looked at and not committed.

        Where something stands in the tree that git cannot or should not take in, that alone.
        """
        self._restore()
        before = self._listed(base)
        if unfit := list(self._unfit(before)):
            return unfit
        self._forget()
        self.git(*_EXACT, "read-tree", base)
        self.git(*_EXACT, "add", "--all")
        fields = self.git(*_EXACT, "diff", "--cached", "--raw", "-z", "--no-renames", base).split("\0")
        found = []
        twins = {_folded(path): path for path in before}
        for head, path in zip(fields[0::2], fields[1::2], strict=False):
            old, new, _, _, kind = head.lstrip(":").split()
            same_mode = kind == "D" or (new in _REGULAR and (kind == "A" or old == new))
            size = 0 if kind == "D" else os.lstat(self.top / path).st_size
            twin = twins.setdefault(_folded(path), path)
            found.append(FileChange(path, kind, same_mode, size, "" if twin == path else twin))
        return found

    def _unfit(self, before: Mapping[str, int]) -> Iterator[FileChange]:
        """What git would stumble over, pass over or choke on; `before` has the base's paths and their sizes.

        Above all a repository within the tree: git would read that one's configuration, and run what it names.
        """
        waiting = [self.top]
        while waiting:
            folder = waiting.pop()
            here = "" if folder == self.top else f"{folder.relative_to(self.top).as_posix()}/"
            try:
                with os.scandir(folder) as entries:
                    found = [(entry, entry.stat(follow_symlinks=False)) for entry in entries]
            except OSError:  # it may not be read, or lies too deep
                yield FileChange(here.rstrip("/"), "A", regular=False)
                continue
            for entry, look in found:
                path = here + entry.name
                kind = "M" if path in before else "A"
                if path != ".git" and _is_git(entry.name):
                    yield FileChange(path, kind, regular=False)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(folder / entry.name)
                elif stat.S_ISREG(look.st_mode):
                    if not os.access(entry.path, os.R_OK):
                        yield FileChange(path, kind, regular=False)
                    elif look.st_size > _MOST_BYTES and look.st_size != before.get(path):
                        yield FileChange(path, kind, regular=True, size=look.st_size)
                elif path in before and not entry.is_symlink():
                    yield FileChange(path, "T", regular=False)

    def _listed(self, commit: str) -> dict[str, int]:
        """The paths of a commit or a tree, and their sizes in bytes; of a submodule 0."""
        said = self.git(*_EXACT, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        rows = [entry.partition("\t") for entry in said.split("\0") if entry]
        return {path: int(head.split()[3].replace("-", "0")) for head, _, path in rows}

    def files(self, commit: str, chosen: Callable[[str], bool]) -> dict[str, bytes]:
        """The plain files of a commit or a tree that are chosen by their path, as git holds them."""
        said = self.git(*_EXACT, "ls-tree", "-r", "-z", "--full-tree", commit)
        rows = [entry.partition("\t") for entry in said.split("\0") if entry]
        wanted = {path: head.split()[2] for head, _, path in rows if head.split()[0] in _REGULAR and chosen(path)}
        said = self.git(*_EXACT, "cat-file", "--batch", stdin="".join(f"{name}\n" for name in wanted.values()))
        rest = said.encode("utf-8", "surrogateescape") + b"\n"  # the last line end was taken off
        found = {}
        for path in wanted:
            head, _, rest = rest.partition(b"\n")
            size = int(head.split()[2])
            found[path], rest = rest[:size], rest[size + 1 :]
        return found

    def staged(self) -> str:
        """The tree that `commit` would commit: what `changes` saw."""
        return self.git(*_EXACT, "write-tree")

    def commit(self, base: str, message: str) -> tuple[str, str]:
        """Commit what `changes` saw on top of the base; the commit and its tree. No branch moves."""
        tree = self.staged()
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


def _empty(folder: Path) -> None:
    """Leave nothing in the folder but `.git`, however deep it lies and whatever its modes say; it exists afterwards."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        folder.unlink()
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    # Not shutil.rmtree, which ends at a thousand folders within each other. An ordinary user's `find` cannot empty a
    # folder whose mode was taken away, so that it is given back where something is left.
    remove = ("find", ".", "-mindepth", "1", "-not", "-path", "./.git", "-delete")
    open_up = ("find", ".", "-type", "d", "-exec", "chmod", "u+rwx", "{}", ";")
    for command in (remove, open_up, remove):
        if not (left := [path for path in folder.iterdir() if path.name != ".git"]):
            return
        try:
            subprocess.run(command, cwd=folder, stderr=subprocess.DEVNULL, check=False)
        except FileNotFoundError:
            raise UserError("`find` is not on PATH: install it (findutils), or add its folder to PATH") from None
    if left := [path for path in folder.iterdir() if path.name != ".git"]:
        name = shlex.quote(str(left[0]))
        raise GitError(f"{left[0]} cannot be removed: type `sudo rm -rf {name}` first")


def _is_git(name: str) -> bool:
    """Whether some file system takes the name for `.git`: which ones do is what git itself refuses to add."""
    plain = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return plain.casefold().rstrip(". ").partition(":")[0] in (".git", "git~1")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
