"""A patch merged into the tree of a lane: what a queue of patches and a replayed branch have in common.

May not know where a patch comes from, nor the campaign.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pytest_autoresearch.core.errors import GitError
from pytest_autoresearch.ledger.git import Git, reason


def apply(patch: bytes, folder: Path) -> bool:
    """Apply a patch to the files of the worktree that the folder is in; false when the branch has all of it already.

    A three-way merge leaves conflict markers where it fails, so it is made in an index of its own, and what it comes
    to is then applied like any patch, which `git apply` does wholly or not at all.

    Raises:
        GitError: It does not apply, to which commit and why; every file is as it was.
    """
    try:
        top, _, base = Git(folder)("rev-parse", "--show-toplevel", "HEAD").rpartition("\n")
    except GitError as error:
        raise GitError(f"does not apply: {reason(error)}") from None
    git = Git(Path(top), raw=True)  # in a subfolder `git apply` passes over what lies outside it, without a word
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
