"""Reads any log of experiments as rows: ours, those of upstream's agents, and those of forks and other tools.

The file's format is `log_formats`, the meaning of its columns `log_columns`. Decides nothing about an experiment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_autoresearch.cli import log_columns, log_formats
from pytest_autoresearch.cli.log_formats import Log
from pytest_autoresearch.cli.rows import Row
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Direction, Status
from pytest_autoresearch.core.metric_names import direction_of, is_vague

_BETTER = {Direction.MINIMIZE: "a lower", Direction.MAXIMIZE: "a higher"}


@dataclass(frozen=True, slots=True)
class Results:
    """The contents of a file.

    Attributes:
        metric_name: The name of its metric; empty if no column is known to be it.
        direction: Which way the metric improves; None if unknown.
        extra: The headings of columns that upstream's file does not have.
        rows: In the order of the file.
        doubt: What was guessed or is not known, with the option that settles it; empty without doubt.
    """

    metric_name: str
    direction: Direction | None
    extra: tuple[str, ...]
    rows: tuple[Row, ...]
    doubt: str


@dataclass(frozen=True, slots=True)
class _Columns:
    """The headings of the columns that are known; empty if there is none.

    Attributes:
        unit_mb: The unit of `memory`, in MiB.
    """

    metric: str
    commit: str
    status: str
    description: str
    memory: str
    unit_mb: float


def read(path: Path, metric: str | None = None, direction: Direction | None = None) -> Results:
    """Read a file.

    Args:
        path: The file.
        metric: The heading of the metric, if the user named it.
        direction: Which way the metric improves, if the user said it.

    Raises:
        UserError: It cannot be read, is not a table of experiments, or has no such column.
    """
    try:
        log = log_formats.parse(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    columns = _columns(log, metric and _heading(path, log, metric))
    # A number among the headings: the first line is already an experiment.
    headed = not any(found and not found[1] for found in map(log_columns.number, log.names))
    if not (headed and (columns.status or columns.commit or (columns.metric and columns.description))):
        raise UserError(
            f"{path} is not a table of experiments: its first line must name columns such as "
            "commit, val_bpb, memory_gb, status and description"
        )
    known = (columns.metric, columns.commit, columns.status, columns.description, columns.memory)
    extra = tuple(dict.fromkeys(name for name in log.names if name and name not in known))
    title = log_columns.metric_title(log.names, log.rows, columns.metric, log.metric)
    judged = _judged(log, columns)
    direction, doubt = _direction(title, judged, direction or log.direction)
    if not columns.metric and log.rows:
        doubt = f"no column is known to be the metric: name it with --metric NAME; there are {', '.join(log.names)}"
    return Results(title, direction, extra, _rows(log, columns, title, judged, extra, direction), doubt)


def _heading(path: Path, log: Log, metric: str) -> str:
    """The heading of the metric that the user named.

    Raises:
        UserError: There is no such column.
    """
    wanted = log_formats.heading(metric)
    if wanted not in log.names:
        raise UserError(f"{path} has no column {metric}: give --metric one of {', '.join(filter(None, log.names))}")
    return wanted


def _columns(log: Log, metric: str | None) -> _Columns:
    names, rows = log.names, log.rows
    metric = metric or log_columns.metric_column(names, rows, log_formats.heading(log.metric))
    others = [name for name in names if name != metric]
    memory, unit_mb = log_columns.memory_column(others)
    return _Columns(
        metric,
        log_columns.commit_column(others),
        log_columns.status_column(others, rows),
        log_columns.description_column([name for name in others if name != "metric"], rows),
        memory,
        unit_mb,
    )


def _judged(log: Log, columns: _Columns) -> list[tuple[str, Status | None, float | None]]:
    """The word of each row's verdict, its meaning, and the metric, which a crash does not have."""
    cells = [row[columns.metric] for row in log.rows] if columns.metric else [""] * len(log.rows)
    found = []
    for row, cell, value in zip(log.rows, cells, log_columns.numbers(cells), strict=True):
        said = log_columns.word(row[columns.status] if columns.status else "")
        said = said or (Status.CRASH if cell.casefold() == Status.CRASH else "")
        verdict = log_columns.meaning(said)
        found.append((said, verdict, None if verdict is Status.CRASH else value))
    return found


def _direction(
    title: str, judged: Sequence[tuple[str, Status | None, float | None]], told: Direction | None
) -> tuple[Direction | None, str]:
    """Which way the metric improves, by what was told, its name, or the verdicts; and what is doubtful about it."""
    if told is not None or not title:
        return told, ""
    guessed = log_columns.guessed_direction([(verdict, value) for _, verdict, value in judged])
    named = direction_of(title)
    if guessed is None and named is None:
        said = f"it is not known whether a lower or a higher {title} is better"
        return None, f"{said}: add --direction {Direction.MINIMIZE} or {Direction.MAXIMIZE}"
    if guessed is None or guessed is named:
        return named, ""
    if named is None or is_vague(title):
        other = next(way for way in Direction if way is not guessed)
        return guessed, f"by its verdicts, {_BETTER[guessed]} {title} is better: if not, add --direction {other}"
    kept = [(verdict, value) for _, verdict, value in judged if verdict is Status.KEEP]
    if log_columns.guessed_direction(kept) is not guessed:  # only discards say it, which have other reasons, too
        return named, ""
    said = f"by its name, {_BETTER[named]} {title} is better, but its keeps say the opposite"
    return named, f"{said}: if they are right, add --direction {guessed}"


def _rows(
    log: Log,
    columns: _Columns,
    title: str,
    judged: Sequence[tuple[str, Status | None, float | None]],
    extra: Sequence[str],
    direction: Direction | None,
) -> tuple[Row, ...]:
    rows, best = [], None
    start = min((value for _, verdict, value in judged if verdict is Status.KEEP and value is not None), default=0.0)
    for place, (fields, (said, verdict, value)) in enumerate(zip(log.rows, judged, strict=True), 1):
        # Where lower is better, a 0 that was not kept is only a placeholder: measured, it would be the best.
        if value == 0 and direction is Direction.MINIMIZE and verdict is not Status.KEEP and start > 0:
            value = None
        row = _row(place, fields, columns, title, (said, verdict, value), extra, best)
        rows.append(row)
        if direction and row.kept and value is not None and (best is None or direction.gain(value, best) > 0):
            best = value
    return tuple(rows)


def _row(
    place: int,
    fields: Mapping[str, str],
    columns: _Columns,
    title: str,
    judged: tuple[str, Status | None, float | None],
    extra: Sequence[str],
    best: float | None,
) -> Row:
    said, verdict, value = judged
    memory = log_columns.number(fields[columns.memory]) if columns.memory else None
    description = fields[columns.description] if columns.description else ""
    document: dict[str, Any] = {
        "row": place,
        "commit": fields[columns.commit] if columns.commit else "",
        "status": said or None,
        "metric_name": title or None,
        "metric": value,
        "best": best,
        "memory_mb": (memory[0] * columns.unit_mb if memory else 0.0) or None,
    }
    document |= {name: fields[name] for name in extra if name not in document} | {"description": description}
    cell = fields[columns.metric] if columns.metric else ""
    return Row(
        name=str(place),
        status=said,
        verdict=verdict,
        metric=value,
        best=best,
        shown=f"{value:.6f}" if value is not None else said if verdict is Status.CRASH else cell,
        said=description,
        sought=" ".join(fields.values()),
        memory_mb=document["memory_mb"],
        document=document,
    )
