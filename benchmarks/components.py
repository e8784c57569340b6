"""The components of the metric's variance: a program's part, the seed's part, and what is left.

    python benchmarks/components.py FILE...
    python benchmarks/components.py benchmarks/components-h200.json --run baseline MATRIX_LR=0.05 --seeds 100 101

Fits `metric = program + seed + residual` to the runs of each file. A file of `curves.py` can be given too. Programs are
fixed; seeds are a random sample. The seed's part is what all programs share on a seed, so it cancels when two programs
are compared on one seed. The residual does not.

With `--run`, first runs each of these programs on each seed with `train.py`'s own time budget, one at a time, and adds
the runs to the file. Runs that are in the file are not repeated. All runs of a file have one data set, budget and
device; `source_text.py` makes the text of `components-h200.json`. A run on an H200 takes about 6 minutes; do not use
the machine meanwhile. `--budget` sets the seconds of training, for a trial.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from curves import entry, trained

from harness import cache, profiles

Run = dict[str, object]

DRAWS = 200_000


@dataclass(frozen=True)
class Fit:
    """Estimates by the method of fitting constants (Henderson's third), which for a full table are those of the two-way
    analysis of variance.

    Attributes:
        residual_df: Degrees of freedom of the residual.
        residual_variance: Mean square of the residual.
        seed_df: Degrees of freedom of the seeds, after the programs.
        seed_square: Mean square of the seeds, after the programs.
        seed_weights: How often the seed's variance is in the expected square of each of these degrees of freedom; in a
            full table, the number of programs.
    """

    residual_df: int
    residual_variance: float
    seed_df: int
    seed_square: float
    seed_weights: np.ndarray

    @property
    def seed_variance(self) -> float:
        """Unbiased, so it is negative by chance if the seed's part is small."""
        return (self.seed_square - self.residual_variance) / float(self.seed_weights.mean())

    @property
    def run_variance(self) -> float:
        """Of runs of one program on different seeds."""
        return self.seed_variance + self.residual_variance

    @property
    def seed_share(self) -> float:
        """Of a run's variance."""
        return max(self.seed_variance, 0.0) / self.run_variance

    def intervals(self) -> dict[str, tuple[float, float]]:
        """90% intervals of the standard deviations and of the seed's share, for normal distributions: of the variances
        that give the two mean squares together with random squares of a normal distribution."""
        random = np.random.default_rng(0)
        residual = self.residual_df * self.residual_variance / random.chisquare(self.residual_df, DRAWS)
        squares = random.chisquare(1, (DRAWS, self.seed_df))
        seed = (self.seed_df * self.seed_square - residual * squares.sum(1)) / (squares @ self.seed_weights)
        seed = np.maximum(seed, -residual / self.seed_weights.max())
        drawn = {
            "a run": np.sqrt(seed + residual),
            "the seed": np.sqrt(np.maximum(seed, 0)),
            "the residual": np.sqrt(residual),
            "share": np.maximum(seed, 0) / (seed + residual),
        }
        return {name: tuple(float(end) for end in np.quantile(x, (0.05, 0.95))) for name, x in drawn.items()}


def fit(runs: Sequence[Run]) -> Fit:
    """Fit programs and seeds to the metrics.

    Raises:
        SystemExit: The runs leave no degree of freedom.
    """
    metrics = np.array([one["val_bpb"] for one in runs], dtype=float)
    of_program = _indicators([one["program"] for one in runs])
    of_seed = _indicators([one["seed"] for one in runs])
    both = np.hstack([of_program, of_seed])
    left = metrics - of_program @ np.linalg.lstsq(of_program, metrics)[0]
    parts, _, rank, _ = np.linalg.lstsq(both, metrics)
    error = float(((metrics - both @ parts) ** 2).sum())
    residual_df, seed_df = len(runs) - int(rank), int(rank) - of_program.shape[1]
    if not residual_df or not seed_df:
        sys.exit("at least two programs must have run on the same two seeds")
    # What programs do not explain of the seeds' indicators.
    free = of_seed - of_program @ np.linalg.lstsq(of_program, of_seed)[0]
    return Fit(
        residual_df,
        error / residual_df,
        seed_df,
        (float(left @ left) - error) / seed_df,
        np.linalg.svd(free, compute_uv=False)[:seed_df] ** 2,
    )


def _indicators(values: list[object]) -> np.ndarray:
    """For each run and each of the different values, 1 where the run has the value: [runs, values]."""
    return np.array([[float(value == name) for name in dict.fromkeys(values)] for value in values])


def table(runs: Sequence[Run]) -> str:
    """The metrics, and where known the steps: a row for each program, a column for each seed."""
    by = {(one["program"], one["seed"]): one for one in runs}
    seeds = sorted({one["seed"] for one in runs})
    lines = ["| program | " + " | ".join(f"seed {seed}" for seed in seeds) + " |", "|---" * (len(seeds) + 1) + "|"]
    for program in dict.fromkeys(one["program"] for one in runs):
        cells = [_cell(by.get((program, seed))) for seed in seeds]
        lines.append(f"| {program} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(run: Run | None) -> str:
    if run is None:
        return ""
    return f"{run['val_bpb']:.6f}" + (f" ({run['num_steps']} steps)" if "num_steps" in run else "")


def report(runs: Sequence[Run]) -> str:
    """The table of a fit."""
    made = fit(runs)
    intervals = made.intervals()
    rows = (
        ("a run", made.run_variance, ""),
        ("the seed", made.seed_variance, str(made.seed_df)),
        ("the residual", made.residual_variance, str(made.residual_df)),
    )
    lines = ["| part | sd | 90% interval | degrees of freedom |", "|---|---|---|---|"]
    for name, variance, freedom in rows:
        low, high = intervals[name]
        sd = f"{variance**0.5:.6f}" if variance >= 0 else "0 (negative variance)"
        lines.append(f"| {name} | {sd} | {low:.6f} to {high:.6f} | {freedom} |")
    low, high = intervals["share"]
    lines += [
        f"\nthe seed's share of a run's variance: {made.seed_share:.0%}, 90% interval {low:.0%} to {high:.0%}",
        f"sd of the difference of two programs: {(2 * made.residual_variance) ** 0.5:.6f} if both run on one seed, "
        f"{(2 * made.run_variance) ** 0.5:.6f} on different seeds",
    ]
    return "\n".join(lines)


def conditions(budget: float | None) -> dict[str, object]:
    """What all runs of a file have in common."""
    import torch

    profile = profiles.profile()
    data = cache.find(profile)
    return {
        "profile": profile.name,
        "device": profile.device_name,
        "torch": torch.__version__,
        "budget_seconds": budget or profile.budget_seconds,
        "data_hash": data.data_hash,
        "training_tokens": data.training_rows * data.sequence_length,
        "evaluation_tokens": data.evaluation_tokens,
    }


def card() -> str:
    """Tells one GPU from another of the same kind; empty on a CPU."""
    import torch

    return str(torch.cuda.get_device_properties(0).uuid) if profiles.profile().device == "cuda" else ""


def missing(programs: Sequence[str], seeds: Sequence[int], runs: Sequence[Run]) -> Iterator[tuple[str, int]]:
    """What was not run. Every other seed has the programs in reverse order, so that none is always first."""
    known = {(one["program"], one["seed"]) for one in runs}
    for number, seed in enumerate(seeds):
        yield from ((program, seed) for program in programs[:: (-1) ** number] if (program, seed) not in known)


def measure(path: Path, programs: Sequence[str], seeds: Sequence[int], budget: float | None) -> None:
    """Run what is missing, and write the file after each run."""
    here = conditions(budget)
    stored = json.loads(path.read_text("utf-8")) if path.exists() else {"conditions": here, "runs": []}
    if other := {name: here[name] for name in here if stored.get("conditions", {}).get(name) != here[name]}:
        sys.exit(f"{path} has runs of other conditions ({other} here): name a new file")
    runs = stored["runs"]
    for program, seed in list(missing(programs, seeds, runs)):
        numbers, losses = trained(program, seed, None, {"AUTORESEARCH_BUDGET": str(here["budget_seconds"])})
        runs.append(entry(program, seed, numbers["val_bpb"], losses) | {
            "num_steps": int(numbers["num_steps"]), "total_tokens_M": numbers["total_tokens_M"],
            "training_seconds": numbers["training_seconds"], "mfu_percent": numbers["mfu_percent"], "card": card(),
        })  # fmt: skip
        lines = ",\n  ".join(json.dumps(one) for one in runs)
        path.write_text(f'{{"conditions": {json.dumps(here, indent=1)},\n "runs": [\n  {lines}\n ]}}\n', "utf-8")
        print(f"{program} on seed {seed}: {numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--run", nargs="+", metavar="PROGRAM", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--budget", type=float)
    given = parser.parse_args()
    if given.run:
        measure(given.files[0], given.run, given.seeds, given.budget)
    for path in given.files:
        stored = json.loads(path.read_text("utf-8"))
        print(f"\n{path.name}: {len(stored['runs'])} runs\n\n{table(stored['runs'])}\n", flush=True)
        if about := stored.get("conditions"):
            spent = np.mean([one["total_tokens_M"] for one in stored["runs"]]) * 1e6 / about["training_tokens"]
            print(f"{spent:.2f} epochs of {about['training_tokens'] / 1e6:.1f}M training tokens in a run\n", flush=True)
        print(report(stored["runs"]))


if __name__ == "__main__":
    main()
