"""The CPU profile: tokens a second, and seconds outside the budget.

    python benchmarks/cpu.py [--runs 3] [--train FILE ...]
    python benchmarks/cpu.py --turns 200 --train FILE FILE

Runs `train.py` by hand, each run with its score. With several files, they take turns, so that other work disturbs them
alike. On two idle cores, at most 10 seconds should be outside the budget.

With `--turns`, nothing is run to its end: all files take turns of a few steps in one process, which compares their
speed also on a busy machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

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


def take_turns(files: list[Path], turns: int, steps: int = 4) -> None:
    """Print the median time of a step of each file, and the median ratio to the first file in the same turn."""
    os.environ["AUTORESEARCH_PROFILE"] = "cpu"
    sys.path.insert(0, str(ROOT))
    import harness

    trainers = [
        loaded(file, f"train_{number}").Trainer(harness.profile(), seed=42) for number, file in enumerate(files)
    ]
    for trainer in trainers:
        trainer.warm_up(steps=3)
    rows, spent = harness.begin(), [[] for _ in files]
    feeds = [harness.batches(rows, one.batch_rows, one.device, harness.seed()) for one in trainers]
    for number in range(turns):
        for which in range(len(files))[:: (-1) ** number]:
            trainer, feed = trainers[which], feeds[which]
            began = time.monotonic(), time.process_time()
            for _ in range(steps):
                trainer.step([next(feed) for _ in range(trainer.batches_per_step)], progress=0.5).item()
            spent[which].append((time.monotonic() - began[0], time.process_time() - began[1]))
    print("| file | tokens a step | ms a step | ratio | processor ms a step | ratio |\n|---|---|---|---|---|---|")
    for file, trainer, own in zip(files, trainers, spent, strict=True):
        cells = []
        for kind in (0, 1):
            ratio = statistics.median(one[kind] / first[kind] for one, first in zip(own, spent[0], strict=True))
            cells += [f"{1000 * statistics.median(one[kind] for one in own) / steps:.1f}", f"{ratio:.3f}"]
        print(f"| {file} | {trainer.tokens_per_step:,} | {' | '.join(cells)} |")


def loaded(file: Path, name: str) -> ModuleType:
    """A training script as a module."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Print a line for each run, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each file (3)")
    parser.add_argument("--turns", type=int, default=0, help="compare steps instead of runs, in this many turns")
    parser.add_argument("--train", type=Path, nargs="+", default=[ROOT / "train.py"], metavar="FILE")
    given = parser.parse_args()
    if given.turns:
        take_turns(given.train, given.turns)
        return
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
