"""An experiment and its parts: frozen data and enums, with their arithmetic.

Pure: no I/O. Knows nothing of git, pytest or other packages of the project.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Role, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.core.text import shortened

BASELINE = 0
Constant = float | int | bool | str  # a value that an edit may give to a constant of the program
_SHOWN = 160  # characters of a description in a line for people
MOST_CHARACTERS = {"description": 2_000, "hypothesis": 20_000, "expected": 2_000, "area": 2_000}
"""The longest texts of a proposal; a record, a row or a page must not grow without a bound."""
_USUAL = Limits(300.0, 30.0, 600.0)


class Status(StrEnum):
    """The three words of `results.tsv`."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"


class Direction(StrEnum):
    """Which way the metric improves."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    @property
    def worst(self) -> float:
        """The value that every finite metric improves on; a baseline is compared with it."""
        return math.inf if self is Direction.MINIMIZE else -math.inf

    def gain(self, metric: float, best: float) -> float:
        """The improvement of `metric` over `best`, in the metric's unit; positive is better."""
        return best - metric if self is Direction.MINIMIZE else metric - best


@dataclass(frozen=True, slots=True)
class Proposal:
    """Describes an edit of the editable files.

    Attributes:
        description: One line: the commit's subject and the last column of `results.tsv`; a longer one is shortened.
        hypothesis: Why the edit should help; also shortened.
        proposer: The proposer's name.
        source: The origin, such as a queued file and its hash; a proposer recognises its own proposals by it.
        parameters: The constants that a search set, by name.
        repeats: The commit of an earlier candidate that this proposal repeats on another base, else empty.
        expected: The expected effect on the metric, in the proposer's words.
        area: Its research direction from `program.md`, in the proposer's words.
    """

    description: str
    hypothesis: str = ""
    proposer: str = ""
    source: str = ""
    parameters: Mapping[str, Constant] = field(default_factory=dict)
    repeats: str = ""
    expected: str = ""
    area: str = ""

    def __post_init__(self) -> None:
        for name, most in MOST_CHARACTERS.items():
            if len(text := getattr(self, name)) > most:
                object.__setattr__(self, name, f"{text[: most - 1]}…")

    @property
    def short(self) -> str:
        """The description for a line of a table or of a terminal; the record has the whole."""
        return shortened(self.description, _SHOWN)


@dataclass(frozen=True, slots=True)
class Usage:
    """A proposer's use of a paid service, for one experiment or one request; usages can be added.

    Attributes:
        model: The model that answered; empty without requests.
        requests: The number of requests.
        input_tokens: Tokens read at the full price.
        output_tokens: Tokens written, thinking included.
        cache_read_tokens: Tokens read from the prompt cache.
        cache_write_tokens: Tokens written to the prompt cache.
        cost_usd: In US dollars; None if the model's prices are unknown.
    """

    model: str = ""
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = 0.0

    def __add__(self, other: Usage) -> Usage:
        unknown = self.cost_usd is None or other.cost_usd is None
        return Usage(
            other.model or self.model,
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            None if unknown else (self.cost_usd or 0.0) + (other.cost_usd or 0.0),
        )

    @property
    def tokens(self) -> int:
        """All tokens, read and written."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class Repair:
    """One failure that was sent back to the proposer for repair.

    Attributes:
        stage: The stage that failed.
        crash: The error.
        commit: The commit that failed; empty if nothing was committed.
    """

    stage: Stage
    crash: Crash
    commit: str = ""


class Reason(StrEnum):
    """Why an experiment that did not crash was kept or discarded."""

    BASELINE = "baseline"
    IMPROVED = "improved"
    SIMPLER = "simpler"
    ACCEPTED = "accepted"  # the tests passed, though the keep rule sees no gain
    NOT_IMPROVED = "not-improved"
    REGRESSION = "regression"  # not better in the first run
    WITHIN_NOISE = "within-noise"
    NOT_FINITE = "not-finite"
    HOPELESS = "hopeless"  # ended early
    ASSERTION = "assertion"  # it improved, but a test failed
    SKIP = "skip"
    XFAIL = "xfail"
    XPASS = "xpass"
    STALE = "stale"  # the branch has moved since it was measured
    JOINS = "joins"  # a gain by a batch: the combination of the batch's gains is the next experiment


@dataclass(frozen=True, slots=True)
class Verdict:
    """Keep, discard or crash, with the reason and the numbers behind it.

    Attributes:
        status: Keep, discard or crash.
        reason: One of `Reason`, the crash class, or a word from a user's hook.
        message: One sentence for people.
        gain: The improvement over the incumbent, in the metric's unit; None without a metric or an incumbent.
    """

    status: Status
    reason: str
    message: str
    gain: float | None = None

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The keep rule's decision on an experiment's runs; the acceptance test makes the final one.

    Attributes:
        best: The estimate of the incumbent (the branch head) when the experiment was judged, on the experiment's own
            seeds; None for a baseline.
        margin: The gain that the rule requires, in the metric's unit.
        decided: The rule's own verdict; None if one run decides.
        evidence: The evidence as one sentence for people; nothing parses it.
        probability: The probability that the experiment is better than the incumbent; None if not computed.
        rule: The rule's name in `--autoresearch-confirm`; empty in records of earlier versions.
    """

    best: float | None = None
    margin: float = 0.0
    decided: Reason | None = None
    evidence: str = ""
    probability: float | None = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """What the runs of a batch say of one of its proposals; see `keeprule.designs`.

    Attributes:
        batch: The batch's name.
        size: How many proposals the batch has an effect of.
        runs: How many runs the estimate rests on.
        gain: The estimated improvement over the branch head; positive is better.
        error: Its standard error; infinite if the runs say nothing of it.
        degrees: The degrees of freedom of `error`.
        training_seconds: The longest training time of the runs with it.
        peak_memory_mb: The largest memory of these runs.
    """

    batch: str
    size: int
    runs: int
    gain: float
    error: float
    degrees: float
    training_seconds: float
    peak_memory_mb: float


