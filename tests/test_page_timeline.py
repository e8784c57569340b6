"""What each lane did when: pauses are left out, and idle time is counted within sessions."""

from __future__ import annotations

from dataclasses import replace

from places import attempt, judged

from pytest_autoresearch.core.experiment import Experiment, Status
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.reports.page.timeline import PAUSE_SECONDS, timeline

ROLES = (Role.SCREEN, Role.INCUMBENT)


def experiment(number: int, *runs: tuple[float, float, int], proposing: float = 0.0) -> Experiment:
    """An experiment with runs, each with its beginning, its seconds and its lane, and a proposal before them."""
    made = tuple(
        Run(n, 1.0, began_at=began, total_seconds=long, lane=lane) for n, (began, long, lane) in enumerate(runs)
    )
    last = max(began + long for began, long, _ in runs)
    spent = last - min(began for began, _, _ in runs) + proposing
    done = judged(attempt(number, runs=made, timings={"run": spent}), Status.DISCARD)
    return replace(done, finished_at=last)


def test_each_lane_has_its_runs_and_its_idle_share() -> None:
    first = experiment(1, (1000, 100, 0), (1100, 50, 1), proposing=50)
    second = experiment(2, (1100, 100, 0))
    assert timeline([first, second], ROLES) == {
        "seconds": 250,
        "pauses": [],
        "lanes": [
            {"lane": 0, "runs": [[50, 100, 0, 0], [150, 100, 1, 0]], "idle": 0.2},
            {"lane": 1, "runs": [[150, 50, 0, 0]], "idle": 0.8},
        ],
    }


def test_a_pause_between_sessions_is_left_out() -> None:
    later = 1100 + 10 * PAUSE_SECONDS
    found = timeline([experiment(1, (1000, 100, 0)), experiment(2, (later, 100, 0))], ROLES)
    assert found is not None
    assert (found["seconds"], found["pauses"]) == (200, [100])
    assert found["lanes"] == [{"lane": 0, "runs": [[0, 100, 0, 0], [100, 100, 1, 0]], "idle": 0}]


def test_records_of_earlier_versions_have_no_timeline() -> None:
    old = judged(attempt(1, runs=(Run(1, 1.0, total_seconds=100.0),)))
    assert timeline([old], ROLES) is None
    mixed = timeline([old, experiment(2, (1000, 100, 0))], ROLES)
    assert mixed is not None
    assert mixed["lanes"][0]["runs"] == [[0, 100, 1, 0]]
