"""The final audit: re-measures the first and the last commit of a campaign and tests their difference.

Pure: numbers in, numbers and sentences out; also encodes an audit's record. Knows nothing of how a run is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_autoresearch.core.experiment import Direction, Experiment
from pytest_autoresearch.core.records import document, from_json, to_json
from pytest_autoresearch.core.run import Limits, Run
from pytest_autoresearch.core.setting import Setting
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.noise import DETERMINISTIC, Sample

SCHEMA = 1
_FIELDS = (  # of the record, in order
    "schema", "tag", "first", "last", "last_number", "metric_name", "direction", "rows",
    "sentence", "gain", "interval", "p", "freedom", "shown", "runs", "limits", "setting", "finished_at",
)  # fmt: skip
RUNS = 5  # of each commit
LEAST_RUNS = 2  # of each commit, with a metric: a variance needs two
LEVEL = 0.01
COVERAGE = 0.95


class AuditSide(StrEnum):
    """Which of the two commits."""

    FIRST = "first"
    LAST = "last"


class Rows(StrEnum):
    """The validation rows of an audit."""

    AUDIT = "audit"  # rows that no verdict used
    VERDICT = "verdict"  # the rows that every verdict used, because the harness has no others


@dataclass(frozen=True, slots=True)
class Turn:
    """One planned run of an audit."""

    side: AuditSide
    seed: int


def turns(runs: int, known: Iterable[int]) -> tuple[Turn, ...]:
    """The plan of an audit, in the order first, last, last, first, first …, so that a steady drift cancels.

    Args:
        runs: The number of runs of each commit.
        known: The seeds of all runs so far. No planned run reuses one, and each gets its own, so that runs are
            independent.
    """
    pairs = ((AuditSide.FIRST, AuditSide.LAST), (AuditSide.LAST, AuditSide.FIRST))
    sides = [side for number in range(runs) for side in pairs[number % 2]]
    first = max(known, default=-1) + 1
    return tuple(Turn(side, first + number) for number, side in enumerate(sides))


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between the last commit and the first.

    Attributes:
        gain: The difference of the two means, in the metric's unit; positive is better, whatever the direction.
        margin: Half the width of its two-sided 95% interval.
        p: The one-sided p-value: the probability of such a gain if the last commit were no better.
        freedom: Degrees of freedom (Welch-Satterthwaite); infinite if all runs are equal.
    """

    gain: float
    margin: float
    p: float
    freedom: float

    @property
    def exact(self) -> bool:
        """Whether all runs of each commit were equal."""
        return math.isinf(self.freedom)

    @property
    def shown(self) -> bool:
        """Whether the gain is significant."""
        return self.p <= LEVEL


def compare(first: Sequence[float], last: Sequence[float], direction: Direction) -> Difference:
    """Welch's test, which does not assume that the two commits are equally noisy.

    `t = (m1 - m2) / sqrt(v1/n1 + v2/n2)`, with `(v1/n1 + v2/n2)^2 / ((v1/n1)^2/(n1-1) + (v2/n2)^2/(n2-1))` degrees of
    freedom: B. L. Welch, Biometrika 34 (1947), 28-35.

    Raises:
        ValueError: There are fewer than two runs of a commit.
    """
    samples = [Sample.of(first), Sample.of(last)]
    if min(sample.runs for sample in samples) < LEAST_RUNS:
        raise ValueError("two runs of each commit are the least that has a variance")
    gain = direction.gain(samples[1].mean, samples[0].mean)
    # Standard errors of the two means, not variances: a square may overflow or underflow.
    errors = [sample.spread / math.sqrt(sample.runs * (sample.runs - 1)) for sample in samples]
    error = math.hypot(*errors)
    if error == 0:  # a few equal values of a coarse metric may be chance
        sure = gain > 0 and min(sample.runs for sample in samples) >= RUNS
        return Difference(gain, 0.0, 0.0 if sure else 1.0, math.inf)
    if not (math.isfinite(error) and math.isfinite(gain)):
        return Difference(gain, math.inf, 0.5, 1.0)
    parts = ((one / error) ** 4 / (sample.runs - 1) for one, sample in zip(errors, samples, strict=True))
    freedom = 1 / math.fsum(parts)
    return Difference(
        gain,
        student_t.quantile(0.5 + COVERAGE / 2, freedom) * error,
        student_t.cdf(-gain / error, freedom),
        freedom,
    )


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit with its runs.

    Attributes:
        tag: The campaign's name.
        first: The campaign's first commit.
        last: The campaign's last keep.
        last_number: The number of the experiment with the commit `last`.
        metric_name: The metric's name.
        direction: Which way the metric improves.
        rows: The validation rows.
        runs: All runs in order; `Run.commit` is one of the two commits.
        limits: The limits of each run.
        setting: The conditions of the measurement.
        finished_at: In seconds since the epoch.
    """

    tag: str
    first: str
    last: str
    last_number: int
    metric_name: str
    direction: Direction
    rows: Rows
    runs: tuple[Run, ...]
    limits: Limits
    setting: Setting
    finished_at: float

    def metrics(self, side: AuditSide) -> list[float]:
        """The metrics of one commit's runs, without crashed and inconclusive ones."""
        commit = self.first if side is AuditSide.FIRST else self.last
        return [run.metric for run in self._counted if run.commit == commit and run.metric is not None]

    @property
    def _counted(self) -> tuple[Run, ...]:
        """The runs that are not inconclusive."""
        return tuple(run for run in self.runs if not run.inconclusive)

    @property
    def difference(self) -> Difference | None:
        """The difference between the two commits; None if too many runs crashed."""
        first, last = map(self.metrics, AuditSide)
        return compare(first, last, self.direction) if min(len(first), len(last)) >= LEAST_RUNS else None

    @property
    def crashes(self) -> tuple[Run, ...]:
        """The crashed runs, without those that succeeded when repeated."""
        measured = {run.seed for run in self._counted if run.metric is not None}
        return tuple(run for run in self._counted if run.metric is None and run.seed not in measured)

    @property
    def full(self) -> bool:
        """Whether each commit ran often enough, its crashes included, for a result that reports prefer."""
        return min(sum(run.commit == commit for run in self._counted) for commit in (self.first, self.last)) >= RUNS

    @property
    def shown(self) -> bool:
        """Whether the audit shows an improvement."""
        return self.difference is not None and self.difference.shown


