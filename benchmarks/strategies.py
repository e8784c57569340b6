"""Nights of one change at a time against nights of batches, with effects that add up and effects that do not.

    python benchmarks/strategies.py [--nights 120] [--processes 2] [--share 0.75]

Based on a real night of 125 experiments on an H100: `effects.npz` holds 240 sets of true effects that are consistent
with its reported results. Single changes are decided by the project's keep rules, as in `keep_rules.py`; batches by its
designs (`keeprule/designs.py`). "Wrong" is the number of kept proposals without which the final program would be no
worse. "Kept of 100 nothings" is from nights of 100 proposals that change nothing.

The worlds:

- additive: each proposal changes the metric by its own effect, whatever else the program has.
- overlap: proposals belong to ten topics. Of the gains of one topic, the largest counts in full, the next by half, and
  so on.
- clashes: in one pair of proposals of the same topic in four, the second undoes what the smaller of the two gains.
- chance: every pair of a topic changes the metric by a random amount, up and down, whose standard deviation is half of
  the smaller of the two effects.

In a batch, one proposal in ten conflicts with an earlier one of its topic and waits for the next batch.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from nights import HERE, Curves, Night, World, spread

from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.keeprule import designs, student_t
from pytest_autoresearch.keeprule import effects as beliefs
from pytest_autoresearch.keeprule.blocks import Block, Blocks, Components, Observation
from pytest_autoresearch.keeprule.rule import LEAN, OFF, STANDARD

SEED = 20_000
SD = 0.0004
BUDGET = 126  # runs: one for the baseline and one for each proposal
TOPICS = 10
WORLDS = ("additive", "overlap", "clashes", "chance")
CONFLICTS = 0.1
NOTHINGS = 100


class Effects:
    """What programs are worth: sets of proposals, by number from 1."""

    def __init__(self, world: str, own: Sequence[float], seed: int) -> None:
        random = np.random.default_rng(seed)
        self.own = np.concatenate([[0.0], np.asarray(own, dtype=float)])
        self.topic = random.integers(TOPICS, size=len(self.own))
        self._world = world
        smaller = np.minimum.outer(np.abs(self.own), np.abs(self.own))
        same = self.topic[:, None] == self.topic[None]
        pairs = np.zeros_like(smaller)
        if world == "clashes":
            both = (self.own[:, None] < 0) & (self.own[None] < 0)
            pairs = np.where(same & both & (random.random(pairs.shape) < 0.25), smaller, 0.0)
        elif world == "chance":
            pairs = np.where(same, 0.5 * smaller * random.standard_normal(pairs.shape), 0.0)
        pairs = np.triu(pairs, 1)
        self._pairs = pairs + pairs.T

    def __call__(self, program: Sequence[int]) -> float:
        """The metric of a program, less the baseline's."""
        taken = np.array(sorted(program), dtype=int)
        if not taken.size:
            return 0.0
        if self._world == "overlap":
            own = self.own[taken]
            total = float(own[own > 0].sum())
            for topic in range(TOPICS):
                gains = np.sort(own[(own < 0) & (self.topic[taken] == topic)])
                total += float((gains * 0.5 ** np.arange(len(gains))).sum())
            return total
        return float(self.own[taken].sum() + self._pairs[np.ix_(taken, taken)].sum() / 2)

    def wrong(self, program: Sequence[int]) -> int:
        """How many of its proposals make it no better."""
        whole = self(program)
        return sum(self([one for one in program if one != left]) <= whole for left in program)


@dataclass(slots=True)
class Done:
    """The result of a night: the number of runs and the true metric after each step, and what was kept."""

    baseline: float
    steps: list[tuple[float, float]] = field(default_factory=list)
    kept: tuple[int, ...] = ()
    wrong: int = 0

    def at(self, runs: float) -> float:
        """The true metric after so many runs."""
        return [self.baseline, *(truth for cost, truth in self.steps if cost <= runs + 1e-9)][-1]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a night proceeds.

    Attributes:
        name: For the table.
        world: The rule, the noise and the curves of single changes.
        batch: How many proposals are measured together; 0: one at a time.
    """

    name: str
    world: World
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One night."""

    policy: Policy
    world: str
    baseline: float
    own: tuple[float, ...]
    seed: int


def play(job: Job) -> Done:
    """One night."""
    effects = Effects(job.world, job.own, job.seed)
    return batches(job, effects) if job.policy.batch else one_at_a_time(job, effects)


def one_at_a_time(job: Job, effects: Effects) -> Done:
    """A night of the project's keep rules."""
    night = Night(job.policy.world, job.baseline, job.seed)

    def each() -> Iterator[float]:
        for number in range(1, len(job.own) + 1):
            head = night.line[1:]
            yield effects([*head, number]) - effects(head)

    played = night.play(each())
    kept = tuple(night.line[1:])
    return Done(job.baseline, list(zip(played.costs, played.truths, strict=True)), kept, effects.wrong(kept))


