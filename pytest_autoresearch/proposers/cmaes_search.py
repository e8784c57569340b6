"""The second strategy of the search: CMA-ES over all numbers of the editable files at once.

A proposal gives every number a new value, drawn around the mean of an evolution. The evolution is a function of the
records: it begins at the values of the program that its first proposal was made from, with steps that the single
changes before it suggest, and each judged proposal is a point of a generation. So a new session continues where the
last one stopped. What another proposer kept is a point, too. Switches and texts stay as they are at the branch head.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment, Proposal, Status
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.proposers import search_files, trials
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.evolution import Crashes, Evolution
from pytest_autoresearch.proposers.search import described
from pytest_autoresearch.source.axes import Axis, axis
from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.space import Space
from pytest_autoresearch.source.stated_ranges import Range

Values = Mapping[str, Value]

_NARROWEST, _WIDEST = 1 / 3, 1.5  # a first step, relative to the usual one


@dataclass(frozen=True, slots=True)
class _Point:
    """A judged program whose values are known.

    Attributes:
        values: Every value that a search could vary.
        loss: The metric, where smaller is better, without what other proposers' code has improved; infinite after a
            crash, NaN for a run that was stopped early.
        counts: Whether it is a point of a generation.
        best: The values of the best program after it.
    """

    values: Values
    loss: float
    counts: bool
    best: Values


class CmaesProposer:
    """CMA-ES over all numbers. The same seed and the same records give the same proposal.

    Args:
        table: The user's ranges, by the names of constants.
    """

    name = "search:cmaes"
    listens = False

    def __init__(self, seed: int, table: Mapping[str, Range] | None = None) -> None:
        self._seed = seed
        self._table = table or {}
        self._learned: set[int] = set()
        self._points: list[_Point] = []
        self._first: Values | None = None  # of the program that the first proposal was made from
        self._singles: list[tuple[str, Value, Value, float]] = []  # changed before that: from, to, how much worse
        self._best: Values = {}
        self._shift = 0.0
        self._tried: set[frozenset[tuple[str, Value]]] = set()
        self._attempts: Counter[int] = Counter()
        self._known: tuple[object, Evolution, int] | None = None

    def propose(self, context: Context) -> Proposal | None:
        """Give every number a new value; None if all draws were tried before.

        Raises:
            UserError: The editable files have no number to vary, or Python cannot parse them.
        """
        found = search_files.read(context, self._table)
        self._learn(context.records)
        present = found.present
        axes = self._axes(found)
        if not axes:
            raise UserError(search_files.no_number(context.editable))
        evolution = self._evolution(axes, present)
        points = [self._coordinates(axes, one.values, present) for one in self._points[-500:]]
        crashes = Crashes(points, [one.loss == math.inf for one in self._points[-500:]])
        rng = random.Random(f"{self._seed} {context.number} {self._attempts[context.number]}")
        self._attempts[context.number] += 1
        for point in evolution.draws(rng.getrandbits(32), crashes):
            drawn = {name: one.value(float(x)) for (name, one), x in zip(axes.items(), point, strict=True)}
            changes = {name: value for name, value in drawn.items() if value != present[name]}
            after = {**present, **changes}
            if not changes or frozenset(after.items()) in self._tried:
                continue
            self._tried.add(frozenset(after.items()))
            search_files.write(context, found, changes)
            return Proposal(
                description=f"{len(changes)} at once: {described(found, changes)}",
                hypothesis=f"CMA-ES over {len(axes)} number{'s'[: len(axes) != 1]}, generation "
                f"{evolution.generation + 1}.",
                proposer=self.name,
                source=json.dumps({name: present[name] for name in changes}),
                parameters=after,
            )
        return None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Draw again; the failed proposal counts as tried."""
        self._tried.add(frozenset(proposal.parameters.items()))
        return self.propose(context)

    def _learn(self, records: Iterable[Experiment]) -> None:
        """Add the records judged since the last proposal, so that a long campaign is not read again each time."""
        for record in records:
            if record.number in self._learned:
                continue
            self._learned.add(record.number)
            proposal, mine = record.proposal, record.proposal.proposer == self.name
            kept = record.verdict is not None and record.verdict.status is Status.KEEP
            after, before = proposal.parameters, trials.before(proposal) if proposal.parameters else {}
            if before:
                self._best = {**after, **before}  # of the head that it was made from
            if mine and self._first is None:
                self._first = self._best
            if before and not mine and self._first is None and len(before) == 1:
                self._singles += [(name, before[name], after[name], trials.loss(record)) for name in before]
            if kept and not record.constants and not after and record.number:
                self._shift += record.gain  # by code: later points have it too
            values = {**self._best, **record.constants, **after} if kept else after
            if kept:
                self._best = dict(values)
            if values and (after or kept):
                sign = record.direction.gain(0.0, 1.0)  # 1 if smaller is better
                loss = trials.loss(record)
                metric = sign * record.metric + self._shift if math.isfinite(loss) else loss
                self._tried.add(frozenset(values.items()))
                self._points.append(_Point(values, metric, mine or (kept and self._first is not None), self._best))

    def _axes(self, found: Space) -> dict[str, Axis]:
        """The axes of the numbers, around their values at the start."""
        start = self._first or {}
        made = {}
        for name, one in found.dimensions.items():
            first = start.get(name, one.constant.value)
            same = isinstance(first, int) == isinstance(one.constant.value, int)
            if one.candidates and (line := axis(one.constant.name, first if same else one.constant.value, one.stated)):
                made[name] = line
        return made

    def _evolution(self, axes: Mapping[str, Axis], present: Values) -> Evolution:
        """The evolution after all judged points; begun again if the numbers to vary are others now."""
        start = self._coordinates(axes, self._first or present, present)
        widths = self._widths(axes)
        key = (tuple(axes.items()), tuple(start), tuple(widths))
        if self._known is None or self._known[0] != key:
            bounds = [(one.low, one.high) for one in axes.values()]
            self._known = (key, Evolution(start, widths, bounds), 0)
        _, evolution, seen = self._known
        for one in self._points[seen:]:
            if one.counts:
                known = self._coordinates(axes, one.values, present)
                evolution.add(known, one.loss, self._coordinates(axes, one.best or present, present))
        self._known = (key, evolution, len(self._points))
        return evolution

    def _widths(self, axes: Mapping[str, Axis]) -> list[float]:
        """The first steps: narrow where single changes did most harm, for which a parabola through each is assumed."""
        curves: dict[str, list[float]] = {}
        for name, before, after, loss in self._singles:
            if name in axes and not isinstance(before, str) and not isinstance(after, str):
                step = axes[name].coordinate(after) - axes[name].coordinate(before)
                if step and math.isfinite(loss):
                    curves.setdefault(name, []).append(abs(loss) / step**2)
        known = {name: statistics.median(found) for name, found in curves.items()}
        usual = statistics.median(known.values()) if known else 0.0
        if not usual:
            return [1.0] * len(axes)
        steep = {name: math.sqrt(usual / curve) if curve else _WIDEST for name, curve in known.items()}
        return [min(max(steep.get(name, 1.0), _NARROWEST), _WIDEST) for name in axes]

    @staticmethod
    def _coordinates(axes: Mapping[str, Axis], values: Values, present: Values) -> list[float]:
        """The values as coordinates; one that was not known yet counts as it is now."""
        found = []
        for name, line in axes.items():
            value = values.get(name, present[name])
            found.append(line.coordinate(0.0 if isinstance(value, str) else value))
        return found
