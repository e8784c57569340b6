"""One training process: its limits, its result, its progress. Pure; imports nothing of the project."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one run.

    Attributes:
        budget_seconds: Training seconds, from `harness.begin()` on.
        startup_seconds: Seconds before training begins (imports, building, compiling).
        deadline_seconds: Hard timeout of the whole training process.
        memory_limit_mb: Memory of the process tree, in MiB: device memory on a GPU, else resident memory; infinite
            without a limit.
        startup_cpu_seconds: Processor time of all processes before training begins; infinite without a limit.
        startup_gpu_seconds: How long its GPUs may be busy before training begins, all together; infinite without a
            limit.
    """

    budget_seconds: float
    startup_seconds: float
    deadline_seconds: float
    memory_limit_mb: float = math.inf
    startup_cpu_seconds: float = math.inf
    startup_gpu_seconds: float = math.inf


class CrashClass(StrEnum):
    """The kind of a crash."""

    SYNTAX = "syntax"
    IMPORT = "import"
    OOM = "oom"  # the allocator reported that it is out of memory
    NAN = "nan"
    TIMEOUT = "timeout"
    OVER_BUDGET = "over-budget"
    OVER_MEMORY = "over-memory"  # measured from outside
    OVER_DISK = "over-disk"
    OVER_PROCESSES = "over-processes"
    OVER_OUTPUT = "over-output"  # agents only; the output of a run has no limit
    UNWATCHED = "unwatched"
    NO_METRIC = "no-metric"
    REJECTED = "rejected"  # the scorer found that the metric is not genuine
    REFUSED = "refused"
    STALE = "stale"  # the proposal conflicts with what was kept since it was made
    NO_PROPOSAL = "no-proposal"
    LOST = "lost"  # the node of the cluster ended during the run
    HOPELESS = "hopeless"  # why a process was stopped early; its run is no crash
    EXIT = "exit"  # with an exit status in `Crash.code`
    SIGNAL = "signal"  # with its number in `Crash.code`
    OTHER = "other"  # a word of a user's hook, or of another version


_NUMBERED = re.compile(r"(exit|signal) (?:(0|[1-9][0-9]{0,8})|unknown)")
_UNNUMBERED = {
    kind.value: kind for kind in CrashClass if kind not in (CrashClass.EXIT, CrashClass.SIGNAL, CrashClass.OTHER)
}


