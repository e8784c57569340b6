"""The files of the checkout that take no part in the trial of its edit, for a note before anything is trained."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from pytest_autoresearch.core.errors import GitError
from pytest_autoresearch.ledger.git import Git
from pytest_autoresearch.source.syntax import parse

_SHOWN = 3


def bystanders(git: Git, is_editable: Callable[[str], bool], edited: Iterable[str]) -> list[str]:
    """Sentences about untracked Python files and changed tracked files, those first that the edit imports.

    Args:
        git: Git in pytest's root; all paths are relative to it.
        is_editable: Whether a file is part of an edit.
        edited: The edited files.
    """
    untracked = _names(git, "ls-files", "--others", "--exclude-standard")
    untracked = [name for name in untracked if name.endswith(".py") and not is_editable(name)]
    changed = [name for name in _names(git, "diff", "--name-only", "--relative", "HEAD") if not is_editable(name)]
    imported = {name for path in edited for name in _imports(git, path)}
    found: list[str] = []
    for names, state in ((untracked, "untracked"), (changed, "not committed")):
        found += [
            f"{name} is imported but {state}, so no experiment has this version: name it in autoresearch_editable, or "
            "commit it before the campaign begins"
            for name in names
            if _module(name) in imported
        ]
        if rest := [name for name in names if _module(name) not in imported]:
            more = f" and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else ""
            verb = "takes" if len(rest) == 1 else "take"
            found.append(f"{', '.join(rest[:_SHOWN])}{more} {verb} no part: {state}, and not in autoresearch_editable")
    return found


def _names(git: Git, *command: str) -> list[str]:
    try:
        return [name for name in git(*command, "-z", "--", ".").split("\0") if name]
    except GitError:
        return []


def _module(name: str) -> str:
    """The name under which a file or its folder is imported."""
    return PurePosixPath(name).parts[0].removesuffix(".py")


def _imports(git: Git, path: str) -> set[str]:
    """The top-level modules that a file imports; none if it cannot be read."""
    file = git.folder / path
    try:
        tree = parse(file.read_bytes()) if file.suffix == ".py" else ast.Module([], [])
    except (OSError, SyntaxError):
        return set()
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {one.name.partition(".")[0] for one in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module.partition(".")[0])
            case ast.ImportFrom(names=names):
                found |= {one.name for one in names}
    return found
