"""One runner for several lanes: each run goes to its lane's devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pytest_autoresearch.core.run import Progress, Run
from pytest_autoresearch.hardware.lanes import Lane
from pytest_autoresearch.runners.base import Job, Runner


class LanesRunner:
    """See `Runner`.

    Args:
        lanes: Each lane and the runner that uses its devices.
    """

    def __init__(self, lanes: Sequence[tuple[Lane, Runner]]) -> None:
        self._lanes = lanes

    def run(self, job: Job, on_progress: Callable[[Progress], str | None]) -> Run:
        lane, runner = self._lanes[job.lane]
        with lane.pinned():
            return runner.run(replace(job, environment={**job.environment, **lane.environment}), on_progress)

    def close(self) -> None:
        for _, runner in self._lanes:
            runner.close()
