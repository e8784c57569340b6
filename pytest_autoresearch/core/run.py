"""One training process: what it may use, what it gave back, where it is. Pure; imports nothing of the project."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use.

    Attributes:
        budget_seconds: Training seconds, from `harness.begin()` on.
        startup_seconds: Seconds before training begins (imports, building, compiling).
        deadline_seconds: Hard limit of the whole training process.
        memory_limit_mb: Memory of the process tree, in MiB: on the device where it has one, else resident; infinite
            where there is no limit.
    """

    budget_seconds: float
    startup_seconds: float
    deadline_seconds: float
    memory_limit_mb: float = math.inf


class CrashClass(StrEnum):
    """What kind of crash it is."""

    SYNTAX = "syntax"
    IMPORT = "import"
    OOM = "oom"  # out of memory, by the allocator's own error
    NAN = "nan"
    TIMEOUT = "timeout"
    OVER_BUDGET = "over-budget"
    OVER_MEMORY = "over-memory"  # as seen from outside
    OVER_DISK = "over-disk"
    OVER_PROCESSES = "over-processes"
    OVER_OUTPUT = "over-output"  # of an agent; a run may print what it likes
    UNWATCHED = "unwatched"
    NO_METRIC = "no-metric"
    REJECTED = "rejected"  # the scorer found that the metric is not what it seems
    REFUSED = "refused"
    NO_PROPOSAL = "no-proposal"
    HOPELESS = "hopeless"  # how a process is ended early; a run that was is no crash
    EXIT = "exit"  # with a status
    SIGNAL = "signal"  # with a number
    OTHER = "other"  # a word of a user's hook, or of another version


_NUMBERED = re.compile(r"(exit|signal) (?:(0|[1-9][0-9]{0,8})|unknown)")
_UNNUMBERED = {
    kind.value: kind for kind in CrashClass if kind not in (CrashClass.EXIT, CrashClass.SIGNAL, CrashClass.OTHER)
}


@dataclass(frozen=True, slots=True)
class Crash:
    """Why there is no metric.

    Attributes:
        kind: The class.
        message: One sentence, or the line of the log that says it.
        code: The exit status or the number of the signal; None for other classes, and where nobody knows.
        word: The reason of the class `OTHER`; empty for other classes.
    """

    kind: CrashClass
    message: str
    code: int | None = None
    word: str = ""

    @classmethod
    def of(cls, reason: str, message: str) -> Crash:
        """The crash with a reason as people and records have it."""
        if numbered := _NUMBERED.fullmatch(reason):
            return cls(CrashClass(numbered[1]), message, int(numbered[2]) if numbered[2] else None)
        kind = _UNNUMBERED.get(reason)
        return cls(kind, message) if kind else cls(CrashClass.OTHER, message, word=reason)

    @property
    def reason(self) -> str:
        """The class as people and records have it, such as `oom`, `exit 1` or `signal 9`."""
        if self.kind is CrashClass.OTHER:
            return self.word
        if self.kind not in (CrashClass.EXIT, CrashClass.SIGNAL):
            return str(self.kind)
        return f"{self.kind} {'unknown' if self.code is None else self.code}"

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Role(StrEnum):
    """What a run was made for."""

    BASELINE = "baseline"
    SCREEN = "screen"  # a candidate's first
    CONFIRM = "confirm"
    INCUMBENT = "incumbent"  # the branch's head, run again beside a candidate
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Run:
    """One training process: what it was given and what it gave back.

    Attributes:
        seed: Passed to training as AUTORESEARCH_SEED.
        role: What it was made for.
        commit: What was run, where that is not the experiment's own commit; else empty.
        losses: What training printed, smoothed, at the checkpoints of `curve`; None at those that it did not reach.
        bar: The metric that it was raced against; None where it was not raced.
        hopeless: Why its losses could not come to that, in a sentence; empty where they could. Without a metric it was
            ended there, with one it was let finish to see whether the race was right.
        inconclusive: What was wrong with the machine while it ran, in a sentence: then it counts for nothing, and was
            made again.
        metric: The metric that counts, or None when the run crashed.
        reported: The metric as the training command printed it, or None.
        metrics: Every number of the summary block, under its printed name.
        training_seconds: Seconds inside the budget, by the parent's clock where training is gated by it.
        startup_seconds: Seconds before training began.
        score_seconds: Seconds that the scorer took.
        total_seconds: Seconds from the start of the process to the metric.
        peak_memory_mb: Largest memory seen from outside, in MiB: what the limit is held against.
        memory_from: What that is: `resident` memory, memory of the device `by process` or by `device growth`.
        resident_mb: Largest resident memory of the process tree, in MiB.
        allocator_mb: The allocator's peak as training printed it (`peak_vram_mb`), in MiB, or None.
        lane: Where it ran.
        device: The GPU's UUID, else empty.
        others: Other processes seen on that GPU during training, those that only draw marked; None where there is no
            telling.
        throttling: Why its clock was held down during training, and in which share of the looks, 0 to 1; None where
            there is no telling.
        variables: What it was given beyond the campaign's variables: those for a run that follows one out of memory.
        score_transport: How the model's answers reached the scorer, as it says; empty where it says nothing.
        exit_status: Of the training process; negative for a signal, None when it was never started.
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

    @property
    def stopped(self) -> bool:
        """Whether it was ended early, as hopeless: it has no metric, and is no crash."""
        return bool(self.hopeless) and self.metric is None and self.crash is None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running experiment is, as far as its output says.

    Attributes:
        phase: `proposing`, `preflight`, `training` or `scoring`.
        step: The last training step printed, or None.
        loss: The last loss printed, or None.
        seconds: Seconds inside the phase.
        remaining_seconds: Training seconds left; None outside training.
        memory_mb: Memory of the process tree now, in MiB.
        run: Which of the experiment's runs it is, by the name of its log; empty for the first.
        losses: Of training so far, at the checkpoints of `curve`.
    """

    phase: str
    step: int | None = None
    loss: float | None = None
    seconds: float = 0.0
    remaining_seconds: float | None = None
    memory_mb: float = 0.0
    run: str = ""
    losses: tuple[float | None, ...] = ()
