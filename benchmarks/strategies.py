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
from pytest_autoresearch.keeprule import designs
from pytest_autoresearch.keeprule import effects as beliefs
from pytest_autoresearch.keeprule.blocks import Block, Blocks, Observation
from pytest_autoresearch.keeprule.decision import Step, next_action
from pytest_autoresearch.keeprule.evidence import Evidence
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
    """A night of designed batches: the runs of a design, then the keep rule on the combination that looks best."""
    random, world = np.random.default_rng(job.seed), job.policy.world
    levels: dict[int, float] = {}
    known: list[Observation] = []
    found: list[beliefs.Effect] = []
    line: list[tuple[int, ...]] = [()]
    done = Done(job.baseline)
    cost = tried = 0
    due = False

    def run(program: tuple[int, ...], seed: int) -> float:
        nonlocal cost
        cost += 1
        if seed not in levels:
            levels[seed] = SD * math.sqrt(world.share) * random.standard_normal()
        residual = SD * math.sqrt(1 - world.share) * random.standard_normal()
        return job.baseline + effects(program) + levels[seed] + residual

    def run_head(seed: int) -> float:
        nonlocal due
        due = False
        known.append(Observation(line[-1], Block(seed), run(line[-1], seed)))
        return known[-1].metric

    def is_kept(program: tuple[int, ...]) -> bool:
        evidence = Evidence(
            world.rule, Direction.MINIMIZE, tuple(known), line[-1], program, prior=world.prior, number=tried,
            line=tuple(line), due=due, kept=len(line) - 1, tried=tried,
        )  # fmt: skip
        while (action := next_action(evidence)).step in (Step.RUN_CANDIDATE, Step.RUN_INCUMBENT):
            seed = len(levels) if action.seed is None else action.seed
            if action.step is Step.RUN_INCUMBENT:
                evidence = evidence.plus_incumbent(seed, run_head(seed))
            else:
                evidence = evidence.plus(seed, run(program, seed))
        known.extend(evidence.runs)
        return action.step is Step.KEEP

    for seed in range(world.prior.baseline_runs):
        run_head(seed)
    waiting = list(range(1, len(job.own) + 1))
    while waiting:
        batch = merged(waiting, job.policy.batch, effects, random)
        waiting = [one for one in waiting if one not in batch]
        seed, head, rows = len(levels), line[-1], []
        for has in designs.plan(len(batch)):
            program = (*head, *(batch[at] for at in sorted(has)))
            rows.append(designs.Row(has, seed, -(run(program, seed) if has else run_head(seed))))
        estimates = designs.estimate(rows, len(batch), Blocks(known, world.prior).components)
        found += estimates
        tried += len(batch)
        if taken := beliefs.chosen(estimates, beliefs.Belief.of(found)):
            tried += 1
            if is_kept(program := (*head, *(batch[at] for at in taken))):
                line.append(program)
                due = world.rule.renew
        done.steps.append((cost, job.baseline + effects(line[-1])))
    return replace(done, kept=line[-1], wrong=effects.wrong(line[-1]))


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
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=(7, 11, 15, 19, 23), help="proposals of a batch")
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
            *(
                Policy(f"batches of {size}, {rule.name}", replace(world, rule=rule), size)
                for size in given.sizes
                for rule in (STANDARD, LEAN)
            ),
        )
        nothings = {}
        for kind in given.worlds:
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
