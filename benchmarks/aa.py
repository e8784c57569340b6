"""How often a keep rule keeps changes without effect, how often the audit then claims a gain, and which gains are kept.

    python benchmarks/aa.py [--nights 2000] [--processes 2]

Simulates nights of 100 proposals without effect through the project's own keep rule. Then audits each night with the
project's own arithmetic: first against last commit, 5 fresh runs each, a gain claimed at 1%, one-sided. A night without
keeps has no audit. Then mixes in gains of known size and counts how often each is kept. Both for several shares of the
variance that is the seed's, without a prior of the noise, as on a CPU, and for other assumptions about seeds. About 15
minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from nights import Played, World, play_all, spread

from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.keeprule import audit
from pytest_autoresearch.keeprule.noise import NO_PRIOR, VAL_BPB_ON_A_GPU
from pytest_autoresearch.keeprule.rule import LEAN, OFF, STANDARD, STRICT, rule_of

PROPOSALS = 100
SD = 0.0004
BASELINE = 0.998
SHARES = (0.0, 0.5, 0.75, 0.9)  # of the variance of a run that is the seed's
GAINS = (1.0, 2.0, 3.0)  # in standard deviations of the residual
PLANTED = 10  # one proposal in this many is a gain
CHANGES: dict[str, dict[str, Any]] = {
    "every proposal draws anew from its seeds": {"redrawn": True},
    "half of a residual is the base's": {"inherited": 0.5},
    "nine tenths of it are": {"inherited": 0.9},
}
HEAD = (
    "| rule | seed's share | kept of 100 | most in a night | nights that kept nothing | runs "
    "| reported less true, in sd | audited less true | audit claims a gain | its interval holds the truth |\n"
    + "|---" * 10 + "|"
)  # fmt: skip


def audited(job: tuple[Played, int]) -> audit.Difference | None:
    """The result of a night's audit; None if nothing was kept."""
    night, seed = job
    if not night.kept:
        return None
    random = np.random.default_rng((seed, 1))
    metrics: dict[audit.AuditSide, list[float]] = {side: [] for side in audit.AuditSide}
    truths = {audit.AuditSide.FIRST: BASELINE, audit.AuditSide.LAST: night.truths[-1]}
    for turn in audit.turns(audit.RUNS, []):
        metrics[turn.side].append(truths[turn.side] + SD * float(random.standard_normal()))  # seed and residual
    return audit.compare(metrics[audit.AuditSide.FIRST], metrics[audit.AuditSide.LAST], Direction.MINIMIZE)


def null(name: str, world: World, nights: int, processes: int) -> str:
    """One line of the first table."""
    played = play_all([(world, BASELINE, [0.0] * PROPOSALS, seed) for seed in range(nights)], processes)
    kept = [len(night.kept) for night in played]
    start = zlib.crc32(f"{name} {world.share}".encode())  # each row has random numbers of its own
    jobs = list(zip(played, range(start, start + nights), strict=True))
    audits = [one for one in spread(audited, jobs, processes) if one]
    rate, error = statistics.fmean(kept), statistics.stdev(kept) / math.sqrt(nights)
    clean = sum(count == 0 for count in kept) / nights
    runs = statistics.fmean(night.costs[-1] for night in played)
    bias = statistics.fmean(night.reported - night.truths[-1] for night in played) / SD
    claimed = sum(one.shown for one in audits)
    share, about = claimed / nights, math.sqrt(claimed) / nights
    covered = sum(abs(one.gain) <= one.margin for one in audits) / max(
        len(audits), 1
    )  # the true gain of every night is 0
    return (
        f"| {name} | {world.share:g} | {rate:.2f} ± {error:.2f} | {max(kept)} | {100 * clean:.0f}% | {runs:.0f} "
        f"| {bias:+.2f} | {statistics.fmean([-one.gain for one in audits] or [0.0]) / SD:+.2f} "
        f"| {100 * share:.2f}% ± {100 * about:.2f}% | {100 * covered:.1f}% |"
    )


def power(name: str, world: World, nights: int, processes: int) -> str:
    """One line of the second table."""
    shares = []
    for gain in GAINS:
        effect = -gain * SD * math.sqrt(1 - world.share)
        effects = [effect if number % PLANTED == PLANTED // 2 else 0.0 for number in range(PROPOSALS)]
        played = play_all([(world, BASELINE, effects, seed) for seed in range(nights)], processes)
        found = sum(effect < 0 for night in played for effect in night.kept)
        shares.append(found / (nights * PROPOSALS // PLANTED))
    return f"| {name} | {world.share:g} | " + " | ".join(f"{100 * share:.0f}%" for share in shares) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    began = time.monotonic()
    rules = [(rule.name, rule, VAL_BPB_ON_A_GPU) for rule in (OFF, STANDARD, STRICT, LEAN, rule_of("3"))]
    rules += [(f"{rule.name}, no prior", rule, NO_PRIOR) for rule in (STANDARD, STRICT, LEAN)]
    worlds = [(name, World(rule, SD, prior=prior, share=share)) for name, rule, prior in rules for share in SHARES]
    print(f"{PROPOSALS} proposals that change nothing, {given.nights} nights a row, sd of a run {SD}\n")
    print(HEAD, flush=True)
    for name, world in worlds:
        print(null(name, world, given.nights, given.processes), flush=True)
    few = max(1, given.nights // 5)
    print(f"\none gain in {PLANTED} proposals, {few} nights each: share of the gains that is kept\n")
    print("| rule | seed's share | " + " | ".join(f"{gain:g} sd" for gain in GAINS) + " |")
    print("|---" * (len(GAINS) + 2) + "|", flush=True)
    for name, world in worlds:
        print(power(name, world, few, given.processes), flush=True)
    print(f"\nno effect, but other assumptions about seeds, {few} nights each\n\n{HEAD}", flush=True)
    for name, change in CHANGES.items():
        for prior in (VAL_BPB_ON_A_GPU, NO_PRIOR):
            world = replace(World(STANDARD, SD, prior=prior, share=0.75), **change)
            said = name if prior.freedom else f"{name}, no prior"
            print(null(f"standard, {said}", world, few, given.processes), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
