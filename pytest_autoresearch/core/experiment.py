"""The values that every other module speaks in.

Frozen data and enums, with the arithmetic that belongs to them. Pure: no I/O, nothing of git, of pytest or
of the rest of this package but the runs that an experiment is made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.run import Crash, Limits, Role, Run

BASELINE = 0
Constant = float | int | bool  # of a program: what an edit may set a name to
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
        """The value that every finite metric improves on: what a baseline is compared with."""
        return math.inf if self is Direction.MINIMIZE else -math.inf

    def gain(self, metric: float, best: float) -> float:
        """How much better `metric` is than `best`, in the metric's unit; positive is better."""
        return best - metric if self is Direction.MINIMIZE else metric - best


@dataclass(frozen=True, slots=True)
class Proposal:
    """An edit of the editable files, described.

    Attributes:
        description: One line: the commit's subject and the last column of `results.tsv`.
        hypothesis: Why it should help.
        proposer: The name of the proposer that made it.
        source: What it was made from, such as a queued file and its hash; how a proposer knows its own again.
        parameters: The constants that a search set, by name.
        repeats: The commit of an earlier candidate that this one repeats on another base, else empty.
        expected: What it should do to the metric, in the proposer's words.
        area: The direction of `program.md` that it belongs to, in the proposer's words.
    """

    description: str
    hypothesis: str = ""
    proposer: str = ""
    source: str = ""
    parameters: Mapping[str, Constant] = field(default_factory=dict)
    repeats: str = ""
    expected: str = ""
    area: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a proposer has used of a paid service, for one experiment or one request; usages can be added.

    Attributes:
        model: Who answered; empty where nobody was asked.
        requests: How often it was asked.
        input_tokens: Read at the full price.
        output_tokens: Written, thinking included.
        cache_read_tokens: Read from the prompt cache.
        cache_write_tokens: Written to the prompt cache.
        cost_usd: In US dollars; None where the model's prices are not known.
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
        """All of them, read and written."""
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class Repair:
    """One failure of an experiment that went back to its proposer.

    Attributes:
        stage: Where it failed.
        crash: What was wrong.
        commit: What had been committed by then; empty where nothing was.
    """

    stage: Stage
    crash: Crash
    commit: str = ""


class Reason(StrEnum):
    """Why an experiment that did not crash was kept or discarded."""

    BASELINE = "baseline"
    IMPROVED = "improved"
    SIMPLER = "simpler"
    ACCEPTED = "accepted"  # by its tests, though the keep rule sees no gain
    NOT_IMPROVED = "not-improved"
    REGRESSION = "regression"  # not better in its first run
    WITHIN_NOISE = "within-noise"
    NOT_FINITE = "not-finite"
    HOPELESS = "hopeless"  # ended early
    ASSERTION = "assertion"  # it improved, but a test said no
    SKIP = "skip"
    XFAIL = "xfail"
    XPASS = "xpass"
    STALE = "stale"  # the branch has moved since it was measured


