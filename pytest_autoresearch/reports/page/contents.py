"""The data that the page loads at once: summary, a row for each experiment, the kept changes, time and money.

Plain data for JSON, stored by column because ten thousand rows are parsed at once. Pure: records in. Data that only
the view of one experiment needs is in `details`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pytest_autoresearch.core import conditions
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import Role
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.racing import races
from pytest_autoresearch.keeprule.replicates import luck
from pytest_autoresearch.reports.page.timeline import timeline
from pytest_autoresearch.reports.plain import line
from pytest_autoresearch.reports.points import Point, counted, decimals, limits, noise_of, points
from pytest_autoresearch.reports.summary import runs_beyond_the_first

STATUSES = (Status.KEEP, Status.DISCARD, Status.CRASH)
_TEXT_CHARACTERS = 240
_FIGURES = 9
STAGES = ("propose", "startup", "training", "scoring", "other")
ROLES = (Role.BASELINE, Role.SCREEN, Role.CONFIRM, Role.INCUMBENT, Role.EXTRA, Role.BATCH)


@dataclass(frozen=True, slots=True)
class About:
    """Facts about the page that the records do not have.

    Attributes:
        running: Whether the session that writes the page is still running.
        position: Where that session is, in a sentence; empty if that is unknown.
        written_at: When the page is written, in seconds since the epoch.
        audit: The result of an audit, in a sentence; empty if there was none.
        left_out: How many experiments' logs and diffs were not read, to save the session's time.
    """

    running: bool = False
    position: str = ""
    written_at: float = 0.0
    audit: str = ""
    left_out: int = 0


def contents(records: Sequence[Experiment], about: About) -> dict[str, Any]:
    """The campaign, its rows and its totals.

    Args:
        records: Judged, by number; at least one.
    """
    first = records[0]
    noise = noise_of(records)
    drawn = points(records)
    low, high = limits(drawn, first.direction)
    known = 0 < noise.sd < math.inf and noise.degrees
    return {
        "tag": line(first.tag),
        "metric": line(first.metric_name),
        "direction": str(first.direction),
        "decimals": decimals(records, noise),
        "running": about.running,
        "position": about.position,
        "written_at": about.written_at,
        "left_out": about.left_out,
        "began_at": min(record.finished_at - record.seconds for record in records),
        "ended_at": max(record.finished_at for record in records),
        "setting": {
            "hardware": line(first.setting.hardware_key or first.setting.profile),
            "sandbox": line(first.setting.sandbox),
            "budget": _number(first.limits.budget_seconds),
            "branch": f"autoresearch/{line(first.tag)}",
        },
        "changes": [line(change) for change in _changes(records)],
        "noise": {"sd": _number(noise.sd), "degrees": noise.degrees} if known else None,
        "limits": [_number(low), _number(high)],
        "best": [_number(point.best) for point in drawn],
        "head": _head(records, about),
        "rows": _rows(records, drawn),
        "chain": _chain(records),
        "time": _time(records),
        "money": _money(records),
        "lanes": timeline(records, ROLES),
        "stages": STAGES,
        "roles": ROLES,
    }


def _changes(records: Sequence[Experiment]) -> Iterator[str]:
    """What changed on the machine during the campaign, although results are still compared."""
    for before, record in pairwise(records):
        for change in conditions.reported(before.setting, record.setting):
            yield f"{change.what} changed at {record.number:04d}"


def _head(records: Sequence[Experiment], about: About) -> dict[str, Any]:
    kept = chain(records)
    tried = [record for record in records if record.number != BASELINE]
    count = {status: sum(r.verdict is not None and r.verdict.status is status for r in tried) for status in STATUSES}
    asked = [keep.decision.probability for keep in kept[1:] if keep.decision.probability is not None]
    known, raced = luck(records), races(records)
    return {
        "first": _number(kept[0].metric) if kept else None,
        "last": _number(replicates.levels(records)[-1]) if kept else None,
        "last_number": kept[-1].number if kept else None,
        "tried": len(tried),
        "kept": count[Status.KEEP],
        "discarded": count[Status.DISCARD],
        "crashed": count[Status.CRASH],
        "asked": len(asked),
        "nothing": _number(known.nothing),
        "chance": _number(known.chance, 3),
        "judged": known.tried,
        "exact": noise_of(records).exact,
        "audit": line(about.audit),
        "runs": sum(len(record.runs) for record in records),
        "again": runs_beyond_the_first(records),
        "saved": _number(raced.saved_seconds),
        "stopped": raced.stopped,
        "spared": raced.spared,
        "wrong": raced.wrong,
        "inconclusive": sum(bool(run.inconclusive) for record in records for run in record.runs),
    }


def _rows(records: Sequence[Experiment], shown: Sequence[Point]) -> dict[str, Any]:
    """The table, by column; repeated words are stored once and referred to by index."""
    reasons, proposers = _Words(), _Words()
    drawn = {point.number: point for point in shown}
    rows = [
        {
            "number": record.number,
            "status": STATUSES.index(record.verdict.status),
            "reason": reasons.place(record.verdict.reason),
            "proposer": proposers.place(record.proposal.proposer),
            "metric": _number(drawn[record.number].metric),
            "error": _number(drawn[record.number].error, 4),
            "incumbent": _number(record.decision.best),
            "gain": _number(record.verdict.gain),
            "p": _number(record.decision.probability, 4),
            "runs": len(record.runs),
            "counted": len(counted(record)),
            "seconds": _number(record.seconds, 4),
            "cost": _number(record.usage.cost_usd, 4),
            "memory": _number(record.peak_memory_mb, 4),
            "at": round(record.finished_at),
            "added": record.lines_added,
            "removed": record.lines_removed,
            "text": cut(record.proposal.description, _TEXT_CHARACTERS),
            "area": cut(record.proposal.area, 60),
        }
        for record in records
        if record.verdict is not None
    ]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    return columns | {"reasons": reasons.words, "proposers": proposers.words}


class _Words:
    """A list of distinct words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, word: str) -> int:
        word = cut(word, 60)
        if word not in self._places:
            self._places[word] = len(self.words)
            self.words.append(word)
        return self._places[word]