def batches(job: Job, effects: Effects) -> Done:
    """A night of designed batches: the runs of a design, then one run of the combination that looks best."""
    random, world = np.random.default_rng(job.seed), job.policy.world
    levels: dict[int, float] = {}
    known: list[Observation] = []
    found: list[beliefs.Effect] = []
    head: tuple[int, ...] = ()
    done = Done(job.baseline)

    def run(program: tuple[int, ...], seed: int) -> float:
        if seed not in levels:
            levels[seed] = SD * math.sqrt(world.share) * random.standard_normal()
        residual = SD * math.sqrt(1 - world.share) * random.standard_normal()
        return job.baseline + effects(program) + levels[seed] + residual

    cost = world.prior.baseline_runs
    known += [Observation((), Block(seed), run((), seed)) for seed in range(cost)]
    waiting = list(range(1, len(job.own) + 1))
    seed = 0
    while waiting:
        batch = merged(waiting, job.policy.batch, effects, random)
        waiting = [one for one in waiting if one not in batch]
        rows = []
        for has in designs.plan(len(batch)):
            program = (*head, *(batch[at] for at in sorted(has)))
            before = [one.metric for one in known if one.program == program and one.block.seed == seed]
            metric = before[0] if before else run(program, seed)
            cost += not before
            if not has and not before:
                known.append(Observation(head, Block(seed), metric))
            rows.append(designs.Row(has, seed, Direction.MINIMIZE.gain(metric, 0.0)))
        noise = Blocks(known, world.prior).components
        estimates = designs.estimate(rows, len(batch), noise)
        found += estimates
        taken = beliefs.chosen(estimates, beliefs.Belief.of(found))
        if taken:
            program = (*head, *(batch[at] for at in taken))
            metric = run(program, seed)
            cost += 1
            against = next(one.metric for one in known if one.program == head and one.block.seed == seed)
            if better(against - metric, noise) >= beliefs.CHECKED_AT:
                head = program
                known.append(Observation(head, Block(seed), metric))
        seed += 1
        done.steps.append((cost, job.baseline + effects(head)))
    return replace(done, kept=head, wrong=effects.wrong(head))


def better(gain: float, noise: Components) -> float:
    """The probability of a gain, by one run of each on one seed."""
    return student_t.cdf(gain / (noise.residual * math.sqrt(2)), noise.degrees)


def merged(waiting: Sequence[int], size: int, effects: Effects, random: np.random.Generator) -> list[int]:
    """The next proposals that merge with each other."""
    batch: list[int] = []
    for one in waiting:
        beside = [other for other in batch if effects.topic[other] == effects.topic[one]]
        if not beside or random.random() >= CONFLICTS:
            batch.append(one)
        if len(batch) == size:
            break
    return batch


def row(policy: Policy, nights: Sequence[Done], nothings: Sequence[Done]) -> str:
    """One line of a table."""
    stopped = [one.at(BUDGET) for one in nights]
    error = statistics.stdev(stopped) / math.sqrt(len(nights))
    luck = [len(one.kept) for one in nothings]
    return (
        f"| {policy.name} | {statistics.fmean(stopped):.5f} ± {error:.5f} "
        f"| {statistics.fmean(one.steps[-1][1] for one in nights):.5f} "
        f"| {statistics.fmean(one.steps[-1][0] for one in nights):.0f} "
        f"| {statistics.fmean(len(one.kept) for one in nights):.1f} "
        f"| {statistics.fmean(one.wrong for one in nights):.2f} | {statistics.fmean(luck):.1f} | {max(luck)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=120)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--share", type=float, nargs="+", default=[0.0, 0.75], help="the seed's share of the variance")
    given = parser.parse_args()
    began = time.monotonic()
    with np.load(HERE / "effects.npz") as loaded:
        draws, baselines = loaded["D"], loaded["M0"]
    curves = Curves.load(SD, float(np.median(np.abs(draws))))
    for share in given.share:
        world = World(STANDARD, SD, share=share)
        policies = (
            Policy("greedy, new seeds", replace(world, rule=OFF, fresh=True)),
            Policy("greedy, one seed", replace(world, rule=OFF)),
            Policy("standard", world),
            Policy("lean, raced", replace(world, rule=LEAN, curves=curves)),
            *(Policy(f"batches of {size}", world, size) for size in (7, 11, 15, 19, 23)),
        )
        nothings = {}
        for kind in WORLDS:
            print(f"\n{kind} effects, seed's share of the variance {share}\n")
            print(
                f"| strategy | true metric at {BUDGET} runs | at the end | runs | keeps | wrong "
                f"| kept of {NOTHINGS} nothings | most |\n|---|---|---|---|---|---|---|---|",
                flush=True,
            )
            for policy in policies:
                if policy.name not in nothings:
                    jobs = [
                        Job(policy, "additive", 1.0, (0.0,) * NOTHINGS, SEED + night) for night in range(given.nights)
                    ]
                    nothings[policy.name] = spread(play, jobs, given.processes)
                jobs = [
                    Job(
                        policy, kind, float(baselines[night % len(draws)]), tuple(draws[night % len(draws)].tolist()),
                        SEED + night,
                    )
                    for night in range(given.nights)
                ]  # fmt: skip
                print(row(policy, spread(play, jobs, given.processes), nothings[policy.name]), flush=True)
    print(f"\n{given.nights} nights a row, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
