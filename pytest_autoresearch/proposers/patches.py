"""Merges a patch into the tree of a lane, for the queue, the replayed commits and the checkout.

Runs git itself in a given folder. May not know where a patch comes from, nor the ratchet and its git.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from pytest_autoresearch.core.errors import GitError
from pytest_autoresearch.ledger.git import REDIRECTIONS

_SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false")


def apply(patch: bytes, folder: Path) -> bool:
    """Apply a patch to the worktree that contains the folder; false if the branch already has all of it.

    A failed three-way merge leaves conflict markers. So the merge is made in a separate index, and its result is
    applied as a plain patch, which `git apply` does completely or not at all.

    Raises:
        GitError: The patch does not apply; says to which commit and why. No file is changed.
    """
    where = git(["rev-parse", "--show-toplevel", "HEAD"], folder)
    if where.returncode:
        raise GitError(f"does not apply: {reason(where)}")
    top, _, base = where.stdout.rstrip(b"\n").rpartition(b"\n")
    root = Path(os.fsdecode(top))  # in a subfolder `git apply` silently skips paths outside it
    with tempfile.TemporaryDirectory() as scratch:
        index = str(Path(scratch) / "index")
        git(["read-tree", "HEAD"], root, index=index)
        if not git(["apply", "--cached", "--3way", "--whitespace=nowarn"], root, patch, index).returncode:
            merged = git(["diff-index", "--cached", "--patch", "--binary", "HEAD"], root, index=index)
            if not merged.returncode and not merged.stdout:
                return False
            if not merged.returncode and not git(["apply", "--whitespace=nowarn"], root, merged.stdout).returncode:
                return True
    plain = git(["apply", "--whitespace=nowarn"], root, patch)
    if plain.returncode:
        raise GitError(f"does not apply to {base.decode()[:7]}: {reason(plain)}")
    return True


def git(command: list[str], folder: Path, given: bytes = b"", index: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a git command in a folder, with `given` as its input and, if named, a separate index."""
    environment = {name: value for name, value in os.environ.items() if name not in REDIRECTIONS}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"} | ({"GIT_INDEX_FILE": index} if index else {})
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    return subprocess.run(
        ["git", *settings, *command],
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        start_new_session=True,  # a Ctrl-C must not stop git between two files
        check=False,
    )


def reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why git failed: the first line with an error, without the prefix `error:`."""
    lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines()]
    wrong = [line for line in lines if line.startswith(("error: ", "fatal: "))]
    return re.sub(r"^(error|fatal): ", "", (wrong or [line for line in lines if line] or ["git gave no reason"])[0])
