"""A campaign taken out of a repository: its branch and its records, kept in a file from which git can fetch them."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from pytest_autoresearch.ledger.ratchet import Ratchet


def remove(ratchet: Ratchet, tag: str) -> Path:
    """Write the campaign to a bundle, then delete its branch and its records in one transaction.

    Returns:
        The bundle.

    Raises:
        UserError: A session of the campaign runs, or its branch is checked out.
        GitError: A git command failed; nothing was deleted.
    """
    ratchet.choose(tag)
    with ratchet.alone():
        said = ratchet.git(
            "for-each-ref", "--format=%(refname) %(objectname)", f"refs/autoresearch/{tag}/", ratchet.branch
        )
        refs = [line.split() for line in said.splitlines()]
        folder = ratchet.home / "removed"
        folder.mkdir(parents=True, exist_ok=True)
        bundle = folder / f"{tag}-{time.strftime('%Y%m%d-%H%M%S')}.bundle"
        ratchet.git("bundle", "create", "--quiet", str(bundle), *(name for name, _ in refs))
        ratchet.git("bundle", "verify", "--quiet", str(bundle))
        lines = [f"delete {name} {old}" for name, old in refs]
        ratchet.git("update-ref", "--stdin", stdin="\n".join(["start", *lines, "prepare", "commit", ""]))
    return bundle


def to_restore(bundle: Path) -> str:
    """The command that brings a removed campaign back."""
    return f"git fetch {shlex.quote(str(bundle))} 'refs/*:refs/*'"
