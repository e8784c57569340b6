"""Whether the effects of changes add up: a designed experiment, its fold-over, and the same changes one at a time.

    python benchmarks/additivity.py benchmarks/additivity.json
    python benchmarks/additivity.py benchmarks/additivity.json --run --steps 150
    python benchmarks/additivity.py benchmarks/additivity-h200.json --run --set h200 --budget 40 --only design

A batch (see docs/verdict.md) runs several changes together and estimates each one's effect by least squares. That
assumes that effects add up. Here are eleven changes of `train.py`, one of the two sets of `changes.py`. On one seed, 12
runs have about half of the changes each (a Plackett-Burman design). On another seed, 12 runs have the others (the
fold-over). Both seeds also have the unchanged program and each change alone. Four more seeds have six combinations that
the design did not run, chosen by its estimates or at random.

`--run` makes the runs that the file lacks, one at a time, and writes the file after each. With `--steps`, training has
a fixed number of steps, so that other work on the machine changes nothing; with `--budget`, seconds. `--only` names the
parts to run: `design`, `fold`, `alone`, `combinations`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from changes import SETS, program
from curves import trained_as
from pydoe import pbdesign

COUNT = 11  # changes of a set
SEEDS = {"design": 100, "fold": 101}
NEW_SEEDS = (102, 103, 104, 105)
PARTS = ("design", "fold", "alone", "combinations")

Run = dict[str, object]
Setting = tuple[int, ...]  # for each change, whether the program has it


@dataclass(frozen=True)
class Effects:
    """A least-squares fit: metric = seed + sum of the effects of the changes that the program has.

    Attributes:
        effects: Of each change.
        errors: Their standard errors, or zeros if nothing is left to estimate them from.
        seeds: The unchanged program's metric on each seed, by the fit.
        residual: The standard deviation of what is left, and its degrees of freedom.
    """

    effects: np.ndarray
    errors: np.ndarray
    seeds: dict[int, float]
    residual: float
    freedom: int

    def predicted(self, setting: Setting) -> float:
        """The difference of this program to the unchanged one."""
        return float(np.dot(self.effects, setting))


def design() -> list[Setting]:
    """A Plackett-Burman design of 12 runs for 11 changes."""
    return [tuple(int(level > 0) for level in row) for row in pbdesign(COUNT)]


def fold_over() -> list[Setting]:
    """The design with each level reversed."""
    return [tuple(1 - level for level in row) for row in design()]


def singles() -> list[Setting]:
    """The unchanged program, then each change alone."""
    return [tuple(0 for _ in range(COUNT))] + [tuple(int(at == own) for at in range(COUNT)) for own in range(COUNT)]


def combinations(runs: Sequence[Run]) -> dict[str, Setting]:
    """Six programs that the designs did not run, the first three chosen by the effects that these estimate."""
    found = fit(designed(runs))
    order = np.argsort(found.effects)
    helpful = int((found.effects < 0).sum())

    def having(chosen: Iterable[int]) -> Setting:
        taken = {int(at) for at in chosen}
        return tuple(int(at in taken) for at in range(COUNT))

    random = np.random.default_rng(0)
    return {
        "all that look helpful": having(order[: max(helpful, 1)]),
        "the best three": having(order[:3]),
        "the worst three": having(order[-3:]),
        **{f"random {number}": having(random.permutation(COUNT)[:4]) for number in (1, 2, 3)},
    }


def fit(runs: Sequence[Run]) -> Effects:
    """The effects by least squares, with each seed as a block."""
    seeds = sorted({one["seed"] for one in runs})
    blocks = np.array([[float(one["seed"] == seed) for seed in seeds] for one in runs])
    matrix = np.hstack([np.array([one["changes"] for one in runs], dtype=float), blocks])
    metric = np.array([one["val_bpb"] for one in runs], dtype=float)
    parts, _, rank, _ = np.linalg.lstsq(matrix, metric)
    freedom = len(runs) - int(rank)
    left = metric - matrix @ parts
    residual = float(np.sqrt(left @ left / freedom)) if freedom else 0.0
    errors = residual * np.sqrt(np.diag(np.linalg.pinv(matrix.T @ matrix)))
    found = dict(zip(seeds, parts[COUNT:], strict=True))
    return Effects(parts[:COUNT], errors[:COUNT], found, residual, freedom)


def designed(runs: Sequence[Run]) -> list[Run]:
    """The runs of the design and of its fold-over."""
    wanted = {(SEEDS["design"], setting) for setting in design()} | {
        (SEEDS["fold"], setting) for setting in fold_over()
    }
    return [one for one in runs if (one["seed"], tuple(one["changes"])) in wanted]


def alone(runs: Sequence[Run]) -> list[Run]:
    """The runs with one change or none on the designs' seeds."""
    return [one for one in runs if sum(one["changes"]) <= 1 and one["seed"] in SEEDS.values()]


