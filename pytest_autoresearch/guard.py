"""What a proposal may not be, looked at before it is committed. Pure: it is told what changed."""

from __future__ import annotations

import ast
import fnmatch
import warnings
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from pytest_autoresearch.errors import Refused
from pytest_autoresearch.experiment import Experiment, Proposal
from pytest_autoresearch.worktree import Change

MOST_BYTES = 512 * 1024  # of one editable file: far above any program, far below a hidden data set


def check_changes(proposal: Proposal, changes: Iterable[Change], editable: tuple[str, ...]) -> None:
    """Only plain editable files changed, and something did.

    Raises:
        Refused: Otherwise.
    """
    changed = list(changes)
    if not changed:
        raise Refused("it changes nothing", proposal)
    for change in changed:
        if not is_editable(change.path, editable):
            raise Refused(f"it changes {change.path}; only {', '.join(editable)} may change", proposal)
        if not change.regular:
            raise Refused(f"it changes the kind or the mode of {change.path}; only its text may change", proposal)


def check_texts(proposal: Proposal, texts: Mapping[str, bytes]) -> None:
    """Every changed file is of a sensible size, and Python where its name says so.

    Raises:
        Refused: Otherwise, as the crash `syntax` for Python that does not parse.
    """
    for path, text in texts.items():
        if len(text) > MOST_BYTES:
            raise Refused(f"{path} has {len(text):,} bytes; at most {MOST_BYTES:,} are taken", proposal)
        if path.endswith(".py"):
            try:
                with warnings.catch_warnings():  # an invalid escape in somebody's string is not our warning
                    warnings.simplefilter("ignore")
                    ast.parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                where = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
                said = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
                raise Refused(f"{path} does not parse, {where}{said}", proposal, "syntax") from None


def check_new(proposal: Proposal, tree: str, records: Iterable[Experiment]) -> None:
    """The tree is not one that was tried.

    Raises:
        Refused: It was, and under which number.
    """
    for record in records:
        if record.tree == tree and record.refusal is None and record.commit != proposal.repeats:
            said = record.verdict.message if record.verdict else "under way"
            raise Refused(f"the same program was tried as {record.number:04d} ({said})", proposal)


def is_editable(path: str, editable: tuple[str, ...]) -> bool:
    """Whether the path is one of the editable ones, lies in an editable folder, or matches a glob."""
    names = [PurePosixPath(pattern) for pattern in editable]  # without a leading ./
    return any(PurePosixPath(path).is_relative_to(name) or fnmatch.fnmatchcase(path, str(name)) for name in names)
