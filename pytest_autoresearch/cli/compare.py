"""`autoresearch compare`: two campaigns side by side, and a sentence if their numbers are not comparable."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.cli.repository import here
from pytest_autoresearch.cli.rows import moment
from pytest_autoresearch.core import conditions
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status, Usage
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.audit import Difference
from pytest_autoresearch.keeprule.replicates import levels

_EPILOG = """examples:
  autoresearch compare nov26 nov27
  autoresearch compare nov26 nov27 --json

A positive gain is better than the baseline, whether the metric is minimized or maximized. The time
is the sum over all experiments of proposing, training and scoring. If one campaign has fewer
experiments, an extra line compares the best of both after that number. The best is an estimate,
and selection makes it slightly too good.

exit status: 0, also if the numbers are not comparable (a sentence says so); 2 if there is no such
campaign."""


@dataclass(frozen=True, slots=True)
class Sums:
    """A campaign in numbers.

    Attributes:
        tag: The campaign's name.
        metric_name: The metric.
        baseline: The baseline's metric; None without a baseline.
        best: The metric of the last keep.
        gain: How much better the best is than the baseline, in the metric's unit; positive is better.
        audited_gain: The gain measured by an audit; `audited_margin` is half of its 95% interval. None without one.
        experiments: Number of experiments without the baseline.
        keeps: How many of them were kept; `discards` and `crashes` likewise.
        acceptance: The share that was kept; None without experiments.
        runs: Number of training processes, including the baseline's.
        hours: Their total time.
        cost_usd: Cost of proposals in US dollars; None if prices are unknown.
        began: Time of the first record, in UTC; `ended`: of the last.
    """

    tag: str
    metric_name: str
    baseline: float | None
    best: float | None
    gain: float | None
    audited_gain: float | None
    audited_margin: float | None
    experiments: int
    keeps: int
    discards: int
    crashes: int
    acceptance: float | None
    runs: int
    hours: float
    cost_usd: float | None
    began: str
    ended: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `compare`."""
    parser.epilog = _EPILOG
    parser.add_argument("tags", nargs="*", metavar="TAG", help="two campaigns of this repository")


def command(given: argparse.Namespace) -> int:
    """Print both campaigns."""
    repository = here(given)
    for tag in given.tags:
        repository.choose(tag)
    one, other = _two(given.tags, sorted(repository.ratchet.campaigns()))
    if one == other:
        raise UserError(f"compare {one} {other}: name two different campaigns")
    records = [repository.records(tag) for tag in given.tags]
    audits = [
        audit.of(repository.ratchet.audits(tag), chain(found)) for tag, found in zip(given.tags, records, strict=True)
    ]
    sums = [
        sums_of(tag, found, one.difference if one else None)
        for tag, found, one in zip(given.tags, records, audits, strict=True)
    ]
    differences = conditions.differences(*(found[0] for found in records))
    least = min(one.experiments for one in sums)
    early = [sums_of("", _first(found, least)).best for found in records]
    said = _sentence(differences)
    if given.json:
        output.dump(
            {
                "comparable": not differences,
                "differences": {one.what: [one.then, one.now] for one in differences},
                "sentence": said or None,
                "campaigns": [
                    asdict(one) | {"best_after": {"experiments": least, "metric": best}}
                    for one, best in zip(sums, early, strict=True)
                ],
            }
        )
        return 0
    print(_table(sums, least, early))
    if said:
        print(f"\n{output.colour(said, 'yellow')}")
    return 0


