"""One batch: the runs of its design that are still to be made, and what all of them say of each proposal.

Safe on every thread. Knows nothing of git or of lanes: others make the runs.
"""

from __future__ import annotations

import math
import random
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_autoresearch.core.experiment import Decision, Experiment, Reason, Share
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.keeprule import designs
from pytest_autoresearch.keeprule.blocks import Components
from pytest_autoresearch.keeprule.designs import Row
from pytest_autoresearch.keeprule.effects import Belief, Effect, needed
from pytest_autoresearch.measure.batch_file import Made, Saved

_FAR = 10.0  # standard deviations of a run; a proposal whose runs are all so much worse than the others is ruinous
_SURE = 2  # runs with it and without it, before a proposal is called ruinous


@dataclass(frozen=True, slots=True)
class Work:
    """One run of a batch.

    Attributes:
        has: The proposals in it, by place; none for the branch head itself.
        role: `batch`, `incumbent` for the branch head, `screen` for a proposal that is run alone.
        log: The log's name.
    """

    has: frozenset[int]
    role: Role
    log: str


class Batch:
    """The runs of some proposals on one seed.

    Proposals that cannot run leave the design: where runs crashed, each proposal that was in no other run is run alone.

    Args:
        members: The proposals, committed on the branch head.
        head: The branch head.
        seed: The seed of all runs.
        noise: The components of variance of a run.
        before: The effects of earlier batches.
        made: The runs of the design that a killed session made.
        alone: Its runs of single members.
    """

    def __init__(
        self, members: Sequence[Experiment], head: Experiment, seed: int, noise: Components, before: Sequence[Effect],
        made: Made | None = None, alone: Mapping[int, tuple[Run, ...]] | None = None,
    ) -> None:  # fmt: skip
        self.members = tuple(members)
        self.head = head
        self.seed = seed
        self._noise = noise
        self._before = tuple(before)
        first, *others = designs.plan(len(members))
        random.Random(seed).shuffle(others)  # so that the first runs tell something of every proposal
        self._todo = deque(
            Work(has, Role.BATCH if has else Role.INCUMBENT, f"batch-{at}")
            for at, has in enumerate([first, *others])
            if has not in (made or {})
        )
        self._made = {has: runs for has, (_, runs) in (made or {}).items()}
        self._by = {has: by for has, (by, _) in (made or {}).items()}
        self._alone: dict[int, tuple[Run, ...]] = dict(alone or {})
        self._running = 0
        self._phase = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._shares: dict[int, Experiment] = {}

    def goes_on(self) -> bool:
        """Whether there is a run to be made; waits while that depends on a run that goes on.

        Raises:
            BaseException: What `fail` was called with.
        """
        with self._changed:
            while not self._todo and self._error is None:
                if not self._running and not self._plan_on():
                    self._changed.notify_all()
                    return False
                if not self._todo:
                    self._changed.wait()
            if self._error is not None:
                raise self._error
            return True

    def take(self) -> Work | None:
        """The next run; None if others have taken all that can be made now. Call it with a lane at hand."""
        with self._changed:
            if not self._todo:
                return None
            self._running += 1
            return self._todo.popleft()

    @property
    def suspicious(self) -> float:
        """A metric that no honest combination should beat: it is ten standard deviations better than the head's."""
        far = _FAR * self._noise.residual
        return self.head.metric - self.head.direction.gain(0.0, far)

    def done(self, work: Work, by: int, runs: tuple[Run, ...]) -> None:
        """The run, after its inconclusive ones; `by` is the number of the proposal in whose record it is."""
        with self._changed:
            self._running -= 1
            if work.role is Role.SCREEN:
                self._alone[min(work.has)] = runs
            else:
                self._made[work.has] = runs
                self._by[work.has] = next(at for at, one in enumerate(self.members) if one.number == by)
            self._leave(self._ruinous())
            self._changed.notify_all()

    @property
    def saved(self) -> Saved:
        """What a next session needs to go on."""
        with self._changed:
            programs = tuple(one.program for one in self.members)
            made = {has: (self._by[has], runs) for has, runs in self._made.items()}
            return Saved(self.seed, self.head.commit, programs, made, dict(self._alone))

    def fail(self, error: BaseException) -> None:
        """No run can be made any more."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def result(self, number: int) -> Experiment:
        """The proposal with its share of the runs, once all are made."""
        with self._changed:
            if not self._shares:
                self._shares = {one.number: one for one in self._judged()}
            return self._shares[number]

    # --------------------------------------------------------------------------------------------------- crashes

    def _plan_on(self) -> bool:
        """Plan the runs that follow from those that are made; false if there are none."""
        crashed = [has for has, runs in self._made.items() if has and runs[-1].metric is None]
        while self._phase < 2 and not self._todo:
            self._phase += 1
            if self._phase == 1:
                sound = _all_in(has for has, runs in self._made.items() if runs[-1].metric is not None)
                suspects = sorted(_all_in(crashed) - sound - self._alone.keys())
                self._todo += [Work(frozenset({at}), Role.SCREEN, "train") for at in suspects]
            else:
                again = {has - self._out for has in crashed} - self._made.keys() - {frozenset()}
                start = len(self._made)
                self._todo += [
                    Work(has, Role.BATCH, f"batch-{start + at}") for at, has in enumerate(sorted(again, key=sorted))
                ]
        return bool(self._todo)

    @property
    def _out(self) -> frozenset[int]:
        """The proposals that crashed alone."""
        return frozenset(at for at, runs in self._alone.items() if runs[-1].metric is None)

    def _ruinous(self) -> frozenset[int]:
        """The proposal whose runs are all far worse than all others; none while several may be."""
        rows, far = self._rows(), _FAR * self._noise.residual
        found = set()
        for at in range(len(self.members)):
            worse = [row.gain for row in rows if at in row.has]
            better = [row.gain for row in rows if at not in row.has]
            if min(len(worse), len(better)) >= _SURE and max(worse) < min(better) - far:
                found.add(at)
        return frozenset(found if len(found) == 1 else ())

    def _leave(self, places: frozenset[int]) -> None:
        """The runs that are still to be made go on without these proposals."""
        if places:
            left = {(fewer := work.has - places): replace(work, has=fewer) for work in self._todo}
            new = (work for has, work in left.items() if has not in self._made)
            self._todo = deque(work for work in new if work.has or work.role is Role.INCUMBENT)

    # ------------------------------------------------------------------------------------------------ the estimates

    def _rows(self) -> list[Row]:
        gain = self.head.direction.gain
        return [
            Row(has, self.seed, gain(run.metric, 0.0))
            for has, runs in self._made.items()
            if (run := runs[-1]).metric is not None and math.isfinite(run.metric)
        ]

    def _judged(self) -> list[Experiment]:
        rows = self._rows()
        effects = designs.estimate(rows, len(self.members), self._noise)
        belief = Belief.of((*self._before, *effects))
        size = len(self.members) - len(self._out)
        runs: dict[int, tuple[Run, ...]] = {}
        for has, made in self._made.items():
            runs[self._by[has]] = runs.get(self._by[has], ()) + made
        found = []
        for at, (member, effect) in enumerate(zip(self.members, effects, strict=True)):
            own = (*runs.get(at, ()), *self._alone.get(at, ()))
            if at in self._out:
                found.append(replace(member, runs=own))
                continue
            with_it = [made[-1] for has, made in self._made.items() if at in has and made[-1].metric is not None]
            share = Share(
                f"{self.seed:08x}", size, len(rows), effect.gain,
                effect.error, effect.degrees, max((run.training_seconds for run in with_it), default=0.0),
                max((run.peak_memory_mb for run in with_it), default=0.0),
            )  # fmt: skip
            found.append(replace(member, runs=own, share=share, decision=self._decision(effect, belief, len(rows))))
        return found

    def _decision(self, effect: Effect, belief: Belief, runs: int) -> Decision:
        asked, believed = needed(effect, belief), belief.of_effect(effect)
        joins = effect.gain > asked
        decided = None if joins else Reason.WITHIN_NOISE if effect.gain > 0 else Reason.REGRESSION
        sign = self.head.direction.gain(1.0, 0.0)  # -1 if a lower metric is better
        if effect.error < math.inf:
            said = (
                f"{sign * effect.gain:+.6f} ± {effect.error:.6f} by {runs} runs with {len(self.members) - 1} other "
                f"proposals, a gain with P = {believed.p:.2f}"
            )
        else:
            said = f"its {runs} runs with {len(self.members) - 1} other proposals do not tell its effect from theirs"
        said += ": it joins the batch's combination" if joins else ""
        return Decision(self.head.metric, asked, decided, said, believed.p, "batch")


def _all_in(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset[int]().union(*sets)