def of(audits: Iterable[Audit], line: Sequence[Experiment]) -> Audit | None:
    """The audit that reports quote, or None if there is none of these keeps; `line` starts with the baseline.

    It is the earliest one with enough runs of each commit; until there is one, the earliest with a result. The
    earliest, not the latest: by repeating audits until one shows a gain, luck alone would show one.
    """
    if len(line) < 2:
        return None
    ends = (line[0].commit, line[-1].commit)
    found = sorted((one for one in audits if (one.first, one.last) == ends), key=lambda one: one.finished_at)
    told = [one for one in found if one.difference]
    return next((one for one in told if one.full), None) or next(iter(told or found), None)


# ------------------------------------------------------------------------------------------------------ sentences


def sentence(audit: Audit) -> str:
    """The result that may be quoted: the difference, its interval, its p-value and the rows."""
    found = audit.difference
    exact = found is not None and found.exact
    where = "on rows that no verdict used"
    if audit.rows is Rows.VERDICT:
        where = f"{'' if exact else 'on fresh seeds, '}on the validation rows that decided"
    if found is None:
        return f"audited {where}: {audit.metric_name} cannot be compared, {_crashes(audit, 'of its runs')}"
    way, counts = moved(found, audit.direction), " + ".join(str(len(audit.metrics(side))) for side in AuditSide)
    if exact:
        few = min(len(audit.metrics(side)) for side in AuditSide) < RUNS
        shown = f", which takes {RUNS} runs of each" if few and found.gain > 0 else ""
        return f"audited {where}: {audit.metric_name} {way} in each of {counts} runs ({DETERMINISTIC})" + (
            "" if found.shown else f": no improvement is shown{shown}"
        )
    return (
        f"audited {where}: {audit.metric_name} {way} (95%), {probability(found.p)}, {counts} runs"
        + (f" ({_crashes(audit, 'more')})" if audit.crashes else "")
        + ("" if found.shown else ": no improvement is shown")
    )


def claim(audit: Audit | None) -> str:
    """The result in a few words, for a summary."""
    if audit is None:
        return "not audited"
    found = audit.difference
    if found is None:
        return "the audit has no result: too many runs crashed"
    where = "" if audit.rows is Rows.AUDIT else ", on the validation rows that decided"
    why = DETERMINISTIC if found.exact else probability(found.p)
    said = f"{moved(found, audit.direction)} ({why}{where})"
    return f"audited: {said}" if found.shown else f"the audit shows no gain: {said}"


def moved(found: Difference, direction: Direction) -> str:
    """How the metric moved: `lower by 0.0276 ± 0.0002`."""
    value, margin = rounded(abs(found.gain), found.margin)
    if found.exact and not found.gain:
        return "the same"
    up = (found.gain > 0) == (direction is Direction.MAXIMIZE)
    way = f"{'higher' if up else 'lower'} by" if found.gain else "the same,"
    return f"{way} {value}" + ("" if found.exact else f" ± {margin}")


def probability(p: float) -> str:
    """`p = 0.0004`, with two digits, or `p < 0.0001`."""
    if p < 0.0001:
        return "p < 0.0001"
    return f"p = {p:.4f}" if p < 0.01 else f"p = {p:.2g}" if p < 0.995 else "p = 1.0"


def rounded(value: float, margin: float) -> tuple[str, str]:
    """A value and its margin as text, rounded to the precision of the margin."""
    if not (0 < margin < math.inf):
        return f"{value:.6g}", f"{margin:g}"
    places = -math.floor(math.log10(margin))
    if margin * 10**places < 2.999 or abs(value) < 10 * margin:  # one digit would be too coarse
        places += 1
    places = max(places, 0)
    if places <= 12 and abs(value) < 1e12:
        return f"{value:.{places}f}", f"{margin:.{places}f}"
    return f"{value:.3g}", f"{margin:.2g}"


def _crashes(audit: Audit, of: str) -> str:
    crash = next((run.crash for run in audit.crashes), None)
    return f"{len(audit.crashes)} {of} crashed" + (f", the first by {one_line(str(crash))[:200]}" if crash else "")


# ------------------------------------------------------------------------------------------------------ the record


def encode(audit: Audit) -> str:
    """The JSON document of an audit's record."""
    found = audit.difference
    known = to_json(audit) | {
        "schema": SCHEMA,
        "sentence": sentence(audit),
        "gain": found.gain if found else None,
        "interval": [found.gain - found.margin, found.gain + found.margin] if found else None,
        "p": found.p if found else None,
        "freedom": found.freedom if found else None,
        "shown": audit.shown,
    }
    return json.dumps({name: to_json(known[name]) for name in _FIELDS}, indent=1, allow_nan=False)


def decode(text: str) -> Audit:
    """The audit of a document that `encode` wrote. The results are computed again from the runs.

    Raises:
        ValueError: The text is no such record, or has an unknown schema.
    """
    return from_json(document(text, SCHEMA, "audit", ()), Audit)