@dataclass(frozen=True, slots=True)
class Verdict:
    """Keep, discard or crash, with the reason and the numbers behind it.

    Attributes:
        status: What git and the TSV are told.
        reason: One of `Reason`, the class of the crash, or the word of a user's hook.
        message: One sentence for a person.
        gain: How much better than the incumbent, in the metric's unit; None without a metric or an incumbent.
    """

    status: Status
    reason: str
    message: str
    gain: float | None = None

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the keep rule says of an experiment's runs; the acceptance test has the last word.

    Attributes:
        best: The estimate of the incumbent, which is the branch head, when this was judged; None for a baseline.
        margin: What the rule demands beyond `best`.
        decided: The rule's own verdict; None where one run decides.
        evidence: What it saw, in a sentence.
        probability: That the experiment is better than the incumbent, by all of its runs; None where not asked.
        rule: Its name, as the user knows it; empty in records of earlier versions.
    """

    best: float | None = None
    margin: float = 0.0
    decided: Reason | None = None
    evidence: str = ""
    probability: float | None = None
    rule: str = ""


def weighted(screen: float, confirmations: Sequence[float]) -> float:
    """The mean with the first run at half weight. By differences: runs that are equal have that very mean."""
    weight = 0.5 + len(confirmations)
    mean = screen + sum(metric - screen for metric in confirmations) / weight
    if math.isfinite(mean) or not all(map(math.isfinite, (screen, *confirmations))):
        return mean
    return sum((screen * (0.5 / weight), *(metric / weight for metric in confirmations)))  # no sum leaves the range


@dataclass(frozen=True, slots=True)
class Setting:
    """What rows must share to be compared, and what every record says of its surroundings.

    Attributes:
        profile: The hardware class.
        hardware_key: Rows are compared only within one.
        harness_hash: Of the frozen paths; rows are compared only within one.
        data_hash: Of the prepared data; rows are compared only within one.
        sandbox: What held the training process, in words that begin with `none` where nothing did.
    """

    profile: str = ""
    hardware_key: str = ""
    harness_hash: str = ""
    data_hash: str = ""
    sandbox: str = "none"

    @property
    def confined(self) -> bool:
        """Whether a sandbox held the training process."""
        return self.sandbox.partition(" ")[0] != "none"


@dataclass(frozen=True, slots=True, repr=False)
class Experiment:
    """One numbered attempt: a proposal, its runs and, once it is judged, the verdict.

    Attributes:
        number: 0 for the baseline.
        tag: The campaign.
        commit: What was trained; the base when the proposal was refused.
        base: The branch head that the proposal was made from.
        tree: The git tree of `commit`.
        program: The digest of its editable files by their syntax; empty in records of earlier versions.
        proposal: What was tried.
        runs: Every training process, in order.
        limits: What each run might use.
        metric_name: The name under which the metric is printed.
        direction: Which way it improves.
        decision: What the keep rule says of its runs.
        refusal: Why the proposal was never run, or None.
        verdict: None until it is judged.
        setting: What it can be compared with.
        program_hash: Of `program.md` when the proposal was made.
        repairs: The failures that went back to the proposer before this came of it.
        usage: What its proposer has used for it.
        constants: The constants that its edit set, by name, where it did nothing else.
        simpler: Whether its program is smaller than its base's by a hundredth or more.
        comparable: Whether its loss curve can be compared with its base's.
        lines_added: Lines of the editable files that it has and its base has not; `lines_removed` the other way round.
        notes: The proposer's notes as it rewrote them with this experiment; empty where it left them alone.
        timings: Seconds by stage.
        planned_number: What it was to be called, where another session took that number first; else None.
        finished_at: When it was judged, in seconds since the epoch.
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

    def __repr__(self) -> str:
        return f"<experiment {self.number:04d}>"  # short: it stands in every assertion message

    @property
    def crash(self) -> Crash | None:
        """Why there is no metric, or None. A run that is made again leaves it to the next one."""
        return self.refusal or (self.last_run.crash if self.last_run else None)

    @property
    def own_runs(self) -> tuple[Run, ...]:
        """The runs of its own commit, but for those that count for nothing."""
        return tuple(run for run in self.runs if not run.commit and not run.inconclusive)

    @property
    def hopeless(self) -> str:
        """Why its last run was ended early, in a sentence; empty where none was."""
        return self.last_run.hopeless if self.last_run and self.last_run.stopped else ""

    @property
    def last_run(self) -> Run | None:
        """The last run of its own commit, or None."""
        return self.own_runs[-1] if self.own_runs else None

    @property
    def metrics(self) -> Mapping[str, float]:
        """Every number of the last run's summary block, under its printed name."""
        return self.last_run.metrics if self.last_run else {}

    @property
    def _counted(self) -> tuple[Run, ...]:
        """The runs that count: those with a metric, or all where none has one."""
        own = self.own_runs
        return tuple(run for run in own if run.metric is not None) or own

    @property
    def metric(self) -> float:
        """The estimate over all its runs: their mean, the first at half weight where others confirm it, since it was
        selected by that. NaN when there is none, or a run of it was ended early: what others showed was not enough."""
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
        except OverflowError:  # the sum is larger than any number, the mean is not
            return math.fsum(value / len(values) for value in values)

    @property
    def measured(self) -> bool:
        """Whether there is a metric: it is no crash, and was not ended before it had one."""
        return self.crash is None and not math.isnan(self.metric)

    @property
    def best(self) -> float:
        """What has to be beaten; for a baseline, what every finite metric improves on."""
        return self.direction.worst if self.decision.best is None else self.decision.best

    @property
    def margin(self) -> float:
        """What the keep rule demands beyond `best`."""
        return self.decision.margin

    @property
    def gain(self) -> float:
        """How much better than `best`, in the metric's unit; positive is better, whatever the direction."""
        return self.direction.gain(self.metric, self.best)

    @property
    def training_seconds(self) -> float:
        """The longest training time of any run that counts."""
        return max((run.training_seconds for run in self._counted), default=0.0)

    @property
    def budget_seconds(self) -> float:
        return self.limits.budget_seconds

    @property
    def peak_memory_mb(self) -> float:
        """The largest memory of any run that counts, seen from outside, in MiB."""
        return max((run.peak_memory_mb for run in self._counted), default=0.0)

    @property
    def allocator_mb(self) -> float | None:
        """The largest peak of the allocator of any run that counts, as training printed it, in MiB, or None."""
        return max((run.allocator_mb for run in self._counted if run.allocator_mb is not None), default=None)

    @property
    def memory_limit_mb(self) -> float:
        return self.limits.memory_limit_mb

    @property
    def seconds(self) -> float:
        """What the experiment cost: all its stages, in seconds."""
        return math.fsum(self.timings.values())

    def judged(self, verdict: Verdict, finished_at: float) -> Experiment:
        """The same experiment with its verdict."""
        return replace(self, verdict=verdict, finished_at=finished_at)