def wanted(part: str, runs: Sequence[Run]) -> list[tuple[int, Setting]]:
    """The runs of a part: seed and program."""
    if part == "alone":
        return list(product(SEEDS.values(), singles()))
    if part == "combinations":
        return list(product(NEW_SEEDS, [singles()[0], *combinations(runs).values()]))
    return [(SEEDS[part], setting) for setting in (design() if part == "design" else fold_over())]


def measure(path: Path, parts: Sequence[str], chosen: str, steps: int | None, budget: float | None) -> None:
    """Make the runs that are missing."""
    here = {"set": chosen, "steps": steps, "budget_seconds": budget}
    stored = json.loads(path.read_text("utf-8")) if path.exists() else {**here, "runs": []}
    if {name: stored[name] for name in here} != here:
        sys.exit(f"{path} has runs of another set or length: name a new file")
    runs = stored["runs"]
    told = {"AUTORESEARCH_BUDGET": str(budget)} if budget else {}
    for part in parts:
        for seed, setting in wanted(part, runs):
            if any(one["seed"] == seed and tuple(one["changes"]) == setting for one in runs):
                continue
            numbers, _ = trained_as(program(chosen, setting, steps), seed, told)
            runs.append({"seed": seed, "changes": setting, "val_bpb": numbers["val_bpb"]})
            lines = ",\n  ".join(json.dumps(one) for one in runs)
            path.write_text(f"{json.dumps(stored | {'runs': []})[:-2]}\n  {lines}\n ]}}\n", "utf-8")
            print(f"{part}, seed {seed}, {''.join(map(str, setting))}: {numbers['val_bpb']:.6f}", flush=True)


def report(runs: Sequence[Run], names: Iterable[str]) -> str:
    """The tables."""
    together, single = fit(designed(runs)), fit(alone(runs))
    lines = ["| change | in the design | ± | alone | ± | apart, in standard errors |", "|---|---|---|---|---|---|"]
    # Both ways have the residual of the changes alone, which nothing but noise is left in.
    scale = single.residual / together.residual if together.residual else 1.0
    for name, one, e, other, f in zip(
        names, together.effects, together.errors * scale, single.effects, single.errors, strict=True
    ):
        lines.append(
            f"| {name} | {one:+.4f} | {e:.4f} | {other:+.4f} | {f:.4f} | {(one - other) / np.hypot(e, f):+.1f} |"
        )
    spread = np.array([one["val_bpb"] for one in designed(runs)])
    seed = np.array([one["seed"] for one in designed(runs)])
    inside = sum(((spread[seed == s] - spread[seed == s].mean()) ** 2).sum() for s in set(seed.tolist()))
    left = together.residual**2 * together.freedom
    base = {one["seed"]: one["val_bpb"] for one in runs if not sum(one["changes"])}
    lines += [
        f"\nresidual sd: {together.residual:.4f} in the design ({together.freedom} degrees of freedom), "
        f"{single.residual:.4f} of changes alone ({single.freedom})",
        f"share of the variance within a seed that main effects explain: {1 - left / inside:.0%}",
        "the unchanged program by the design and measured: "
        + ", ".join(f"{value:.4f} and {base[s]:.4f} on seed {s}" for s, value in together.seeds.items() if s in base),
        "\n| combination | changes | predicted | measured | difference |",
        "|---|---|---|---|---|",
    ]
    fresh = [one for one in runs if one["seed"] in NEW_SEEDS]
    for name, setting in combinations(runs).items():
        found = [one["val_bpb"] - base[one["seed"]] for one in fresh if tuple(one["changes"]) == setting]
        if found:
            mean, by = float(np.mean(found)), together.predicted(setting)
            lines.append(f"| {name} | {sum(setting)} | {by:+.4f} | {mean:+.4f} | {mean - by:+.4f} |")
    if fresh:
        slope, error = slope_of(fresh, together)
        lines.append(
            f"\n{len(fresh)} runs on new seeds: measured differences are {slope:.2f} ± {error:.2f} times the predicted"
        )
    return "\n".join(lines)


def slope_of(runs: Sequence[Run], effects: Effects) -> tuple[float, float]:
    """The slope of metrics on their predictions, within seeds, and its standard error."""
    seed = np.array([one["seed"] for one in runs])
    metric = np.array([one["val_bpb"] for one in runs], dtype=float)
    predicted = np.array([effects.predicted(tuple(one["changes"])) for one in runs])
    for own in set(seed.tolist()):
        metric[seed == own] -= metric[seed == own].mean()
        predicted[seed == own] -= predicted[seed == own].mean()
    slope = float(predicted @ metric / (predicted @ predicted))
    left = metric - slope * predicted
    freedom = len(runs) - len(set(seed.tolist())) - 1
    return slope, float(np.sqrt(left @ left / freedom / (predicted @ predicted)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--set", choices=SETS, default="cpu", help="the changes (cpu)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--budget", type=float)
    given = parser.parse_args()
    if given.run:
        measure(given.file, given.only, given.set, given.steps, given.budget)
    stored = json.loads(given.file.read_text("utf-8"))
    print(report(stored["runs"], SETS[stored["set"]]))


if __name__ == "__main__":
    main()
