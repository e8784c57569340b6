"""Which files a proposal may change: the one rule for the guard, every proposer, the checkout and the checks. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath

# git, pytest, Python, or the user's own tools read these files in any folder, so they are never editable.
_TRUSTED = frozenset({
    *(".git", ".gitattributes", ".gitignore", ".gitmodules", ".lfsconfig", ".mailmap"),
    *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini"),
    *("pyproject.toml", "setup.cfg", "setup.py", "sitecustomize.py", "usercustomize.py", "pyvenv.cfg"),
})  # fmt: skip
_TRUSTED_SUFFIX = ".pth"


@dataclass(frozen=True, slots=True)
class Editable:
    """The files that a proposal may change. Iterating gives the patterns; `in` asks for a path.

    A file is editable if a pattern names it, names a folder above it, or is a glob that matches either. In a glob, `*`
    matches within one folder and `**` any number of folders. Frozen files, and those that git, pytest or Python read by
    themselves, are never editable.

    Attributes:
        patterns: Paths, folders and globs.
        frozen: Files and folders that are never editable. All paths have the same root.
    """

    patterns: tuple[str, ...]
    frozen: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.patterns)

    def __contains__(self, path: str | PurePath) -> bool:
        plain = PurePosixPath(path)
        if any(map(is_trusted, plain.parts)) or any(plain.is_relative_to(name) for name in self.frozen):
            return False
        return self.names(path)

    def names(self, path: str | PurePath) -> bool:
        """Whether a pattern covers the path, be it frozen or not."""
        # PurePosixPath removes a leading ./
        return any(_covers(PurePosixPath(pattern).parts, PurePosixPath(path).parts) for pattern in self.patterns)

    def below(self, folder: PurePath) -> Editable:
        """The same files, as seen from a folder above the root; `folder` is the path from there to the root."""

        def moved(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple((folder / name).as_posix() for name in names)

        return Editable(moved(self.patterns), moved(self.frozen))

    def pathspecs(self) -> list[str]:
        """The same files as git's pathspecs, relative to the root."""
        found = []
        for pattern in map(PurePosixPath, self.patterns):
            if not pattern.parts:
                found.append(":(glob)**")
                continue
            found += [f":(literal){pattern}", f":(glob){pattern}", f":(glob){pattern}/**"]
        trusted = [f":(exclude,icase,glob)**/{name}" for name in (*sorted(_TRUSTED), f"*{_TRUSTED_SUFFIX}")]
        return [*found, *trusted, *(f":(exclude,literal){PurePosixPath(name)}" for name in self.frozen)]


def is_trusted(name: str) -> bool:
    """Whether git, pytest or Python reads a file of this name in any folder."""
    return name.casefold() in _TRUSTED or name.casefold().endswith(_TRUSTED_SUFFIX)


def _covers(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether the pattern matches the path or one of its parent folders."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_covers(pattern[1:], parts[at:]) for at in range(len(parts) + 1))
    if not parts or not (parts[0] == pattern[0] or fnmatch.fnmatchcase(parts[0], pattern[0])):
        return False
    return _covers(pattern[1:], parts[1:])
