"""Experiments as rows for people and programs, here from the records of a campaign.

Pure: records in, rows out; prints nothing.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_autoresearch.core.experiment import Direction, Experiment, Reason, Status
from pytest_autoresearch.reports.summary import reason_words

_PLAIN = (Reason.NOT_IMPROVED, Reason.REGRESSION)  # the numbers show these reasons


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment.

    Attributes:
        name: Its name for people: `0017`, or its line number in a file.
        status: `keep`, `discard` or `crash`; in a file from elsewhere it may be another word, or empty.
        verdict: What the word means; None if it means none of the three.
        metric: None for a crash.
        best: The best before it; None for the first.
        shown: The metric's cell: a number, or the class of the crash.
        said: The description, with the reason of a discard that the numbers do not show.
        sought: The text that a search looks into.
        finished_at: In seconds since the epoch; None if unknown.
        runs: Number of training runs; None if unknown.
        seconds: Its duration; None if unknown.
        memory_mb: In MiB; None if unknown.
        lanes: The lanes of its runs, such as `0` or `0, 2`; empty if unknown.
        probability: That it is better than the best before it; None if not computed.
        document: All fields for programs, by name; numbers as numbers, missing values as None.
    """

    name: str
    status: str
    verdict: Status | None
    metric: float | None
    best: float | None
    shown: str
    said: str
    sought: str
    finished_at: float | None = None
    runs: int | None = None
    seconds: float | None = None
    memory_mb: float | None = None
    lanes: str = ""
    probability: float | None = None
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        return self.verdict is Status.KEEP


def row_of(experiment: Experiment) -> Row:
    """The row of a judged experiment."""
    document = document_of(experiment)
    crash, ruling = experiment.crash, experiment.verdict
    said = experiment.proposal.description
    if crash is not None:
        said = f"{said} ({crash.message})"
    elif ruling is not None and ruling.status is Status.DISCARD and ruling.reason not in _PLAIN:
        said = f"{said} ({reason_words(ruling.reason)})"
    metric = document["metric"]
    return Row(
        name=f"{experiment.number:04d}",
        status=document["status"] or "",
        verdict=ruling.status if ruling else None,
        metric=metric,
        best=experiment.decision.best,
        shown=crash.reason if crash is not None else "" if metric is None else f"{metric:.6f}",
        said=said,
        sought=" ".join([said, *(str(document[name]) for name in ("hypothesis", "reason", "area", "message"))]),
        finished_at=experiment.finished_at,
        runs=len(experiment.runs),
        seconds=experiment.seconds,
        memory_mb=experiment.peak_memory_mb or None,
        lanes=document["lanes"],
        probability=experiment.decision.probability,
        document=document,
    )


def document_of(experiment: Experiment) -> dict[str, Any]:
    """All fields of an experiment for programs, flat: one value for each name."""
    ruling, proposal = experiment.verdict, experiment.proposal
    crashed = ruling is not None and ruling.status is Status.CRASH
    return {
        "tag": experiment.tag,
        "number": experiment.number,
        "status": str(ruling.status) if ruling else None,
        "reason": ruling.reason if ruling else None,
        "metric_name": experiment.metric_name,
        "metric": None if crashed else finite(experiment.metric),
        "best": finite(experiment.decision.best),
        "gain": finite(ruling.gain) if ruling else None,
        "margin": finite(experiment.margin),
        "probability": experiment.decision.probability,
        "runs": len(experiment.runs),
        "lanes": ", ".join(map(str, sorted({run.lane for run in experiment.runs}))),
        "seconds": round(experiment.seconds, 3),
        "training_seconds": round(experiment.training_seconds, 3),
        "memory_mb": round(experiment.peak_memory_mb, 1),
        "allocator_mb": experiment.allocator_mb,
        "cost_usd": finite(experiment.usage.cost_usd),
        "proposer": proposal.proposer,
        "model": experiment.usage.model,
        "area": proposal.area,
        "repairs": len(experiment.repairs),
        "lines_added": experiment.lines_added,
        "lines_removed": experiment.lines_removed,
        "finished_at": moment(experiment.finished_at),
        "commit": experiment.commit,
        "base": experiment.base,
        "description": proposal.description,
        "hypothesis": proposal.hypothesis,
        "message": ruling.message if ruling else None,
    }


def finite(value: float | None) -> float | None:
    """The number, or None if it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def moment(seconds: float) -> str:
    """A time in UTC, in ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def first_and_best(rows: Iterable[Row], direction: Direction | None) -> tuple[Row | None, Row | None]:
    """The first and the best of the kept rows; neither where the direction is unknown."""
    if direction is None:
        return None, None
    kept = [row for row in rows if row.kept and row.metric is not None]
    best = max(kept, key=lambda row: direction.gain(row.metric or 0.0, 0.0), default=None)
    return (kept[0] if kept else None), best
