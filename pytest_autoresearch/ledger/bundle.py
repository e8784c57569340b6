"""One commit as a git bundle, for a machine that has no copy of the repository."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.ledger.git import Git

_WHO = "autoresearch <autoresearch@localhost> 0 +0000"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A commit without its history.

    Attributes:
        commit: A commit with the same files; the bundle's only one. Equal files have equal commits.
        data: The bundle.
    """

    commit: str
    data: bytes


def pack(git: Git, commit: str, onto: str = "") -> Bundle:
    """Pack a commit. No ref changes.

    Args:
        onto: The commit of a bundle that the other machine has already: its files are left out.
    """
    tree = git("rev-parse", "--verify", f"{commit}^{{tree}}")
    parent = f"parent {onto}\n" if onto else ""
    text = f"tree {tree}\n{parent}author {_WHO}\ncommitter {_WHO}\n\nfor a run\n"
    alone = git("hash-object", "-t", "commit", "-w", "--stdin", stdin=text)
    wanted = f"{alone}\n" + (f"^{onto}\n" if onto else "")
    objects = git.run("pack-objects", "--revs", "--thin", "--stdout", "-q", stdin=wanted.encode())
    head = "# v2 git bundle\n" if len(alone) == 40 else "# v3 git bundle\n@object-format=sha256\n"
    needs = f"-{onto}\n" if onto else ""
    return Bundle(alone, f"{head}{needs}{alone} refs/heads/run\n\n".encode() + objects)


def unpack(git: Git, bundle: Bundle) -> None:
    """Add the bundle's commit to a repository that has the commit that it was packed onto.

    Raises:
        GitError: It is damaged.
    """
    if git.ask("cat-file", "-e", bundle.commit) is not None:
        return
    with tempfile.NamedTemporaryFile(suffix=".bundle") as file:
        file.write(bundle.data)
        file.flush()
        git("bundle", "unbundle", file.name)


def new_checkout(folder: Path, bundle: Bundle) -> None:
    """Make a repository whose checkout is the bundle's commit; it replaces the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    git = Git(folder, raw=True)
    form = "sha1" if len(bundle.commit) == 40 else "sha256"
    git("init", "--quiet", "--template=", f"--object-format={form}", "--initial-branch=main", ".")
    git.without_filters()
    unpack(git, bundle)
    git("update-ref", "refs/heads/main", bundle.commit)
    git("reset", "--quiet", "--hard")
