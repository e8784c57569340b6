"""The files of a lane's tree that a search varies: exactly those in which a proposal may change a value."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.source import hyperparameters, space
from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.editable import Editable
from pytest_autoresearch.source.guard import MOST_BYTES
from pytest_autoresearch.source.space import Space
from pytest_autoresearch.source.stated_ranges import Range


def read(context: Context, table: Mapping[str, Range]) -> Space:
    """The space of the tree that a proposal edits.

    Raises:
        UserError: A file cannot be read, or nothing in the files can be varied.
    """
    texts = {name: path.read_bytes() for name, path in _files(context.folder, context.editable).items()}
    found = space.read(texts, table, shlex.split(context.terms.command))
    for name, why in found.unreadable.items():
        raise UserError(f"search cannot read {name} at the branch head: {why}; commit a version that Python can parse")
    if not found.near:
        raise UserError(nothing(context.editable))
    return found


def nothing(editable: Editable) -> str:
    """What to do where nothing can be varied."""
    return (
        f"search finds no constant to vary in {', '.join(editable)}: write hyperparameters in capitals at the top "
        "level, such as LEARNING_RATE = 0.001, or choose another --autoresearch-proposer"
    )


def no_number(editable: Editable) -> str:
    """What to do where only switches and texts can be varied, and numbers must."""
    return (
        f"search:cmaes finds no number to vary in {', '.join(editable)}: type --autoresearch-proposer search, which "
        "also varies switches and texts"
    )


def write(context: Context, found: Space, changes: Mapping[str, Value]) -> None:
    """Give values of the tree's files new ones."""
    for name, text in found.edited(changes):
        (context.folder / name).write_bytes(text)


def _files(folder: Path, editable: Editable) -> dict[str, Path]:
    """The editable files, by path in the folder. Links are left out: they may lead to the user's own files."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix in hyperparameters.SUFFIXES)
    inside = folder.resolve()
    return {
        name: path for path in paths
        if (name := path.relative_to(folder).as_posix()) in editable and not path.is_symlink() and path.is_file()
        and inside in path.resolve().parents and path.stat().st_size <= MOST_BYTES
    }  # fmt: skip
