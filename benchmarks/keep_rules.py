"""How many of a night's gains each keep rule finds, how many keeps are luck, and how many runs it takes.

    python benchmarks/keep_rules.py [--nights 480] [--processes 2] [--raced]

Based on a real night of 125 experiments on an H100: `effects.npz` holds 240 sets of true effects that are consistent
with its reported results. Each set is simulated through the project's own keep rule and racing. How well a curve
predicts a metric was measured with `curves.py`: on the CPU profile in runs of 15 seconds, on H200s in runs of 40.

A run's metric is program + seed + residual. The tables are for several shares of the variance that is the seed's. The
rows for `off` are upstream's rule: on one fixed seed, and with a new seed for every run. About 10 minutes on two cores,
and as long again with racing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import replace

import numpy as np
from nights import HERE, Curves, Played, World, play_all

from pytest_autoresearch.keeprule.rule import LEAN, OFF, STANDARD, STRICT, Rule, rule_of

SEED = 10_000  # not the seeds on which the lean rule was chosen
SD = 0.0004
SHARES = (0.0, 0.5, 0.75, 0.9)
BUDGET = 126  # runs: one for the baseline and one for each proposal
VARIANTS = (
    replace(STANDARD, name="standard, new head not run again", renew=False),
    replace(STANDARD, name="standard, first run half a sd below", slack=0.5),
    replace(LEAN, name="lean without credit", credit=None),
    replace(LEAN, name="lean, any first run that is below", slack=0.0),
    replace(LEAN, name="lean, new head not run again", renew=False),
    replace(rule_of("3"), name="up to 3 confirmations"),
)


def row(name: str, nights: list[Played]) -> str:
    """One line of the table."""
    final = [night.truths[-1] for night in nights]
    stopped = [night.truth_at(BUDGET) for night in nights]
    keeps = statistics.fmean(len(night.kept) for night in nights)
    nothing = statistics.fmean(sum(effect >= 0 for effect in night.kept) for night in nights)
    runs = statistics.fmean(night.costs[-1] for night in nights)
    bias = statistics.fmean(night.reported - night.truths[-1] for night in nights)
    error = statistics.stdev(stopped) / math.sqrt(len(nights))
    gains = sum(night.gains for night in nights)
    lost = f"{100 * sum(night.lost for night in nights) / gains:.1f}%" if gains else ""
    early = f"{statistics.fmean(night.stopped for night in nights):.0f}" if gains else ""
    return (
        f"| {name} | {statistics.fmean(final):.5f} | {keeps:.1f} | {nothing:.2f} | {runs:.0f} | {bias:+.5f} "
        f"| {statistics.fmean(stopped):.5f} ± {error:.5f} | {early} | {lost} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=480)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--raced", action="store_true", help="the raced rules and other variants, instead of the rules")
    given = parser.parse_args()
    began = time.monotonic()
    with np.load(HERE / "effects.npz") as found:
        effects, baselines = found["D"], found["M0"]
    median = float(np.median(np.abs(effects)))

    def table(share: float, entries: list[tuple[str, Rule, str, bool]]) -> None:
        print(f"\nseed's share of the variance {share}, sd of a run {SD}\n")
        print(
            "| rule | true final | keeps | not an improvement | runs | reported less true "
            f"| true final at {BUDGET} runs | stopped early | gains lost by it |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for name, rule, measured, fresh in entries:
            curves = Curves.load(SD, median, HERE / measured) if measured else None
            world = World(rule, SD, curves, share=share, fresh=fresh)
            jobs = [
                (world, float(baselines[night % len(effects)]), effects[night % len(effects)].tolist(), SEED + night)
                for night in range(given.nights)
            ]
            print(row(name, play_all(jobs, given.processes)), flush=True)

    rules = (OFF, STANDARD, STRICT, LEAN)
    if given.raced:
        entries = [(rule.name, rule, "", False) for rule in VARIANTS]
        for where, measured in (("a CPU", "curves.json"), ("an H200", "curves-h200.json")):
            entries += [(f"{rule.name}, raced by curves of {where}", rule, measured, False) for rule in rules]
    else:
        entries = [("off, a new seed for every run", OFF, "", True)]
        entries += [(rule.name, rule, "", False) for rule in rules]
    for share in (0.0, 0.75) if given.raced else SHARES:
        table(share, entries)
    print(f"\n{given.nights} nights a row, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
