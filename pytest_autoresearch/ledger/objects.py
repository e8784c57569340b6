"""Files as git has stored them, read without a checkout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_autoresearch.ledger.git import Git

REGULAR = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a commit.

    Attributes:
        mode: Git's six digits; `regular` for a plain file, which is neither a link nor a submodule.
        blob: The hash of its content.
    """

    mode: str
    blob: str

    @property
    def regular(self) -> bool:
        return self.mode in REGULAR


def entries(git: Git, commit: str, *options: str) -> dict[str, Entry]:
    """The files of a commit or a tree, by path.

    Args:
        options: Further options of `git ls-tree`: by default, paths are relative to git's folder, and only files below
            that folder are listed.
    """
    said = git("ls-tree", "-r", "-z", *options, commit)
    rows = (entry.partition("\t") for entry in said.split("\0") if entry)
    return {path: Entry(*head.split()[::2]) for head, _, path in rows}


def contents(git: Git, commit: str, chosen: Callable[[str], bool], *options: str) -> dict[str, bytes]:
    """The content, as stored in git, of those plain files of a commit or a tree whose path `chosen` accepts."""
    found = entries(git, commit, *options)
    wanted = {path: entry.blob for path, entry in found.items() if entry.regular and chosen(path)}
    rest = git.run("cat-file", "--batch", stdin="".join(f"{name}\n" for name in wanted.values()).encode())
    texts = {}
    for path in wanted:
        head, _, rest = rest.partition(b"\n")
        size = int(head.split()[2])
        texts[path], rest = rest[:size], rest[size + 1 :]
    return texts