def weighted(screen: float, confirmations: Sequence[float]) -> float:
    """The mean with the first run at half weight. It sums differences, so the mean of equal runs is exact."""
    weight = 0.5 + len(confirmations)
    mean = screen + sum(metric - screen for metric in confirmations) / weight
    if math.isfinite(mean) or not all(map(math.isfinite, (screen, *confirmations))):
        return mean
    return sum((screen * (0.5 / weight), *(metric / weight for metric in confirmations)))  # no sum overflows


@dataclass(frozen=True, slots=True, repr=False)
class Experiment:
    """One numbered attempt: a proposal, its runs and the verdict.

    Attributes:
        number: 0 for the baseline.
        tag: The campaign's name.
        commit: The commit that was trained; the base if the proposal was refused.
        base: The branch head that it is compared with, and that it was committed on.
        made_on: The earlier head that it was proposed on, if it was merged into `base` since; else empty.
        tree: The git tree of `commit`.
        program: Digest of the editable files' syntax; empty in records of earlier versions.
        proposal: The proposal.
        runs: Every training process, in order.
        limits: The limits of each run.
        metric_name: The metric's name in the output.
        direction: Which way the metric improves.
        decision: The keep rule's decision.
        refusal: Why the proposal was refused without a run, or None.
        verdict: None until the experiment is judged.
        setting: The conditions of the measurement.
        program_hash: Hash of `program.md` when the proposal was made.
        repairs: The failures that the proposer repaired before this result.
        usage: The proposer's use of a paid service.
        constants: The constants that the edit set, by name; empty if the edit did anything else.
        simpler: Whether the program is smaller than its base by 1% or more.
        comparable: Whether its loss curve can be compared with its base's.
        lines_added: Lines added to the editable files; `lines_removed` counts the removed ones.
        notes: The proposer's notes as rewritten with this experiment; empty if unchanged.
        timings: Seconds by stage.
        planned_number: The number at first, if another session took it; else None.
        finished_at: When it was judged, in seconds since the epoch.
        heard: What the user said to the proposer before this proposal, each message with its time.
        share: What a batch says of it, if it was measured together with others; else None.
    """

    number: int
    tag: str
    commit: str
    base: str
    tree: str
    proposal: Proposal
    runs: tuple[Run, ...] = ()
    limits: Limits = _USUAL
    metric_name: str = "val_bpb"
    direction: Direction = Direction.MINIMIZE
    decision: Decision = field(default_factory=Decision)
    refusal: Crash | None = None
    verdict: Verdict | None = None
    setting: Setting = field(default_factory=Setting)
    program: str = ""
    program_hash: str = ""
    repairs: tuple[Repair, ...] = ()
    usage: Usage = field(default_factory=Usage)
    constants: Mapping[str, Constant] = field(default_factory=dict)
    simpler: bool = False
    comparable: bool = False
    lines_added: int = 0
    lines_removed: int = 0
    notes: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    planned_number: int | None = None
    finished_at: float = 0.0
    made_on: str = ""
    share: Share | None = None
    heard: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<experiment {self.number:04d}>"  # short, because every assertion message shows it

    @property
    def crash(self) -> Crash | None:
        """Why there is no metric, or None. Only the last run counts."""
        return self.refusal or (self.last_run.crash if self.last_run else None)

    @property
    def own_runs(self) -> tuple[Run, ...]:
        """The runs of its own commit that count for its verdict: not inconclusive, and asked for by the keep rule."""
        return tuple(run for run in self.runs if not run.commit and not run.inconclusive and run.role is not Role.EXTRA)

    @property
    def runs_of_own_commit(self) -> tuple[Run, ...]:
        """All runs, each of its own commit with the name of the commit, for an experiment that gets another commit."""
        return tuple(replace(run, commit=run.commit or self.commit) for run in self.runs)

    @property
    def hopeless(self) -> str:
        """Why its last run was stopped early, as one sentence; empty if it was not."""
        return self.last_run.hopeless if self.last_run and self.last_run.stopped else ""

    @property
    def is_owed(self) -> bool:
        """Whether it was measured against a head that is no longer the head, so that its change is measured again."""
        verdict = self.verdict
        return verdict is not None and verdict.status is Status.DISCARD and verdict.reason == Reason.STALE

    @property
    def refutes(self) -> str:
        """The commit of a keep that the scorer rejected when it ran again here, which takes it back; else empty."""
        rejected = (run for run in self.runs if run.crash is not None and run.crash.kind is CrashClass.REJECTED)
        return next((run.commit for run in rejected if run.commit), "")

    @property
    def last_run(self) -> Run | None:
        """The last run of its own commit, or None."""
        return self.own_runs[-1] if self.own_runs else None

    @property
    def metrics(self) -> Mapping[str, float]:
        """Every number that training printed in the last run's summary block, under its printed name."""
        return self.last_run.metrics if self.last_run else {}

    @property
    def scored(self) -> Mapping[str, float]:
        """Every number that the scorer printed in the last run; empty without a scorer."""
        return (self.last_run.scored if self.last_run else None) or {}

    @property
    def _counted(self) -> tuple[Run, ...]:
        """Its own runs with a metric, or all of them if none has one."""
        own = self.own_runs
        return tuple(run for run in own if run.metric is not None) or own

    @property
    def metric(self) -> float:
        """The estimate over all its runs, which is their mean; NaN without one, or if a run was stopped early.

        The first run of a confirmed candidate has half weight, because the candidate was selected by it. Of a proposal
        of a batch it is the best with the estimated effect.
        """
        if self.share is not None:
            return self.best - self.direction.gain(0.0, self.share.gain) if self.crash is None else math.nan
        if self.hopeless:
            return math.nan
        runs = [run for run in self.own_runs if run.metric is not None]
        screen = next((run.metric for run in runs if run.role is Role.SCREEN), None)
        confirmations = tuple(run.metric for run in runs if run.role is Role.CONFIRM and run.metric is not None)
        if screen is not None and confirmations:
            return weighted(screen, confirmations)
        values = [run.metric for run in runs if run.metric is not None]
        try:
            return math.fsum(values) / len(values) if values else math.nan
        except OverflowError:  # the sum overflows, the mean does not
            return math.fsum(value / len(values) for value in values)

    @property
    def measured(self) -> bool:
        """Whether there is a metric: it did not crash and was not stopped early."""
        return self.crash is None and not math.isnan(self.metric)

    @property
    def best(self) -> float:
        """The estimate to beat; for a baseline, the value that every finite metric improves on."""
        return self.direction.worst if self.decision.best is None else self.decision.best

    @property
    def margin(self) -> float:
        """The gain that the keep rule requires, in the metric's unit."""
        return self.decision.margin

    @property
    def gain(self) -> float:
        """The improvement over `best`, in the metric's unit; positive is better, whatever the direction."""
        return self.direction.gain(self.metric, self.best)

    @property
    def training_seconds(self) -> float:
        """The longest training time of the runs that count, in seconds."""
        if self.share is not None:
            return self.share.training_seconds
        return max((run.training_seconds for run in self._counted), default=0.0)

    @property
    def budget_seconds(self) -> float:
        return self.limits.budget_seconds

    @property
    def peak_memory_mb(self) -> float:
        """The largest memory of the runs that count, measured from outside, in MiB."""
        if self.share is not None:
            return self.share.peak_memory_mb
        return max((run.peak_memory_mb for run in self._counted), default=0.0)

    @property
    def allocator_mb(self) -> float | None:
        """The largest allocator peak of the runs that count, as training printed it, in MiB, or None."""
        return max((run.allocator_mb for run in self._counted if run.allocator_mb is not None), default=None)

    @property
    def memory_limit_mb(self) -> float:
        return self.limits.memory_limit_mb

    @property
    def seconds(self) -> float:
        """The duration of all its stages together, in seconds."""
        return math.fsum(self.timings.values())

    def judged(self, verdict: Verdict, finished_at: float) -> Experiment:
        """The same experiment with its verdict."""
        return replace(self, verdict=verdict, finished_at=finished_at)
