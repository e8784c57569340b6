"""The space of a search: the values of the editable files that it may vary, and the range of each. Pure.

A value that several files have under one name gets its file's path as a prefix. The range in the user's table goes
before the comment in the file, and the comment before what the name suggests.
"""

from __future__ import annotations

import io
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.text import nearest
from pytest_autoresearch.source import hyperparameters, stated_ranges
from pytest_autoresearch.source.constants import Constant, Value
from pytest_autoresearch.source.ranges import candidates
from pytest_autoresearch.source.stated_ranges import Range


@dataclass(frozen=True, slots=True)
class Dimension:
    """One value of a file.

    Attributes:
        path: The file.
        stated: The user's range; None if the name suggests one.
    """

    path: str
    constant: Constant
    stated: Range | None

    @property
    def candidates(self) -> tuple[Value, ...]:
        """The values worth trying, with the present one; empty if the value is left alone."""
        return candidates(self.constant.name, self.constant.value, self.stated)


@dataclass(frozen=True, slots=True)
class Space:
    """All values of the editable files.

    Attributes:
        dimensions: By name.
        mistakes: What is wrong with the user's ranges, each in a sentence.
        unreadable: Why Python or its encoding cannot read a file, by path.
    """

    dimensions: Mapping[str, Dimension]
    mistakes: tuple[str, ...]
    unreadable: Mapping[str, str]
    _texts: Mapping[str, tuple[str, str]]

    @property
    def present(self) -> dict[str, Value]:
        """Every value as it is now."""
        return {name: one.constant.value for name, one in self.dimensions.items()}

    @property
    def near(self) -> dict[str, tuple[Value, ...]]:
        """The candidates of every value that may be varied."""
        found = {name: one.candidates for name, one in self.dimensions.items()}
        return {name: values for name, values in found.items() if len(values) > 1}

    def edited(self, changes: Mapping[str, Value]) -> Iterator[tuple[str, bytes]]:
        """The files with new values, each with its own encoding and line ends."""
        for path, (encoding, text) in self._texts.items():
            mine = [(one.constant, changes[name]) for name, one in self.dimensions.items()
                    if one.path == path and name in changes]  # fmt: skip
            if mine:
                yield path, hyperparameters.edit(path, text, mine).encode(encoding)


def read(files: Mapping[str, bytes], table: Mapping[str, Range], command: Sequence[str]) -> Space:
    """The space of these files.

    Args:
        files: The editable files, by path.
        table: The user's ranges, by name.
        command: The training command. A value that it sets by an option is no dimension: its default has no effect.
    """
    texts: dict[str, tuple[str, str]] = {}
    found: list[tuple[str, Constant]] = []
    mistakes: list[str] = []
    unreadable: dict[str, str] = {}
    for path in sorted(path for path in files if path.endswith(hyperparameters.SUFFIXES)):
        try:
            texts[path] = _decoded(path, files[path])
            here, lost = hyperparameters.find(path, texts[path][1])
        except (SyntaxError, UnicodeDecodeError) as error:
            if not path.endswith(".py"):
                continue
            at = f" on line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            unreadable[path] = f"{error.msg}{at}" if isinstance(error, SyntaxError) else str(error)
            continue
        found += [(path, one) for one in here if not _is_given(one, command)]
        mistakes += [
            f"{line}: it stands behind no value that a search can vary: put it behind one number, switch or text on "
            "one line, with a name at the top level, or delete it" for line in lost
        ]  # fmt: skip
    count = Counter(one.name for _, one in found)
    dimensions = {}
    for path, one in found:
        name = one.name if count[one.name] == 1 else f"{path}:{one.name}"
        try:
            stated = table.get(name) or (stated_ranges.parse(one.stated) if one.stated else None)
        except ValueError as error:
            mistakes.append(f"{path}: # search: behind {one.name}: {error}; or state its range in a table")
            stated = None
        try:
            if stated is not None:
                stated_ranges.check(stated, one.value)
        except ValueError as error:
            mistakes.append(f"{path}: {one.name} = {one.text} {error}")
            stated = None
        dimensions[name] = Dimension(path, one, stated)
    for name in table.keys() - dimensions.keys():
        meant = nearest(name, dimensions, 0.6)
        mistakes.append(
            f"the table of search ranges names {name}, which is no value of the editable files: "
            + (f"did you mean {meant}?" if meant else "remove it, or correct the name")
        )
    return Space(dimensions, tuple(mistakes), unreadable, texts)


def _decoded(path: str, raw: bytes) -> tuple[str, str]:
    """A file's encoding, and its text with its own line ends."""
    encoding = tokenize.detect_encoding(io.BytesIO(raw).readline)[0] if path.endswith(".py") else "utf-8"
    return encoding, raw.decode(encoding)


def _is_given(one: Constant, command: Sequence[str]) -> bool:
    return any(word == flag or word.startswith(f"{flag}=") for word in command for flag in one.flags)
