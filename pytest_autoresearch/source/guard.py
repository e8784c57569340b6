"""Checks a proposal before it is committed, and refuses forbidden edits. Pure."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from pytest_autoresearch.core.errors import Refused
from pytest_autoresearch.core.experiment import Experiment, Proposal
from pytest_autoresearch.core.file_change import FileChange
from pytest_autoresearch.core.run import CrashClass
from pytest_autoresearch.source import fingerprint, information
from pytest_autoresearch.source.editable import Editable
from pytest_autoresearch.source.syntax import parse

MOST_BYTES = 512 * 1024  # size of one editable file: far above any program, far below a hidden data set
MOST_GROWTH = 64 * 1024  # growth of all editable files by one proposal: a rewritten program is half of that
MOST_INFORMATION = 16 * 1024  # of one proposal, compressed: a whole train.py that is written anew has 10 KiB
MOST_INFORMATION_OF_ALL = 32 * 1024  # of a candidate beside the baseline
MOST_LITERAL_BYTES = 32 * 1024  # growth of strings and numbers: enough for a kernel in a string, not for a corpus

_SHOWN = 200  # characters of a path in a message
_PLAIN = re.compile(r"[A-Za-z0-9_+=@./ -]+")


def check_changes(
    proposal: Proposal,
    changes: Iterable[FileChange],
    editable: Editable,
    root: str = "",
) -> None:
    """Check that the proposal changes something, and only regular editable files.

    Args:
        editable: The files that may change. All paths are relative to the repository's top folder.
        root: The working directory of training.

    Raises:
        Refused: The check failed.
    """
    changed = list(changes)
    if not changed:
        raise Refused("it changes nothing", proposal)
    gone = {change.path for change in changed if change.kind == "D"}
    for change in changed:
        path = PurePosixPath(change.path)
        if change.path not in editable:
            shown = "".join(letter if letter.isprintable() else "?" for letter in change.path[:_SHOWN])
            raise Refused(f"it changes {shown}; only {', '.join(editable)} may change", proposal)
        if not change.regular:
            raise Refused(f"it changes the kind or the mode of {path}; only its text may change", proposal)
        if parents := gone.intersection(str(parent) for parent in path.parents):
            raise Refused(f"it makes {parents.pop()} a folder; only its text may change", proposal)
        if change.kind == "A":
            _check_name(proposal, change, at_root=path.parent == PurePosixPath(root))
        _check_size(proposal, change.path, change.size)


def _check_name(proposal: Proposal, change: FileChange, at_root: bool) -> None:
    """Check that a new file's name is not confused with another file or module."""
    path = PurePosixPath(change.path)
    if change.twin:
        raise Refused(f"it adds {path}, the same name as {change.twin} on some systems: use another name", proposal)
    if not _PLAIN.fullmatch(change.path):
        raise Refused(f"it adds a file named {change.path!a}: use plain ASCII letters", proposal)
    if at_root and path.suffix == ".py" and path.stem in sys.stdlib_module_names:
        raise Refused(f"it adds {path}, which would be imported instead of Python's {path.stem}", proposal)


def check_texts(proposal: Proposal, texts: Mapping[str, bytes], before: Mapping[str, bytes] | None = None) -> None:
    """Check that every changed file is small enough and parses, and that together they contain no hidden data.

    Args:
        texts: The editable files by path.
        before: The same at the base.

    Raises:
        Refused: The check failed; the crash is `syntax` for Python that does not parse.
    """
    base = before or {}
    changed = {path: text for path, text in texts.items() if base.get(path) != text}
    for path, text in changed.items():
        _check_size(proposal, path, len(text))
    trees = [_parsed(proposal, path, text) for path, text in changed.items() if path.endswith(".py")]
    if before is None:
        return
    growth = sum(map(len, texts.values())) - sum(map(len, before.values()))
    if growth > MOST_GROWTH:
        raise Refused(f"it adds {growth:,} bytes; the limit is {MOST_GROWTH:,} a proposal", proposal)
    replaced = {path: text for path, text in before.items() if texts.get(path) != text}
    data = sum(map(_literal_bytes, trees)) - _literal_bytes_of(replaced)
    if data > MOST_LITERAL_BYTES:
        most = f"the limit is {MOST_LITERAL_BYTES:,} a proposal"
        raise Refused(f"it adds {data:,} bytes of strings and numbers; {most}: propose code, not data", proposal)


def check_information(
    proposal: Proposal, texts: Mapping[str, bytes], before: Mapping[str, bytes], first: Mapping[str, bytes]
) -> None:
    """Check that the proposal, and all proposals of the campaign together, carry no hidden data.

    Args:
        texts: The editable files by path.
        before: The same at the base.
        first: The same at the baseline.

    Raises:
        Refused: The check failed.
    """
    if (size := information.added(before, texts)) > MOST_INFORMATION:
        raise Refused(
            f"it adds {size:,} bytes of information, which is its text compressed; the limit is {MOST_INFORMATION:,} a "
            "proposal: propose code, not data, or split the change",
            proposal,
        )
    if (size := information.added(first, texts)) > MOST_INFORMATION_OF_ALL:
        raise Refused(
            f"with it, the program has {size:,} bytes of information that the baseline has not, compressed; the limit "
            f"is {MOST_INFORMATION_OF_ALL:,} a campaign: take out what is of no use, or begin a campaign from the best "
            "program",
            proposal,
        )


def _check_size(proposal: Proposal, path: str, size: int) -> None:
    if size > MOST_BYTES:
        raise Refused(f"{path} has {size:,} bytes; the limit is {MOST_BYTES:,}", proposal)


def _parsed(proposal: Proposal, path: str, text: bytes) -> ast.Module:
    try:
        return parse(text)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        raise Refused(f"{path} does not parse, {where}{error.msg}", proposal, CrashClass.SYNTAX) from None


def _literal_bytes_of(files: Mapping[str, bytes]) -> int:
    total = 0
    for path, text in files.items():
        if path.endswith(".py"):
            try:
                total += _literal_bytes(parse(text))
            except SyntaxError:
                continue
    return total


def _literal_bytes(tree: ast.Module) -> int:
    """Roughly how much data a program's literals can carry: the length of strings and the bytes of numbers."""
    total = 0
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)):
                total += len(text)
            case ast.Constant(value=bytes(data)):
                total += len(data)
            case ast.Constant(value=int(number)):
                total += 1 + number.bit_length() // 8
            case ast.Constant(value=float() | complex()):
                total += 8
    return total


def check_effect(proposal: Proposal, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """Check that the edit changes what the program does, and not only its seed.

    Args:
        before: Every editable file at the base, by path.
        after: Every editable file now.

    Raises:
        Refused: The check failed.
    """
    match fingerprint.change(before, after):
        case fingerprint.Difference.NOTHING:
            raise Refused("it changes only comments, layout or names: the program stays the same", proposal)
        case fingerprint.Difference.SEED:
            raise Refused("it changes only the seed or the order of the data, which the harness sets", proposal)


def check_new(proposal: Proposal, program: str, records: Iterable[Experiment]) -> None:
    """Check that no experiment has tried the same program; `program` is its fingerprint.

    Raises:
        Refused: An experiment has; the message names its number.
    """
    for record in records:
        if record.program == program and record.refusal is None and record.commit != proposal.repeats:
            said = record.verdict.message if record.verdict else "under way"
            raise Refused(f"the same program was tried as {record.number:04d} ({said})", proposal)
