"""Turns a finished training process into a Run: with a metric, with a crash, or still to be scored.

Computes the startup and training seconds too. Knows the process's output, how it ended, and its model file; starts
nothing and loads nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pytest_autoresearch.core.run import Crash, CrashClass, Run
from pytest_autoresearch.runners import lookalike
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.clock import Clock
from pytest_autoresearch.runners.crashes import exit_crash, score_crash
from pytest_autoresearch.runners.output import Output
from pytest_autoresearch.runners.summary import Summary
from pytest_autoresearch.runners.time_limits import MODEL, grace_seconds, over_budget
from pytest_autoresearch.runners.watch import Ended


class ProcessOutput:
    """The output of one process, or of several ranks, as text and as numbers."""

    def __init__(self, metric_name: str, ranks: int = 1) -> None:
        self.metric_name = metric_name
        self.text = Output()
        self.summary = Summary(metric_name, ranks=ranks)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of output."""
        self.text.feed(data)
        self.summary.feed(data)

    def finish(self) -> None:
        """Take the end of the output."""
        self.summary.finish()


def reported_run(job: Job, clock: Clock, ended: Ended, output: ProcessOutput) -> Run:
    """The run of a process that reports the metric itself."""
    crash, metric = ended.crash, None
    if crash is None and ended.exit_status != 0:
        crash = exit_crash(ended.exit_status, output.text.lines)
    elif crash is None:
        crash, metric = _metric_or_crash(output)
    numbers = output.summary.numbers()
    clocked = ended.seconds - (clock.begun or 0.0)
    training_seconds = min(max(0.0, numbers.get("training_seconds", clocked)), ended.seconds)
    # Upstream checks its clock between steps, so it ends up to one step late and prints 300.1. The last step began
    # within the budget, so time within the grace is not counted as over the budget.
    budget = job.limits.budget_seconds
    if budget < training_seconds <= budget + grace_seconds(job.limits):
        training_seconds = budget
    startup_seconds = ended.seconds - training_seconds
    return _run(job, ended, output, numbers, (startup_seconds, training_seconds), crash, metric)


def scored_run(job: Job, clock: Clock, ended: Ended, output: ProcessOutput) -> Run:
    """The run of a process that writes a model: with a crash, or without a metric until the model is scored."""
    startup_seconds, training_seconds, model = ended.seconds, 0.0, None
    if clock.begun is not None:
        startup_seconds, training_seconds = clock.begun - clock.held, ended.seconds - clock.begun
        model = _model_seconds(job.out / MODEL, clock, training_seconds)
    crash = ended.crash
    if crash is None and ended.exit_status != 0:
        crash = exit_crash(ended.exit_status, output.text.lines)
    elif crash is None and clock.begun is None:
        crash = Crash(
            CrashClass.NO_METRIC, "training never called harness.begin(): call it once, before the first step"
        )
    elif crash is None and model is None:
        crash = Crash(CrashClass.NO_METRIC, f"training ended without writing {MODEL} to AUTORESEARCH_OUT")
    elif model is not None and (crash is None or crash.kind is CrashClass.OVER_BUDGET):
        most = job.limits.budget_seconds + grace_seconds(job.limits)
        crash = None if model <= most else over_budget(job.limits)
        # Within the budget, training ends with its model: what follows is the end of the process. Over the budget, it
        # is charged until its end, because a file that is mapped into memory can change without a new time.
        training_seconds = model if model <= job.limits.budget_seconds else training_seconds
    # The metric that training itself prints decides nothing, so only `reported` holds it.
    not_its_own = job.scorer_prints | {job.metric_name}
    numbers = {name: value for name, value in output.summary.numbers().items() if name not in not_its_own}
    run = _run(job, ended, output, numbers, (startup_seconds, training_seconds), crash)
    gpu_seconds = None if clock.gpu_seconds is None else round(clock.gpu_seconds, 2)
    return replace(run, startup_cpu_seconds=round(clock.cpu_seconds, 2), startup_gpu_seconds=gpu_seconds)


def with_score(run: Run, ended: Ended, output: ProcessOutput) -> Run:
    """`run` with the trusted scorer's numbers, and with the metric or the scorer's crash.

    A scorer that failed has no numbers: the words of its error may be the candidate's.
    """
    crash, metric = ended.crash, None
    if crash is None and ended.exit_status != 0:
        crash = score_crash(ended.exit_status, output.text.lines)
    elif crash is None:
        crash, metric = _metric_or_crash(output)
    return replace(
        run,
        metric=metric,
        scored={} if crash else output.summary.numbers(),
        score_seconds=ended.seconds,
        score_transport=_transport(output),
        total_seconds=run.total_seconds + ended.seconds,
        crash=crash,
    )


def _run(
    job: Job,
    ended: Ended,
    output: ProcessOutput,
    numbers: Mapping[str, float],
    seconds: tuple[float, float],
    crash: Crash | None,
    metric: float | None = None,
) -> Run:
    printed = output.summary.numbers()
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
        total_memory_mb=ended.usage.total_mb,
        device=ended.usage.device,
        others=ended.usage.others,
        throttling=ended.usage.throttling,
        allocator_mb=printed.get("peak_vram_mb") or None,  # without a GPU, programs print 0
        lane=job.lane,
        exit_status=ended.exit_status,
        crash=crash,
        hopeless=hopeless,
        log=output.text.tail(),
    )


def _transport(output: ProcessOutput) -> str:
    words = (line.partition(": ") for line in output.text.lines)
    return next((value for name, _, value in words if name == "score_transport"), "")


def _metric_or_crash(output: ProcessOutput) -> tuple[Crash | None, float | None]:
    metric = output.summary.metric()
    if not isinstance(metric, Crash):
        return None, metric
    if output.summary.missing and (hint := lookalike.hint(output.metric_name, output.text.lines)):
        metric = replace(metric, message=f"{metric.message}; {hint}")
    return metric, None


def _model_seconds(path: Path, clock: Clock, most: float) -> float | None:
    """Seconds from the clock's start to the model's last change, at most `most`; None if there is no model.

    Training writes the model under another name and renames it, so a model that exists is complete. The time is the
    file's ctime: writing and renaming set it, and unlike mtime no program can set it back. The time when the file first
    appeared would not be safe, because training could replace that file with a better model later.
    """
    try:
        found = path.lstat()  # a symbolic link is not followed: it could point anywhere
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    # Bounded: the wall clock may be set during training, and file systems round times to some milliseconds.
    return min(max(0.0, (found.st_ctime_ns - clock.begun_ns) / 1e9), most)