def _chain(records: Sequence[Experiment]) -> list[dict[str, Any]]:
    """The kept changes in the order of the branch, each with its gain when judged and its estimate now."""
    known = replicates.samples(records)
    return [
        {
            "number": keep.number,
            "metric": _number(keep.metric),
            "gain": _number(keep.verdict.gain) if keep.verdict else None,
            "p": _number(keep.decision.probability, 4),
            "now": _number(known[keep.commit].mean) if keep.commit in known else None,
            "now_runs": known[keep.commit].runs if keep.commit in known else 0,
            "commit": keep.commit[:10],
        }
        for keep in chain(records)
    ]


def stages(experiment: Experiment) -> dict[str, float]:
    """An experiment's seconds by stage."""
    runs = experiment.runs
    parts = {
        "propose": experiment.timings.get("propose", 0.0),
        "startup": math.fsum(run.startup_seconds for run in runs),
        "training": math.fsum(run.training_seconds for run in runs),
        "scoring": math.fsum(run.score_seconds for run in runs),
    }
    return parts | {"other": max(0.0, experiment.seconds - math.fsum(parts.values()))}


def _kind(experiment: Experiment) -> str:
    if experiment.number == BASELINE:
        return "baseline"
    return str(experiment.verdict.status) if experiment.verdict else ""


def _time(records: Sequence[Experiment]) -> dict[str, Any]:
    """Seconds by stage and by verdict, and of training runs by role."""
    by_stage, by_kind = dict.fromkeys(STAGES, 0.0), dict.fromkeys(("baseline", *map(str, STATUSES)), 0.0)
    by_role: dict[str, list[float]] = {}
    for record in records:
        for name, seconds in stages(record).items():
            by_stage[name] += seconds
        if kind := _kind(record):
            by_kind[kind] += record.seconds
        for run in record.runs:
            count, total = by_role.get(run.role, (0, 0.0))
            by_role[run.role] = [count + 1, total + run.total_seconds]
    return {
        "stage": _rounded(by_stage),
        "kind": _rounded(by_kind),
        "role": {role: [count, _number(seconds, 5)] for role, (count, seconds) in by_role.items()},
    }


def _money(records: Sequence[Experiment]) -> dict[str, Any]:
    """US dollars by verdict, and tokens by kind."""
    by_kind = dict.fromkeys(map(str, STATUSES), 0.0)
    tokens = dict.fromkeys(("input", "cache_read", "cache_write", "output"), 0)
    models: dict[str, int] = {}
    unknown = 0
    for record in records:
        usage = record.usage
        if usage.model:
            name = cut(usage.model, 60)
            models[name] = models.get(name, 0) + usage.requests
        unknown += usage.cost_usd is None
        if record.number != BASELINE and record.verdict is not None:
            by_kind[str(record.verdict.status)] += usage.cost_usd or 0.0
        for kind in tokens:
            tokens[kind] += getattr(usage, f"{kind}_tokens")
    return {"kind": _rounded(by_kind), "tokens": tokens, "models": models, "unknown": unknown}


def _rounded(parts: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value, 6) for name, value in parts.items()}


def cut(text: str, most: int) -> str:
    """The text on one line, plain, at most `most` characters long."""
    short = line(text[: 4 * most])
    return short if len(short) <= most else f"{short[: most - 1].rstrip()}…"


def _number(value: float | None, figures: int = _FIGURES) -> float | int | None:
    """The number with `figures` significant digits; None if it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{figures}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
