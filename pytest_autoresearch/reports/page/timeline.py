"""When each lane of a campaign was at work, for the page. Pure.

Times in which no session ran are left out: the page shows the share of a session that a lane was idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.run import Role

PAUSE_SECONDS = 120.0  # without an experiment under way: no session ran


def timeline(records: Sequence[Experiment], roles: Sequence[Role]) -> dict[str, Any] | None:
    """The runs of every lane; None if the records do not say when their runs began.

    Args:
        records: Judged, in the order of the page's rows.
        roles: The roles of runs, which the result refers to by index.
    """
    known = [record for record in records if any(run.began_at is not None for run in record.runs)]
    if not known:
        return None
    sessions = _sessions(known)
    lanes: dict[int, list[list[float]]] = {}
    for place, record in enumerate(records):
        for run in record.runs:
            if run.began_at is not None and run.role in roles:
                at = _at(sessions, run.began_at)
                row = [round(at, 1), round(run.total_seconds, 1), place, roles.index(run.role)]
                lanes.setdefault(run.lane, []).append(row)
    whole = sum(end - begin for begin, end in sessions)
    pauses = [round(_at(sessions, begin), 1) for begin, _ in sessions[1:]]
    found = [{"lane": lane, "runs": sorted(runs), "idle": _idle(runs, whole)} for lane, runs in sorted(lanes.items())]
    return {"seconds": round(whole, 1), "pauses": pauses, "lanes": found}


def _sessions(records: Iterable[Experiment]) -> list[tuple[float, float]]:
    """When experiments were under way, without pauses, in seconds since the epoch."""
    spans = [(record.finished_at - record.seconds, record.finished_at) for record in records]
    spans += [
        (run.began_at, run.began_at + run.total_seconds)
        for record in records
        for run in record.runs
        if run.began_at is not None
    ]
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin - found[-1][1] <= PAUSE_SECONDS:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def _at(sessions: Sequence[tuple[float, float]], time: float) -> float:
    """The seconds of sessions before this time."""
    return sum(min(end, max(begin, time)) - begin for begin, end in sessions)


def _idle(runs: Iterable[Sequence[float]], whole: float) -> float:
    """The share of the time in which the lane had no run."""
    return round(max(0.0, 1 - sum(run[1] for run in runs) / whole), 4) if whole else 0.0
