"""The worktree of a lane, in which proposals are edited, committed and trained. The user's checkout stays unchanged."""

from __future__ import annotations

import contextlib
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
from pytest_autoresearch.ledger import objects
from pytest_autoresearch.ledger.elsewhere import is_pointer
from pytest_autoresearch.ledger.git import DIFF, Git
from pytest_autoresearch.ledger.merge import merge

_MOST_BYTES = 16 * 2**20  # larger changed files are not given to git
# The tree must be exactly the commit, even if the repository's configuration was manipulated.
_EXACT = (
    "--no-replace-objects",
    *("-c", "core.sparseCheckout=false", "-c", "core.fileMode=true", "-c", "core.symlinks=true"),
    *("-c", "core.ignoreCase=false", "-c", "core.precomposeUnicode=false", "-c", "submodule.recurse=false"),
)


class Worktree:
    """A git worktree that one lane of one session holds.

    Attributes:
        top: The worktree's folder.
        folder: The folder that corresponds to pytest's root in the user's checkout; training starts here.
        out: The folder for training's output, beside the worktree.
        cache: The folder for compile caches, beside the worktree.
        lent: The files and folders of the user's checkout that `show` has put in place of what git keeps elsewhere.
    """

    def __init__(self, repository: Git, top: Path, prefix: Path, lock: int) -> None:
        self._repository = repository
        self._lock = lock
        self.top = top
        self.folder = top / prefix
        self.out = top.with_name(f"{top.name}-out")
        self.cache = top.with_name(f"{top.name}-cache")
        self.lent: tuple[Path, ...] = ()
        self.git = repository.at(top, raw=True)
        self._git_folder = top / ".git"

    @classmethod
    def claim(cls, repository: Git, home: Path, prefix: Path, lane: int) -> Worktree:
        """The lane's first worktree that no running session holds, created if missing."""
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

    @staticmethod
    def clear(home: Path) -> None:
        """Remove the agents' folders that killed sessions have left: each has a copy of its agent's keys."""
        for folder in home.glob("lane-*-agent"):
            place = folder.with_name(f"{folder.name.removesuffix('-agent')}.lock")
            with place.open("a") as lock, contextlib.suppress(BlockingIOError):  # a session that lives holds its lane
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)

    def _make(self) -> None:
        if not self._is_ours():
            if self.top.is_symlink():
                self.top.unlink()
            shutil.rmtree(self.top, ignore_errors=True)
            # git reads the other worktrees while it makes one, and fails if another process is making one of them.
            with (self.top.parent / "worktrees.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._repository("worktree", "add", "--force", "--detach", "--no-checkout", str(self.top), "HEAD")
        # A candidate can write to the tree. If git searched for its folder from there, the candidate could redirect git
        # to the user's checkout, and `reset` would destroy it.
        self._git_folder = Path(self.git("rev-parse", "--absolute-git-dir"))
        self._open()

    def _open(self) -> None:
        """Bind git to the worktree, and switch off every filter of the current configuration."""
        self.git = self._repository.at(self.top, raw=True)
        self.git.bind(self._git_folder)
        self.git.without_filters()

    def _is_ours(self) -> bool:
        """Whether the folder is a worktree of this repository.

        It is not if the repository was copied, or if a candidate has made `.git` name another git folder.
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
        """Release the worktree for other sessions."""
        os.close(self._lock)

    def reset(self, commit: str) -> None:
        """Make the tree exactly the commit, without untracked and ignored files, and empty `out` and `cache`.

        Every file is written again, because an index can be forged, and because git does not see sockets, pipes and
        files that the index marks to skip.
        """
        self._restore()
        self._forget()
        empty_folder(self.top)
        (self.top / ".git").unlink()
        self.top.rmdir()  # an old folder may have extended attributes
        self._restore()
        self.lent = ()
        self._open()
        # Not `reset --hard`, which would move a branch if HEAD was attached to one.
        self.git(*_EXACT, "checkout", "--quiet", "--force", "--detach", commit)
        self.empty()

    def empty(self) -> None:
        """Empty `out` and `cache`."""
        for folder in (self.out, self.cache):
            empty_folder(folder)
            folder.rmdir()
            folder.mkdir(mode=0o700)

    def show(self, root: Path, names: Iterable[str], elsewhere: Iterable[str] = ()) -> None:
        """Link files and folders of the user's checkout that training needs into the tree.

        Args:
            root: Pytest's root in the checkout.
            names: Untracked ones, relative to `root`; missing and absolute ones are skipped.
            elsewhere: Those that the commit only names, relative to the checkout's top; see `Elsewhere`. They become
                `lent`. A candidate's own file in such a place stays.
        """
        for name in names:
            path = Path(name).expanduser()
            if not path.is_absolute() and (root / path).exists():
                link = self.folder / path
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(root / path)
        top = root.parents[len(inside) - 1] if (inside := self.folder.relative_to(self.top).parts) else root
        for name in elsewhere:
            place = self.top / name
            if is_pointer(place):
                place.unlink()
            elif place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
                place.rmdir()
            else:
                continue
            place.symlink_to(top / name)
            self.lent += (top / name,)

    def _forget(self) -> None:
        """Remove the index and git's locks. This process holds the lane, so a lock was left by a killed git."""
        for path in (*self._git_folder.glob("*.lock"), self._git_folder / "index"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)

    def _restore(self) -> None:
        """Undo a candidate's changes of the tree's folder itself and of its `.git`."""
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
        """The changes of the tree against the base, without ignored files, which are not committed either.

        If the tree has entries that git cannot or must not add, only these are returned.
        """
        self._restore()
        before = self._listed(base)
        if unfit := list(self._unfit(before)):
            return unfit
        self._forget()
        self.git(*_EXACT, "read-tree", base)
        self.git(*_EXACT, "add", "--all")
        fields = self.git(*_EXACT, "diff-index", "--cached", "--raw", "-z", *DIFF, base).split("\0")
        found = []
        twins = {_folded(path): path for path in before}
        for head, path in zip(fields[0::2], fields[1::2], strict=False):
            old, new, _, _, kind = head.lstrip(":").split()
            same_mode = kind == "D" or (new in objects.REGULAR and (kind == "A" or old == new))
            size = 0 if kind == "D" else os.lstat(self.top / path).st_size
            twin = twins.setdefault(_folded(path), path)
            found.append(FileChange(path, kind, same_mode, size, "" if twin == path else twin))
        return found

    def _unfit(self, before: Mapping[str, int]) -> Iterator[FileChange]:
        """Entries that git cannot or must not add: special, unreadable and very large files, and `.git` in the tree.

        For a repository inside the tree, git would read that repository's configuration and run the programs in it.

        Args:
            before: The base's paths and their sizes in bytes.
        """
        waiting = [self.top]
        while waiting:
            folder = waiting.pop()
            here = "" if folder == self.top else f"{folder.relative_to(self.top).as_posix()}/"
            try:
                with os.scandir(folder) as entries:
                    found = [(entry, entry.stat(follow_symlinks=False)) for entry in entries]
            except OSError:  # not readable, or the path is too long
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
        """The paths of a commit or a tree, and their sizes in bytes; 0 for a submodule."""
        said = self.git(*_EXACT, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        rows = [entry.partition("\t") for entry in said.split("\0") if entry]
        return {path: int(head.split()[3].replace("-", "0")) for head, _, path in rows}

    def files(self, commit: str, chosen: Callable[[str], bool]) -> dict[str, bytes]:
        """The content, as stored in git, of those plain files of a commit or a tree whose path `chosen` accepts."""
        return objects.contents(self.git, commit, chosen, "--full-tree")

    def staged(self) -> str:
        """The git tree with the changes that `changes` found, for `commit`."""
        return self.git(*_EXACT, "write-tree")

    def commit(self, base: str, message: str) -> tuple[str, str]:
        """Commit the changes that `changes` found, on top of the base. Returns commit and tree.

        No branch moves. The files stay as they are; `reset` makes them the commit's.
        """
        tree = self.staged()
        printable = "".join(c for c in message if c.isprintable() or c == "\n")
        return self.git("commit-tree", tree, "-p", base, stdin=printable), tree

    def bring(self, commit: str) -> None:
        """Merge the commit's change into the tree.

        Where the head was taken back to before the commit's parent, the commit wins: the head kept nothing since.

        Args:
            commit: The commit, whose parent is the base of the merge.

        Raises:
            MergeConflict: One of them deleted a file that the other changed, or both changed a line.
        """
        taken_back = self.git.ask("merge-base", "--is-ancestor", "HEAD", f"{commit}^") is not None
        tree = merge(self.git, f"{commit}^", "HEAD", commit, theirs_wins=taken_back)
        self.git(*_EXACT, "read-tree", "--reset", "-u", tree)


def empty_folder(folder: Path) -> None:
    """Empty the folder except for `.git`, at any depth and with any file modes; create it if missing."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        folder.unlink()
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    # Not shutil.rmtree, which fails at a thousand nested folders. `find` cannot empty folders without write permission,
    # so a second pass restores the permissions.
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
    """Whether some file system treats the name as `.git`; git itself refuses to add these names."""
    plain = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return plain.casefold().rstrip(". ").partition(":")[0] in (".git", "git~1")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
