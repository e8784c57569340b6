"""What came of a training process that is gone: its Run, with a metric, with a crash, or still to be scored.

Here the seconds are settled that a run is charged with. Knows what the process said, how it ended and what file it
left; starts nothing and loads nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pytest_autoresearch.core.run import Crash, CrashClass, Run
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.crashes import exit_crash, score_crash
from pytest_autoresearch.runners.fences import MODEL, grace_seconds, over_budget
from pytest_autoresearch.runners.output import Output
from pytest_autoresearch.runners.summary import Summary
from pytest_autoresearch.runners.watch import Clock, Ended


class Said:
    """What one process said, as text and as numbers."""

    def __init__(self, metric_name: str) -> None:
        self.output = Output()
        self.summary = Summary(metric_name)

    def hear(self, data: bytes) -> None:
        """Take more of it, as it was read."""
        self.output.hear(data)
        self.summary.hear(data)

    def finish(self) -> None:
        """It will say no more."""
        self.summary.finish()


def reported_run(job: Job, clock: Clock, ended: Ended, said: Said) -> Run:
    """The run of a process that reports the metric itself."""
    crash, metric = ended.crash, None
    if crash is None and ended.exit_status != 0:
        crash = exit_crash(ended.exit_status, said.output.lines)
    elif crash is None:
        crash, metric = _metric_or_crash(said)
    numbers = said.summary.numbers()
    clocked = ended.seconds - (clock.begun or 0.0)
    training_seconds = min(max(0.0, numbers.get("training_seconds", clocked)), ended.seconds)
    # Upstream looks at its clock between steps, so it ends up to one step late and prints 300.1. That step was begun
    # in time: what lies within the grace costs the budget and no more.
    budget = job.limits.budget_seconds
    if budget < training_seconds <= budget + grace_seconds(job.limits):
        training_seconds = budget
    startup_seconds = ended.seconds - training_seconds
    return _run(job, ended, said, numbers, (startup_seconds, training_seconds), crash, metric)


def scored_run(job: Job, clock: Clock, ended: Ended, said: Said) -> Run:
    """The run of a process that leaves a model: with a crash, or without a metric until it is scored."""
    startup_seconds, training_seconds, model = ended.seconds, 0.0, None
    if clock.begun is not None:
        startup_seconds, training_seconds = clock.begun, ended.seconds - clock.begun
        model = _model_seconds(job.out / MODEL, clock, training_seconds)
    crash = ended.crash
    if crash is None and ended.exit_status != 0:
        crash = exit_crash(ended.exit_status, said.output.lines)
    elif crash is None and clock.begun is None:
        crash = Crash(
            CrashClass.NO_METRIC, "training never called harness.begin(): call it once, before the first step"
        )
    elif crash is None and model is None:
        crash = Crash(CrashClass.NO_METRIC, f"training ended without leaving {MODEL} in AUTORESEARCH_OUT")
    elif model is not None and (crash is None or crash.kind is CrashClass.OVER_BUDGET):
        most = job.limits.budget_seconds + grace_seconds(job.limits)
        crash = None if model <= most else over_budget(job.limits)
        training_seconds = model
    # Training's own value of the metric decides nothing, so it stands nowhere but in `reported`.
    numbers = {name: value for name, value in said.summary.numbers().items() if name != job.metric_name}
    return _run(job, ended, said, numbers, (startup_seconds, training_seconds), crash)


def with_score(run: Run, ended: Ended, said: Said) -> Run:
    """`run` with the trusted scorer's numbers, and with its metric or the reason why it gave none."""
    crash, metric = ended.crash, None
    if crash is None and ended.exit_status != 0:
        crash = score_crash(ended.exit_status, said.output.lines)
    elif crash is None:
        crash, metric = _metric_or_crash(said)
    return replace(
        run,
        metric=metric,
        metrics={**run.metrics, **said.summary.numbers()},
        score_seconds=ended.seconds,
        score_transport=_transport(said),
        total_seconds=run.total_seconds + ended.seconds,
        crash=crash,
    )


def _run(
    job: Job,
    ended: Ended,
    said: Said,
    numbers: Mapping[str, float],
    seconds: tuple[float, float],
    crash: Crash | None,
    metric: float | None = None,
) -> Run:
    printed = said.summary.numbers()
    startup_seconds, training_seconds = seconds
    hopeless = ""
    if crash is not None and crash.kind is CrashClass.HOPELESS:
        hopeless, crash = crash.message, None
    return Run(
        seed=job.seed,
        metric=metric,
        reported=printed.get(job.metric_name),
        metrics=numbers,
        training_seconds=training_seconds,
        startup_seconds=startup_seconds,
        total_seconds=ended.seconds,
        peak_memory_mb=ended.usage.peak_mb,
        memory_from=ended.usage.measured,
        resident_mb=ended.usage.resident_mb,
        device=ended.usage.device,
        others=ended.usage.others,
        throttling=ended.usage.throttling,
        allocator_mb=printed.get("peak_vram_mb") or None,  # a program without a device to ask prints 0
        lane=job.lane,
        exit_status=ended.exit_status,
        crash=crash,
        hopeless=hopeless,
        log=said.output.tail(),
    )


def _transport(said: Said) -> str:
    words = (line.partition(": ") for line in said.output.lines)
    return next((value for name, _, value in words if name == "score_transport"), "")


def _metric_or_crash(said: Said) -> tuple[Crash | None, float | None]:
    metric = said.summary.metric()
    return (metric, None) if isinstance(metric, Crash) else (None, metric)


def _model_seconds(path: Path, clock: Clock, most: float) -> float | None:
    """How long after the clock was started the model was last changed, at most `most`; None where there is no model.

    Training writes the model under another name and renames it, so one that is there is complete. The time is that of
    the file's last change of status: writing and renaming set it, and no program can set it back as it can the others.
    The moment at which the file was first seen would not do: that one may be a decoy, replaced after more training.
    """
    try:
        found = path.lstat()  # a link may lead anywhere
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    # The wall clock may be set while training runs, and file systems keep time in steps of some milliseconds.
    return min(max(0.0, (found.st_ctime_ns - clock.begun_ns) / 1e9), most)
