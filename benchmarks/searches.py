"""Simulated nights of the search's two strategies, and of one after the other, on smooth losses of eleven constants.

    python benchmarks/searches.py [--losses 20] [--experiments 40 120] [--noise 0] [--crashes]

The losses are those of tests/test_proposer_search.py: a bowl with its least point about a doubling away in each
constant, some of which matter far more, with ridges. The table has the share of the first loss that the best program
leaves, averaged over the losses, with its standard error. `--noise` is the standard deviation of a run, as a share of
the first loss; a keep needs a gain of two of them. With `--crashes`, programs with a depth over 9 or a batch over 2^18
run out of memory, and the last column counts them.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from test_proposer_search import Campaign, Guesses, bowl, values_of

from pytest_autoresearch.core.experiment import Experiment, Proposal, Status
from pytest_autoresearch.proposers.base import Proposer
from pytest_autoresearch.proposers.cmaes_search import CmaesProposer
from pytest_autoresearch.proposers.search import SearchProposer
from pytest_autoresearch.source.constants import Value

Maker = Callable[[int], Proposer]
STRATEGIES: dict[str, tuple[tuple[int, Maker], ...]] = {
    "guesses of one constant": ((10**9, Guesses),),
    "search (TPE, one constant)": ((10**9, SearchProposer),),
    "search:cmaes (all constants)": ((10**9, CmaesProposer),),
    "20 of search, then search:cmaes": ((20, SearchProposer), (10**9, CmaesProposer)),
    "search:cmaes and search in turn": (),
}


class Night(Campaign):
    """A campaign whose runs may be noisy; what counts is the true loss of the head."""

    def __init__(self, folder: Path, seed: int, noise: float, crashes: bool) -> None:
        self.true = bowl(seed)
        self.rng = random.Random(seed)
        self.crashed = 0
        self.noise = 0.0
        super().__init__(folder, self.true)
        self.first = self.best
        self.noise = noise * self.first
        self.crashes = crashes

    def experiment(self, proposer: Proposer) -> None:
        proposal = proposer.propose(self.context())
        if proposal is None:
            return
        values = values_of(self.edited)
        if self.crashes and (values["DEPTH"] > 9 or values["TOTAL_BATCH"] > 2**18):
            self.crashed += 1
            self.judge(proposal, None)
            return
        metric = self.true(values) + self.rng.gauss(0, self.noise)
        self.judge(proposal, metric)

    def judge(self, proposal: Proposal, metric: float | None) -> Experiment:
        """Keep it if it is better than the head by two standard deviations."""
        best, head = self.best, self.head
        self.best -= 2 * self.noise
        record = super().judge(proposal, metric)
        if record.verdict is not None and record.verdict.status is not Status.KEEP:
            self.best, self.head = best, head
        return record

    def left(self) -> float:
        values: Mapping[str, Value] = values_of(self.head)
        return self.true(values) / self.first


def night(folder: Path, seed: int, strategy: str, counts: list[int], noise: float, crashes: bool) -> list[float]:
    """The share of the loss that is left after each number of experiments, and the crashes."""
    campaign = Night(folder, seed, noise, crashes)
    plan = STRATEGIES[strategy]
    turns = (CmaesProposer(seed), SearchProposer(seed))
    makers = [(until, make(seed)) for until, make in plan]
    found = []
    for number in range(max(counts)):
        proposer = next(one for until, one in makers if number < until) if plan else turns[number % 2]
        campaign.experiment(proposer)
        if number + 1 in counts:
            found.append(campaign.left())
    return [*found, float(campaign.crashed)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--losses", type=int, default=20, metavar="N", help="losses, one night each (20)")
    parser.add_argument("--experiments", type=int, nargs="+", default=[40, 120], metavar="N")
    parser.add_argument("--noise", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--crashes", action="store_true")
    given = parser.parse_args()
    counts = sorted(given.experiments)
    print("| strategy | " + " | ".join(f"after {count}" for count in counts) + " | crashes |")
    print("|---" * (len(counts) + 2) + "|")
    for strategy in STRATEGIES:
        with tempfile.TemporaryDirectory() as scratch:
            nights = [
                night(Path(scratch), seed, strategy, counts, given.noise, given.crashes) for seed in range(given.losses)
            ]
        cells = [
            f"{statistics.mean(column):.3f} ± {statistics.stdev(column) / math.sqrt(len(column)):.3f}"
            for column in list(zip(*nights, strict=True))[:-1]
        ]
        crashed = statistics.mean(one[-1] for one in nights)
        print(f"| {strategy} | " + " | ".join(cells) + f" | {crashed:.1f} |", flush=True)


if __name__ == "__main__":
    main()
