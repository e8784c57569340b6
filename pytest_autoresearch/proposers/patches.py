"""Merges a patch into the tree of a lane, for the queue, the replayed commits and the checkout.

May not know where a patch comes from, nor the campaign.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pytest_autoresearch.core.errors import GitError
from pytest_autoresearch.ledger.git import Git, reason


def apply(patch: bytes, folder: Path) -> bool:
    """Apply a patch to the worktree that contains the folder; false if the branch already has all of it.

    A failed three-way merge leaves conflict markers. So the merge is made in a separate index, and its result is
    applied as a plain patch, which `git apply` does completely or not at all.

    Raises:
        GitError: The patch does not apply; says to which commit and why. No file is changed.
    """
    try:
        top, _, base = Git(folder)("rev-parse", "--show-toplevel", "HEAD").rpartition("\n")
    except GitError as error:
        raise GitError(f"does not apply: {reason(error)}") from None
    git = Git(Path(top), raw=True)  # in a subfolder `git apply` silently skips paths outside it
    git.without_filters()
    with tempfile.TemporaryDirectory() as scratch:
        index = git.on_index(Path(scratch, "index"))
        try:
            index("read-tree", "HEAD")
            index.run("apply", "--cached", "--3way", "--whitespace=nowarn", stdin=patch)
            merged = index.run("diff-index", "--cached", "--patch", "--binary", "HEAD")
            if not merged:
                return False
            git.run("apply", "--whitespace=nowarn", stdin=merged)
            return True
        except GitError:  # as it stands, it may apply where it could not be merged
            pass
    try:
        git.run("apply", "--whitespace=nowarn", stdin=patch)
    except GitError as error:
        raise GitError(f"does not apply to {base[:7]}: {reason(error)}") from None
    return True
