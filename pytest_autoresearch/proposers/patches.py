"""Merges a patch or a changed tree into the tree of a lane, for the queue, the replayed commits and the checkout.

May not know where a change comes from, nor the campaign.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from pytest_autoresearch.core.errors import GitError, MergeConflict
from pytest_autoresearch.ledger.git import PATCH, Git, reason
from pytest_autoresearch.ledger.merge import merge

# Both names are equal only in a patch that was made with diff.noprefix.
_SUBMODULE = "160000"  # the mode of its entry
_WITHOUT_PREFIX = re.compile(rb"^diff --git (.+) \1\r?$", re.MULTILINE)


def apply(patch: bytes, folder: Path) -> bool:
    """Apply a patch to the worktree that contains the folder; false if the branch already has all of it.

    If the repository has the files that the patch was made from, the change is merged; else the patch is applied as it
    stands.

    Raises:
        MergeConflict: The branch and the patch changed the same line. No file is changed.
        GitError: The patch does not apply; says to which commit and why. No file is changed.
    """
    git, head = _worktree(folder)
    depth = ["-p0"] if _WITHOUT_PREFIX.search(patch) else []
    if trees := _trees(git, patch, depth):
        return bring(*trees, folder)
    with tempfile.TemporaryDirectory() as scratch:
        index = git.on_index(Path(scratch, "index"))
        index("read-tree", "HEAD")
        try:
            index.run("apply", "--cached", *depth, stdin=patch)
        except GitError as error:
            raise GitError(f"does not apply to {head[:7]}: {reason(error)}") from None
        return _write(git, index("write-tree"), head)


def bring(base: str, changed: str, folder: Path) -> bool:
    """Merge a change into the worktree that contains the folder; false if the branch already has all of it.

    Args:
        base: The commit or tree that was changed.
        changed: The tree with the change.

    Raises:
        MergeConflict: Both changed the same line; says which. No file is changed.
        GitError: Git cannot read them, or cannot write the merged files.
    """
    git, head = _worktree(folder)
    try:
        tree = merge(git, base, head, changed)
    except MergeConflict as conflict:
        raise MergeConflict(conflict.path, conflict.lines, head) from None
    except GitError as error:
        raise GitError(f"does not apply to {head[:7]}: {reason(error)}") from None
    return _write(git, tree, head)


def _trees(git: Git, patch: bytes, depth: list[str]) -> tuple[str, str] | None:
    """The files that the patch changes, as trees before and after it; None if the repository has not all of them."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, "index")
        index = git.on_index(place)
        try:
            git.run("apply", f"--build-fake-ancestor={place}", *depth, stdin=patch)
            before = index("write-tree")
            index.run("apply", "--cached", *depth, stdin=patch)
            return before, index("write-tree")
        except GitError:
            return None


def _worktree(folder: Path) -> tuple[Git, str]:
    """Git at the top of the worktree, and the worktree's commit."""
    try:
        top, _, head = Git(folder)("rev-parse", "--show-toplevel", "HEAD").rpartition("\n")
    except GitError as error:
        raise GitError(f"does not apply: {reason(error)}") from None
    git = Git(Path(top), raw=True)  # in a subfolder `git apply` silently skips paths outside it
    git.without_filters()
    return git, head


def _write(git: Git, tree: str, head: str) -> bool:
    """Make the files of a clean worktree those of the tree; false if they are the same.

    Raises:
        GitError: The tree has a new entry that git would not add from a worktree, so that it would be lost.
    """
    patch = git.run("diff-tree", *PATCH, "HEAD", tree)
    if patch:
        _check_nothing_is_lost(git, tree)
        try:
            git.run("apply", stdin=patch)
        except GitError as error:
            raise GitError(f"does not apply to {head[:7]}: {reason(error)}") from None
    return bool(patch)


def _check_nothing_is_lost(git: Git, tree: str) -> None:
    fields = git("diff-tree", "-r", "-z", "--no-renames", "HEAD", tree).split("\0")
    entries = {path: head.split() for head, path in zip(fields[0::2], fields[1::2], strict=False)}
    for path, entry in entries.items():
        if _SUBMODULE in (entry[0].lstrip(":"), entry[1]):
            raise GitError(f"changes the submodule {path}; a proposal may change only files of this repository")
    added = [path for path, entry in entries.items() if entry[-1] == "A"]
    ignored = git.ask("check-ignore", "-z", "--stdin", stdin="\0".join(added)) if added else None
    if ignored:
        raise GitError(f"adds {ignored.split(chr(0))[0]}, which git ignores, so that no commit would have it")
