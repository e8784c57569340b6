"""What a commit names but does not contain: the files of git LFS, and submodules.

A worktree of such a commit has a short text in place of a file, and an empty folder in place of a submodule. The user's
checkout usually has the content. Only reads.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.ledger.objects import Entry

_POINTER = b"version https://git-lfs.github.com/spec/v1"
_MOST_BYTES = 1024  # a longer text is no pointer, by the specification of git LFS
_SUBMODULE = "160000"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Paths relative to the checkout's top.

    Attributes:
        present: The files and folders whose content is in the checkout.
        missing: For the others, the command that gets the content.
    """

    present: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def find_elsewhere(git: Git, top: Path, commit: str, files: Mapping[str, Entry]) -> Elsewhere:
    """The content of a commit that git keeps elsewhere.

    Args:
        git: Git in the checkout.
        top: The checkout's top folder.
        commit: The commit.
        files: Its files, by path relative to `top`.
    """
    git = git.at(top)
    present, missing = [], {}
    for path in (path for path, entry in files.items() if entry.mode == _SUBMODULE):
        if (top / path / ".git").exists():
            present.append(path)
        else:
            missing[path] = f"git submodule update --init {shlex.quote(path)}"
    with_attributes = any(PurePosixPath(path).name == ".gitattributes" for path in files)
    for path in _pointers(git, commit) if with_attributes else ():
        if (top / path).is_file() and not is_pointer(top / path):
            present.append(path)
        else:
            missing[path] = f"git lfs pull --include {shlex.quote(path)}"
    return Elsewhere(tuple(present), missing)


def is_pointer(path: Path) -> bool:
    """Whether a plain file has the text that git LFS puts in place of the content."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return False
    return path.read_bytes().startswith(_POINTER)


def _pointers(git: Git, commit: str) -> list[str]:
    if git.ask("grep", "-q", "-F", "filter=lfs", commit, "--", "*.gitattributes", ".gitattributes") is None:
        return []
    said = git.ask("grep", "-l", "-z", "-F", "-e", _POINTER.decode(), commit) or ""
    paths = [name.removeprefix(f"{commit}:") for name in said.split("\0") if name]
    shown = (git.run("cat-file", "blob", f"{commit}:{path}") for path in paths)
    return [path for path, text in zip(paths, shown, strict=True) if text.startswith(_POINTER)]
