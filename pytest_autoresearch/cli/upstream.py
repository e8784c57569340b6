"""Reads any `results.tsv`: ours, those of upstream's agents, and those of forks with other columns.

Columns are found by name, in any order; unknown columns are kept. Reads text, decides nothing.
"""

from __future__ import annotations

import codecs
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_autoresearch.cli.rows import Row
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Direction, Status

_MEMORY = {"memory_gb": 1024.0, "vram_gb": 1024.0, "peak_vram_gb": 1024.0}
_MEMORY |= dict.fromkeys(("memory_mb", "peak_vram_mb", "peak_memory_mb", "vram_mb"), 1.0)
_OURS = ("commit", "status", "description", *_MEMORY)
_METRICS = ("val_bpb", "metric", "val_loss", "score")
_WORDS = {"kept": "keep", "discarded": "discard", "crashed": "crash", "fail": "crash", "failed": "crash"}


@dataclass(frozen=True, slots=True)
class Results:
    """The contents of a file.

    Attributes:
        metric_name: The heading of its metric.
        direction: Guessed from the keeps; minimize if they do not tell.
        extra: The headings of columns that upstream's file does not have.
        rows: In the order of the file.
    """

    metric_name: str
    direction: Direction
    extra: tuple[str, ...]
    rows: tuple[Row, ...]


def read(path: Path) -> Results:
    """Read a file.

    Raises:
        UserError: It cannot be read, or is not a table of experiments.
    """
    try:
        text = _text(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    head, *body = _fields(lines) if lines else [[]]
    names = [name.strip().casefold().replace(" ", "_") for name in head]
    metric = _metric(names, body)
    if metric is None or not {"commit", "status", "description"} & set(names):
        raise UserError(
            f"{path} is not a table of experiments: its first line must name columns such as "
            "commit, val_bpb, memory_gb, status and description"
        )
    found = [dict(zip(names, _filled(fields, names), strict=True)) for fields in body]
    direction = _direction(found, metric)
    extra = tuple(dict.fromkeys(name for name in names if name and name not in (*_OURS, metric)))
    rows, best = [], None
    for place, fields in enumerate(found, 1):
        row = _row(place, fields, metric, extra, best)
        rows.append(row)
        if row.kept and row.metric is not None and (best is None or direction.gain(row.metric, best) > 0):
            best = row.metric
    return Results(metric, direction, extra, tuple(rows))


def _text(data: bytes) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # some shells write UTF-16 for `>`
    return data.decode("utf-16" if wide else "utf-8-sig", "replace").replace("\0", "")


def _fields(lines: Sequence[str]) -> list[list[str]]:
    """The fields of each line. With tabs, quotes are mostly literal; a file with commas follows the rules of CSV."""
    if "\t" not in lines[0] and "," in lines[0]:
        return list(csv.reader(lines))
    return [[_unquoted(field.strip()) for field in line.split("\t")] for line in lines]


def _unquoted(field: str) -> str:
    if len(field) > 1 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _filled(fields: list[str], names: list[str]) -> list[str]:
    """As many fields as names: missing fields are empty, and extra tabs belong to the last field."""
    last = len(names) - 1
    fields = [*fields[:last], " ".join(fields[last:])]
    return fields + [""] * (len(names) - len(fields))


def _metric(names: list[str], body: list[list[str]]) -> str | None:
    """The metric's heading: one of the usual names, else the first other column with only numbers and crashes."""
    if usual := next((name for name in _METRICS if name in names), None):
        return usual
    for n, name in enumerate(names):
        cells = [fields[n] for fields in body if n < len(fields)]
        if name and name not in (*_OURS, "number", "runs", "seed") and cells:
            numbers = [cell for cell in cells if _number(cell) is not None]
            if numbers and all(cell in numbers or cell.casefold() in ("", "-", "crash", "nan") for cell in cells):
                return name
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _status(fields: dict[str, str], metric: str) -> str:
    said = fields.get("status", "").casefold()
    return _WORDS.get(said, said) or ("crash" if fields[metric].casefold() == "crash" else "")


def _direction(found: list[dict[str, str]], metric: str) -> Direction:
    numbers = [_number(fields[metric]) for fields in found if _status(fields, metric) == Status.KEEP]
    kept = [number for number in numbers if number is not None]
    return Direction.MAXIMIZE if kept and kept[-1] > kept[0] else Direction.MINIMIZE


def _row(place: int, fields: dict[str, str], metric: str, extra: tuple[str, ...], best: float | None) -> Row:
    status = _status(fields, metric)
    value = None if status == Status.CRASH else _number(fields[metric])
    memory = next(
        (number * unit for name, unit in _MEMORY.items() if (number := _number(fields.get(name, ""))) is not None), None
    )
    description = fields.get("description", "")
    document: dict[str, Any] = {
        "row": place,
        "commit": fields.get("commit", ""),
        "status": status or None,
        "metric_name": metric,
        "metric": value,
        "best": best,
        "memory_mb": memory or None,
    }
    document |= {name: fields[name] for name in extra if name not in document} | {"description": description}
    return Row(
        name=str(place),
        status=status,
        metric=value,
        best=best,
        shown="crash" if value is None and status == Status.CRASH else "" if value is None else f"{value:.6f}",
        said=description,
        sought=" ".join(fields.values()),
        memory_mb=document["memory_mb"] or None,
        document=document,
    )