@dataclass(frozen=True, slots=True)
class Crash:
    """Why there is no metric.

    Attributes:
        kind: The crash class.
        message: One sentence, or the line of the log with the error.
        code: The exit status or signal number; None if unknown, and for other classes.
        word: The reason of the class `OTHER`; empty for other classes.
    """

    kind: CrashClass
    message: str
    code: int | None = None
    word: str = ""

    @classmethod
    def of(cls, reason: str, message: str) -> Crash:
        """The crash with a reason as shown and recorded."""
        if numbered := _NUMBERED.fullmatch(reason):
            return cls(CrashClass(numbered[1]), message, int(numbered[2]) if numbered[2] else None)
        kind = _UNNUMBERED.get(reason)
        return cls(kind, message) if kind else cls(CrashClass.OTHER, message, word=reason)

    @property
    def reason(self) -> str:
        """The class as shown and recorded, such as `oom`, `exit 1` or `signal 9`."""
        if self.kind is CrashClass.OTHER:
            return self.word
        if self.kind not in (CrashClass.EXIT, CrashClass.SIGNAL):
            return str(self.kind)
        return f"{self.kind} {'unknown' if self.code is None else self.code}"

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Role(StrEnum):
    """The purpose of a run."""

    BASELINE = "baseline"
    SCREEN = "screen"  # a candidate's first run
    CONFIRM = "confirm"
    INCUMBENT = "incumbent"  # the branch head, run again while a candidate is undecided
    EXTRA = "extra"  # of a candidate, begun beside another run, by which the verdict then came without this one
    BATCH = "batch"  # of several proposals together; see `keeprule.designs`
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one training process.

    Attributes:
        seed: Passed to training as AUTORESEARCH_SEED.
        role: Its purpose.
        block: Names the time at which it ran: runs of one campaign without a long pause. Empty in records of earlier
            versions.
        commit: The commit that was run; empty for the experiment's own commit.
        losses: The smoothed training loss at the checkpoints of `loss_curve`; None where not reached.
        bar: The racing threshold: the metric that the run had to beat; None if the run was not raced.
        hopeless: Why its losses could not reach `bar`, as one sentence; else empty. A hopeless run without a metric was
            stopped early. A hopeless run with a metric is a control run, which checks the racing.
        inconclusive: What disturbed the run, as one sentence; such a run does not count and was repeated.
        metric: The metric that counts, or None if the run crashed or was stopped.
        reported: The metric as the training command printed it, or None.
        metrics: Every number that training printed in its summary block, under its printed name. Untrusted if a scorer
            measures the metric.
        scored: Every number that the trusted scorer printed; None without a scorer, and in records of earlier versions,
            which have these numbers among `metrics`.
        training_seconds: Seconds inside the budget, by the parent's clock if training is gated by it.
        startup_seconds: Seconds before training began.
        startup_cpu_seconds: Processor time of all processes before training began, in seconds; None if unknown.
        startup_gpu_seconds: How long its GPUs were busy before training began, all together; None if unknown.
        began_at: When its process was started, in seconds since the epoch; None in records of earlier versions.
        score_seconds: Duration of the scoring, in seconds.
        total_seconds: Seconds from the start of the process to the metric.
        peak_memory_mb: Peak memory measured from outside, in MiB; the memory limit applies to it. With several GPUs,
            that of the fullest one.
        memory_from: How `peak_memory_mb` was measured: `resident`, or device memory `by process` or by `device growth`.
        total_memory_mb: Peak of the sum over the GPUs, in MiB; None with one GPU or none.
        resident_mb: Peak resident memory of the process tree, in MiB.
        allocator_mb: The allocator's peak as training printed it (`peak_vram_mb`), in MiB, or None.
        lane: The lane that ran it.
        device: The UUIDs of the GPUs, separated by commas; else empty.
        node: The node of the cluster that ran it; empty for the session's own machine.
        others: Other processes on the GPUs during training; those that only draw are marked. None if unknown.
        throttling: Reasons for throttling during training, each with its share of the looks, 0 to 1; None if unknown.
        variables: Environment variables beyond the campaign's, for a retry after running out of memory.
        score_transport: How the model's answers reached the scorer, as the scorer reports it; empty if not reported.
        exit_status: Of the training process; negative for a signal, None if it was never started. A run with a metric
            has one if the plugin ended it, see `ended_with_model`.
        crash: Why there is no metric, or None.
        log: The end of the output.
    """

    seed: int
    metric: float | None
    reported: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    training_seconds: float = 0.0
    startup_seconds: float = 0.0
    score_seconds: float = 0.0
    total_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    memory_from: str = "resident"
    resident_mb: float = 0.0
    allocator_mb: float | None = None
    lane: int = 0
    device: str = ""
    others: tuple[str, ...] | None = None
    throttling: Mapping[str, float] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    score_transport: str = ""
    exit_status: int | None = None
    crash: Crash | None = None
    log: str = ""
    role: Role = Role.SCREEN
    commit: str = ""
    losses: tuple[float | None, ...] = ()
    bar: float | None = None
    hopeless: str = ""
    inconclusive: str = ""
    block: str = ""
    scored: Mapping[str, float] | None = None
    startup_cpu_seconds: float | None = None
    began_at: float | None = None
    node: str = ""
    total_memory_mb: float | None = None
    startup_gpu_seconds: float | None = None

    @property
    def ended_with_model(self) -> bool:
        """Whether the plugin ended the process at the end of its budget, because its model was complete."""
        return self.metric is not None and bool(self.exit_status)

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped early as hopeless: it has no metric, and is no crash."""
        return bool(self.hopeless) and self.metric is None and self.crash is None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a running experiment, from its output.

    Attributes:
        phase: `proposing`, `preflight`, `training` or `scoring`, or in words what the experiment waits for.
        step: The last training step printed, or None.
        loss: The last loss printed, or None.
        seconds: Seconds inside the phase.
        remaining_seconds: Training seconds left; None outside training.
        memory_mb: Memory of the process tree now, in MiB.
        on_gpu: Whether that is memory of the GPU.
        run: The log name of the run; empty for the experiment's first run.
        runs: How many runs the experiment has, if that is known from the start; else None.
        losses: The training loss so far, at the checkpoints of `loss_curve`.
    """

    phase: str
    step: int | None = None
    loss: float | None = None
    seconds: float = 0.0
    remaining_seconds: float | None = None
    memory_mb: float = 0.0
    run: str = ""
    losses: tuple[float | None, ...] = ()
    on_gpu: bool = False
    runs: int | None = None
