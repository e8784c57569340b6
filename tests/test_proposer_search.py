"""The search improves a program by its constants, goes on from the records, and never tries a program twice."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from pytest_autoresearch.errors import UserError
from pytest_autoresearch.experiment import Crash, Direction, Experiment, Proposal, Run, Status, Verdict
from pytest_autoresearch.proposers import constants
from pytest_autoresearch.proposers.base import Context, Proposer
from pytest_autoresearch.proposers.constants import Value
from pytest_autoresearch.proposers.ranges import candidates
from pytest_autoresearch.proposers.search import SearchProposer

Score = Callable[[Mapping[str, Value]], float]

TRAIN = textwrap.dedent("""\
    # Größen
    EMBEDDING_LR = 0.6
    MATRIX_LR = 0.04
    WEIGHT_DECAY = 0.2
    ADAM_BETA2 = 0.95
    WARMDOWN_RATIO = 0.5
    INIT_SCALE = 1.0
    SOFTCAP = 15.0
    ROPE_BASE = 10_000
    DEPTH = 8
    TOTAL_BATCH = 2**18
    TIED = True
    SEED = 42  # nobody's business
    """)


def values_of(source: str) -> dict[str, Value]:
    return {constant.name: constant.value for constant in constants.find(source)}


def judged(number: int, proposal: Proposal, metric: float | None, best: float, **changes: object) -> Experiment:
    """An experiment as it stands in the records; no metric is a crash, and better than `best` is kept."""
    crash = None if metric is not None else Crash("exit 1", "it broke")
    experiment = Experiment(
        number, "t", "c", "b", "t", proposal, (Run(0, metric, crash=crash),), incumbent=best, **changes
    )  # type: ignore[arg-type]
    if crash:
        return replace(experiment, verdict=Verdict(Status.CRASH, crash.reason, "it broke"))
    kept = experiment.gain > 0
    verdict = Verdict(Status.KEEP, "improved", "better") if kept else Verdict(Status.DISCARD, "not-improved", "worse")
    return replace(experiment, verdict=verdict)


class Campaign:
    """A campaign without git or training: a score of the constants stands for both."""

    def __init__(self, folder: Path, score: Score, source: str = TRAIN, direction: Direction = Direction.MINIMIZE):
        self.folder = folder
        self.score = score
        self.head = source
        self.direction = direction
        self.records: list[Experiment] = []
        self.best = score(values_of(source))
        self.sources = {source}

    def context(self, running: tuple[tuple[int, str], ...] = ()) -> Context:
        self.reset()
        records = tuple(self.records)
        return Context(len(records) + 1, self.folder, ("train.py",), "", records, running, self.folder, self.folder)

    def reset(self) -> None:
        (self.folder / "train.py").write_bytes(self.head.encode())

    @property
    def edited(self) -> str:
        return (self.folder / "train.py").read_bytes().decode()

    def judge(self, proposal: Proposal, metric: float | None) -> Experiment:
        record = judged(len(self.records) + 1, proposal, metric, self.best, direction=self.direction)
        self.records.append(record)
        if record.verdict and record.verdict.status is Status.KEEP:
            self.head, self.best = self.edited, record.metric
        return record

    def run(self, proposer: Proposer, count: int) -> None:
        for _ in range(count):
            proposal = proposer.propose(self.context())
            assert proposal is not None
            assert self.edited not in self.sources, f"{proposal.description} was tried before"
            assert dict(proposal.parameters) == values_of(self.edited)
            self.sources.add(self.edited)
            metric = self.score(values_of(self.edited))
            self.judge(proposal, None if math.isnan(metric) else metric)


class Guesses:
    """One constant to one value of its range, both drawn evenly: the search with nothing learned."""

    name = "guesses"

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tried: set[str] = set()

    def propose(self, context: Context) -> Proposal:
        path = context.folder / "train.py"
        head = path.read_bytes().decode()
        self.tried.add(head)
        while True:
            constant = self.rng.choice([one for one in constants.find(head) if candidates(one.name, one.value)])
            values = {constant.name: self.rng.choice(candidates(constant.name, constant.value))}
            edited = constants.edit(head, values)
            if edited not in self.tried:
                self.tried.add(edited)
                path.write_bytes(edited.encode())
                return Proposal(constant.name, parameters=values_of(edited))

    def repair(self, context: Context, proposal: Proposal, failure: str) -> None:
        return None


def coordinate(value: Value) -> float:
    """Doublings of a number; of the odds of a fraction."""
    return math.log2(value / (1 - value)) if 0 < value < 1 else math.log2(1 + value)


def bowl(seed: int) -> Score:
    """A smooth loss with its least point within a doubling or so of each constant, some mattering far more."""
    rng = random.Random(seed)
    start = {name: coordinate(value) for name, value in values_of(TRAIN).items() if name != "SEED"}
    least = {name: at + rng.gauss(0, 0.7) for name, at in start.items()}
    weight = {name: math.exp(rng.gauss(-1, 1.3)) for name in start}
    ridges = [(a, b, rng.gauss(0, 0.3)) for a, b in rng.sample(list(combinations(start, 2)), 6)]

    def loss(values: Mapping[str, Value]) -> float:
        off = {name: math.sqrt(weight[name]) * (coordinate(values[name]) - least[name]) for name in start}
        return sum(distance**2 for distance in off.values()) + sum(tie * off[a] * off[b] for a, b, tie in ridges)

    return loss


def test_forty_proposals_get_a_fifth_closer_than_guessing_does(tmp_path: Path) -> None:
    # The statistic: the share of the first loss that is left after 40 experiments, averaged over 12 losses.
    def left(make: Callable[[int], Proposer]) -> float:
        shares = []
        for seed in range(12):
            campaign = Campaign(tmp_path, bowl(seed))
            first = campaign.best
            campaign.run(make(seed), 40)
            shares.append(campaign.best / first)
        return statistics.mean(shares)

    searched, guessed = left(SearchProposer), left(Guesses)
    print(searched, guessed)
    assert searched < 0.8 * guessed
