"""Printing for the commands: tables, blocks of `name  value`, JSON, and colours on a terminal.

Text from records, files and repositories is untrusted: every function here makes it safe for a terminal. Knows nothing
of campaigns.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_autoresearch.reports import plain as reading
from pytest_autoresearch.reports.harmless import harmless_json

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "bold": 1, "dim": 2}
_GAP = "  "
_LEAST = 20  # columns of the terminal for the last column, if other columns can be left out
_FIRST = 3  # columns that identify a row


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: The heading.
        right: Whether cells are aligned to the right, for numbers.
    """

    name: str
    right: bool = False


def terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def coloured() -> bool:
    """Whether to use colours: on a terminal that has them, unless NO_COLOR is set."""
    return terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colour(text: str, name: str) -> str:
    """The text in a colour (or `bold`, `dim`) if colours are used; unchanged for an empty name."""
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if name and text and coloured() else text


def line(text: object) -> str:
    """The text on one line, without escapes and control characters."""
    return reading.line(str(text))


def plain(text: str) -> str:
    """The text with its line breaks, without escapes and control characters."""
    return reading.plain(text).rstrip("\n")


def visible(text: str) -> str:
    """A log with invisible characters shown as code points."""
    return reading.visible(text.replace("\r\n", "\n").replace("\r", "\n")).rstrip("\n")


def change(patch: str) -> str:
    """A diff with invisible characters shown as code points. Its line ends stay, so that `git apply` takes it."""
    lines = ((line.removesuffix("\r"), line.endswith("\r")) for line in patch.split("\n"))
    return "\n".join(reading.visible(text) + "\r" * carriage for text, carriage in lines)


def table(rows: Iterable[Sequence[object]], columns: Sequence[Column], colours: Sequence[str] = ()) -> str:
    """The rows under their headings, in aligned columns; on a terminal the last column is cut to fit.

    Args:
        rows: One cell for each column; None is an empty cell.
        columns: From left to right.
        colours: The name of a colour for each row, or an empty string.
    """
    cells = [["" if cell is None else line(cell) for cell in row] for row in rows]
    names = [line(column.name) for column in columns]
    widths = [max(width(row[n]) for row in (names, *cells)) for n in range(len(columns))]
    before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    whole = shutil.get_terminal_size().columns
    room = max(whole - before, _LEAST) if terminal() else None

    def laid(row: Sequence[str]) -> str:
        *first, last = (
            _padded(cell, wide, column.right) for cell, wide, column in zip(row, widths, columns, strict=True)
        )
        text = _GAP.join([*first, cut(last.rstrip(), room) if room else last]).rstrip()
        return cut(text, whole) if room else text

    painted = [colour(laid(row), name) for row, name in zip(cells, _filled(colours, len(cells)), strict=True)]
    return "\n".join([colour(laid(names), "bold"), *painted])


def told(columns: Sequence[tuple[Column, Sequence[str]]], colours: Sequence[str] = ()) -> str:
    """A table without empty columns and without those that do not fit on a narrow terminal.

    The first columns identify the row and the last one says most, so the columns just before the last are dropped
    first.
    """
    shown = [(column, cells) for column, cells in columns if any(cells) or not cells]
    whole = shutil.get_terminal_size().columns
    while terminal() and len(shown) > _FIRST + 1 and whole < _LEAST + sum(_width(*one) for one in shown[:-1]):
        del shown[-2]
    return table(list(zip(*(cells for _, cells in shown), strict=True)), [column for column, _ in shown], colours)


def pairs(items: Iterable[tuple[str, object]], indent: int = 0, least: int = 0) -> str:
    """Lines of `name  value` with aligned values; further lines of a value are indented below it. None is skipped.

    Args:
        items: Names and values.
        indent: Spaces before the names.
        least: Minimum width of the names, to align several blocks.
    """
    shown = [(line(name), plain(str(value)).split("\n")) for name, value in items if value is not None]
    margin = max((width(name) for name, _ in shown), default=0)
    margin = max(margin, least) + len(_GAP)
    lines = []
    for name, (first, *more) in shown:
        lines.append(f"{_padded(name, margin, False)}{first}")
        lines += [" " * margin + one for one in more]
    return "\n".join(f"{' ' * indent}{one}".rstrip() for one in lines)


def dump(document: object) -> None:
    """Print JSON in ASCII. Numbers that are not finite are null; values that JSON cannot hold become strings."""
    print(harmless_json(json.dumps(_finite(document), indent=2, allow_nan=False, default=str)))


def duration(seconds: float) -> str:
    """A duration for people: `0.8 s`, `42 s`, `3 min 20 s`, `7 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(mb: float) -> str:
    """Memory, given in MiB."""
    return f"{mb:.0f} MB" if mb < 10_000 else f"{mb / 1024:.1f} GB"


def width(text: str) -> int:
    """The width of the text on a terminal, in columns."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, room: int) -> str:
    """The text cut to `room` columns, with an ellipsis if it was longer."""
    if width(text) <= room:
        return text
    wide = itertools.accumulate(map(width, text))
    kept = sum(1 for _ in itertools.takewhile(lambda so_far: so_far < room, wide))
    return f"{text[:kept].rstrip()}…"


def _width(column: Column, cells: Sequence[str]) -> int:
    """The width of a column, including the gap after it."""
    return max(width(line(text)) for text in (column.name, *cells)) + len(_GAP)


def _padded(text: str, wide: int, right: bool) -> str:
    space = " " * (wide - width(text))
    return space + text if right else text + space


def _filled(colours: Sequence[str], count: int) -> list[str]:
    return [*colours, *[""] * (count - len(colours))]


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(part) for part in value]
    return value