def sums_of(tag: str, records: Sequence[Experiment], audited: Difference | None = None) -> Sums:
    """A campaign's numbers, from its records and its audit."""
    line = chain(records)
    tried = [record for record in records if record.number != BASELINE]
    count = {status: sum(r.verdict is not None and r.verdict.status is status for r in tried) for status in Status}
    first, last = (line[0].metric, levels(records)[-1]) if line else (None, None)
    ends = [record.finished_at for record in records if record.finished_at]
    return Sums(
        tag=tag,
        metric_name=records[0].metric_name,
        baseline=first,
        best=last,
        gain=None if first is None or last is None else records[0].direction.gain(last, first),
        audited_gain=audited.gain if audited else None,
        audited_margin=audited.margin if audited else None,
        experiments=len(tried),
        keeps=count[Status.KEEP],
        discards=count[Status.DISCARD],
        crashes=count[Status.CRASH],
        acceptance=count[Status.KEEP] / len(tried) if tried else None,
        runs=sum(len(record.runs) for record in records),
        hours=math.fsum(record.seconds for record in records) / 3600,
        cost_usd=sum((record.usage for record in records), Usage()).cost_usd,
        began=moment(min(ends, default=0.0)),
        ended=moment(max(ends, default=0.0)),
    )


def _two(given: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """The two campaigns to compare.

    Raises:
        UserError: More or fewer are named; the sentence has those that there are.
    """
    if len(given) == 2:
        return given
    if len(given) > 2:
        raise UserError(f"{len(given)} campaigns are named: name two")
    others = [tag for tag in known if tag not in given]
    missing = others[: 2 - len(given)]
    if len(missing) + len(given) < 2:
        has = f"only the campaign {known[0]}" if known else "no campaign"
        raise UserError(f"this repository has {has}: run another one first, with another --autoresearch-tag")
    typed = " ".join([*given, *missing])
    raise UserError(
        f"name {'one more campaign' if given else 'two campaigns'} of {', '.join(others)}: for example, type "
        f"`autoresearch compare {typed}`"
    )


def _first(records: Sequence[Experiment], count: int) -> list[Experiment]:
    tried = [record for record in records if record.number != BASELINE][:count]
    return [*(record for record in records if record.number == BASELINE), *tried]


def _sentence(differences: Sequence[conditions.Difference]) -> str:
    if not differences:
        return ""
    what = [f"{one.what} ({one.then or 'none'} and {one.now or 'none'})" for one in differences]
    listed = what[0] if len(what) == 1 else f"{', '.join(what[:-1])} and {what[-1]}"
    return output.line(f"The numbers are not comparable: the campaigns have different {listed}.")


def _table(sums: Sequence[Sums], least: int, early: Sequence[float | None]) -> str:
    def cells(look: Callable[[Sums], str]) -> list[str]:
        return [look(one) for one in sums]

    metrics = dict.fromkeys(one.metric_name for one in sums)
    rows = [
        ["metric", *cells(lambda one: one.metric_name)] if len(metrics) > 1 else [],
        ["baseline", *cells(lambda one: _number(one.baseline))],
        ["best", *cells(lambda one: _number(one.best))],
        ["gain", *cells(lambda one: "-" if one.gain is None else f"{one.gain:+.6f}")],
        ["audited gain", *map(_audited, sums)] if any(one.audited_gain is not None for one in sums) else [],
        [f"best after {least}", *map(_number, early)] if len({one.experiments for one in sums}) > 1 else [],
        ["experiments", *cells(lambda one: str(one.experiments))],
        ["kept", *cells(lambda one: str(one.keeps))],
        ["discarded", *cells(lambda one: str(one.discards))],
        ["crashed", *cells(lambda one: str(one.crashes))],
        ["acceptance", *cells(lambda one: "-" if one.acceptance is None else f"{one.acceptance:.1%}")],
        ["runs", *cells(lambda one: str(one.runs))],
        ["time", *cells(lambda one: output.duration(one.hours * 3600))],
        ["cost", *cells(lambda one: "unknown" if one.cost_usd is None else f"${one.cost_usd:.2f}")],
    ]
    first = next(iter(metrics)) if len(metrics) == 1 else ""
    return output.table([row for row in rows if row], [Column(first), *(Column(one.tag, right=True) for one in sums)])


def _audited(one: Sums) -> str:
    if one.audited_gain is None or one.audited_margin is None:
        return "-"
    return " ± ".join(audit.rounded(one.audited_gain, one.audited_margin))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"
