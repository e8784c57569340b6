"""One program on several seeds: how much its metric and its number of steps vary.

    python benchmarks/one_program.py [--runs 8] [--budget SECONDS] [--first-seed 42] [--logs FOLDER]

This is the noise that the keep rule faces, and the prior for it. Runs `train.py` directly, one process at a time; do
not use the machine meanwhile. The logs hold the loss curves.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_NUMBER = re.compile(r"^(val_bpb|num_steps|training_seconds|startup_seconds):\s+([-+\d.einfa]+)", re.MULTILINE)


def run(seed: int, budget: float | None, log: Path) -> dict[str, float]:
    """The numbers of one run.

    Raises:
        SystemExit: The run gave no metric.
    """
    environment = {**os.environ, "AUTORESEARCH_SEED": str(seed)}
    if budget:
        environment["AUTORESEARCH_BUDGET"] = str(budget)
    with log.open("w") as out:
        subprocess.run([sys.executable, "train.py"], env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
    text = log.read_text(errors="replace")
    numbers = {name: float(value) for name, value in _NUMBER.findall(text)}
    if not math.isfinite(numbers.get("val_bpb", math.nan)):
        raise SystemExit(f"seed {seed} gave no val_bpb:\n{text[-2000:]}")
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--first-seed", type=int, default=42)
    parser.add_argument("--logs", type=Path)
    given = parser.parse_args()
    folder = given.logs or Path(tempfile.mkdtemp(prefix="one-program-"))
    folder.mkdir(parents=True, exist_ok=True)
    print("| seed | val_bpb | steps | seconds of training |\n|---|---|---|---|")
    runs = []
    for seed in range(given.first_seed, given.first_seed + given.runs):
        numbers = run(seed, given.budget, folder / f"{seed}.log")
        runs.append(numbers)
        print(
            f"| {seed} | {numbers['val_bpb']:.6f} | {numbers['num_steps']:.0f} | {numbers['training_seconds']:.1f} |",
            flush=True,
        )
    metrics, steps = [one["val_bpb"] for one in runs], [one["num_steps"] for one in runs]
    if len(runs) > 1:
        sd, spread = statistics.stdev(metrics), statistics.stdev(steps)
        error = sd / math.sqrt(2 * (len(runs) - 1))
        print(f"\nval_bpb: mean {statistics.mean(metrics):.6f}, sd {sd:.6f} ± {error:.6f}")
        print(f"steps: mean {statistics.mean(steps):.1f}, sd {spread:.1f} ({spread / statistics.mean(steps):.2%})")
    print(f"logs: {folder}")


if __name__ == "__main__":
    main()
