"""The CPU profile: tokens a second, and seconds outside the budget.

    python benchmarks/cpu.py [--runs 3] [--train FILE ...]

Runs `train.py` by hand, each run with its score. With several files, they take turns, so that other work disturbs them
alike. On two idle cores, at most 10 seconds should be outside the budget.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(file: Path, seed: int) -> tuple[float, float, float]:
    """Tokens a second, seconds outside the budget, and val_bpb."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(file, Path(folder) / "train.py")
        told = {"PYTHONPATH": str(ROOT), "AUTORESEARCH_PROFILE": "cpu", "AUTORESEARCH_SEED": str(seed)}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "train.py"], cwd=folder, env={**os.environ, **told}, capture_output=True, text=True
        )
        lasted = time.monotonic() - began
    found = {name: float(number) for name, number in re.findall(r"^(\w+): ([-+.e\d]+)$", done.stdout, re.MULTILINE)}
    if "val_bpb" not in found:
        sys.exit(f"{file} gave no metric: {(done.stdout + done.stderr)[-500:]}")
    training = found["training_seconds"]
    return 1e6 * found["total_tokens_M"] / training, lasted - training, found["val_bpb"]


def main() -> None:
    """Print a line for each run, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each file (3)")
    parser.add_argument("--train", type=Path, nargs="+", default=[ROOT / "train.py"], metavar="FILE")
    given = parser.parse_args()
    print("| file | seed | tokens a second | seconds outside the budget | val_bpb |\n|---|---|---|---|---|")
    made: dict[Path, list[tuple[float, float, float]]] = {file: [] for file in given.train}
    for number in range(given.runs):
        for file in given.train[:: (-1) ** number]:
            made[file].append(run(file, 42 + number))
            tokens, outside, metric = made[file][-1]
            print(f"| {file} | {42 + number} | {tokens:,.0f} | {outside:.1f} | {metric:.4f} |", flush=True)
    for file, runs in made.items():
        tokens, outside, metric = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {file} | median | {tokens:,.0f} | {outside:.1f} | {metric:.4f} |")


if __name__ == "__main__":
    main()
