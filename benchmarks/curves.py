"""How well a run's loss before its end predicts its metric: real runs on this machine, and a model of them.

    python benchmarks/curves.py [--steps 250] [--seeds 2] [--baselines 8] [--again]
    python benchmarks/curves.py --gpus 0 1 --steps 215 --to benchmarks/curves-h100.json

Runs `train.py` unchanged and with one constant changed, on the same seeds, for a fixed number of steps: a time budget
would add noise in the number of steps. A run takes about 40 seconds on two cores, and about 80 on a GPU, one run on
each GPU at a time. The runs and the model fitted to them go to `curves.json`; `--again` fits the model again to the
existing runs.

The model describes, at each checkpoint, how far a run's loss (as bits per byte) deviates from what its metric predicts,
as standard deviations. `shape` is the program's part, the same on every seed, in units of the median effect of the
programs. `drift` is the run's own part, and `data` the seed's part, common to all programs; both are in units of the
metric's standard deviation on one seed. Units are relative because noise differs between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pytest_autoresearch.core.loss_curve import CHECKPOINTS, smoothed

ROOT = Path(__file__).resolve().parent.parent
PATH = Path(__file__).with_name("curves.json")
PROGRAMS = {
    "MATRIX_LR": ("0.06", "0.025"), "EMBEDDING_LR": ("0.6", "1.5"), "UNEMBEDDING_LR": ("0.005",),
    "WARMDOWN_FRACTION": ("0.5", "0.85"), "LR_FLOOR": ("0.0",), "WARMUP_FRACTION": ("0.05",), "MOMENTUM": ("0.9",),
    "MATRIX_DECAY": ("0.1",), "ROPE_BASE": ("10_000.0",), "INIT_SCALE": ("1.0",), "SKIP_INIT": ("0.1",),
    "MLP_RATIO": ("3.0",),
}  # fmt: skip
SCHEDULE = ("WARMDOWN_FRACTION", "WARMUP_FRACTION", "LR_FLOOR", "MOMENTUM")  # not raced: their curves differ


def edited(program: str, steps: int | None) -> str:
    """`train.py` with a constant set. With a number of steps, these replace the time budget."""
    source = (ROOT / "train.py").read_text("utf-8")
    counted = (
        ("begun = time.monotonic() - start", f"begun = (steps + len(launched)) * budget / {steps}"),
        ("usable = budget - reserve - (len(launched) + 1.5) * max(recent)", "usable = budget"),
    )
    for old, new in counted if steps else ():
        if source.count(old) != 1:
            sys.exit(f"train.py has no single line {old!r} any more: change this benchmark with it")
        source = source.replace(old, new)
    if program == "baseline":
        return source
    name, value = program.split("=")
    source, count = re.subn(rf"^{name} = [^ \n]+", f"{name} = {value}", source, flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"train.py has no single constant {name} any more: change this benchmark with it")
    return source


def trained(program: str, seed: int, steps: int | None, told: dict[str, str]) -> tuple[dict[str, float], list[float]]:
    """One run of `train.py` with a constant set; see `edited` and `trained_as`."""
    return trained_as(edited(program, steps), seed, told)


def trained_as(source: str, seed: int, told: dict[str, str]) -> tuple[dict[str, float], list[float]]:
    """One run of this `train.py` by hand, with these variables set: its summary, and the loss of each step.

    Raises:
        SystemExit: It gave no metric.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.py").write_text(source, "utf-8")
        told = {"PYTHONPATH": str(ROOT), "AUTORESEARCH_SEED": str(seed), **told}
        done = subprocess.run(
            [sys.executable, "train.py"], cwd=folder, env={**os.environ, **told}, capture_output=True, text=True
        )
    numbers = {name: float(x) for name, x in re.findall(r"^(\w+): ([-+.e\d]+)$", done.stdout, re.MULTILINE)}
    if "val_bpb" not in numbers:
        sys.exit(f"a run gave no metric: {(done.stdout + done.stderr)[-500:]}")
    return numbers, [float(loss) for loss in re.findall(r"loss: ([0-9.]+)", done.stdout)]


def run(program: str, seed: int, steps: int, gpu: str = "") -> dict[str, object]:
    """One run: its metric, and its smoothed loss at the checkpoints and at the end."""
    told = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {"AUTORESEARCH_PROFILE": "cpu"}
    numbers, losses = trained(program, seed, steps, told)
    return entry(program, seed, numbers["val_bpb"], losses)


def entry(program: str, seed: int, metric: float, losses: list[float]) -> dict[str, object]:
    """The stored data of a run."""
    curve = [((step + 1) / len(losses), loss) for step, loss in enumerate(losses)]
    end = statistics.fmean(losses[-len(losses) // 10 :])
    return {
        "program": program, "seed": seed, "val_bpb": metric, "losses": [round(x, 5) for x in (*smoothed(curve), end)]
    }  # fmt: skip


def model(runs: list[dict[str, object]]) -> dict[str, object]:
    """The parameters of `nights.Curves`, from the programs that ran on every shared seed."""
    raced = [one for one in runs if one["program"].split("=")[0] not in SCHEDULE]
    programs = sorted({one["program"] for one in raced if one["program"] != "baseline"})
    seeds = sorted({one["seed"] for one in raced if one["program"] == programs[0]})
    by = {(one["program"], one["seed"]): one for one in raced}
    metric = np.array([[by[p, s]["val_bpb"] for s in seeds] for p in programs])
    loss = np.array([[by[p, s]["losses"] for s in seeds] for p in programs])
    bits = metric.mean() / loss[:, :, -1].mean()  # bits per byte for a nat per token
    at = slice(len(CHECKPOINTS))
    gap = metric - metric.mean(0)
    behind = (loss[:, :, at] - loss[:, :, at].mean(0)) * bits - gap[:, :, None]
    free = 1 - 1 / len(programs)
    own = behind - behind.mean(1, keepdims=True)
    drift2 = _variance(own) * len(seeds) / (len(seeds) - 1) / free
    shape2 = np.maximum(_variance(behind.mean(1, keepdims=True)) / free - drift2 / len(seeds), 0)
    bases = np.array([one["losses"][: len(CHECKPOINTS)] for one in runs if one["program"] == "baseline"]) * bits
    data2 = np.maximum(bases.var(0, ddof=1) - drift2, 0)
    effect = float(np.median(np.abs(gap.mean(1))))
    paired = float(np.sqrt((((gap - gap.mean(1, keepdims=True)) ** 2).sum(1).mean()) / (len(seeds) - 1) / free))
    alone = statistics.stdev(one["val_bpb"] for one in runs if one["program"] == "baseline")
    return {
        "median_effect": round(effect, 6),
        "sd_of_a_run": round(alone, 6), "sd_of_a_run_beside_others_on_its_seed": round(paired, 6),
        **{name: [round(float(x), 3) for x in np.sqrt(variance) / unit]
           for name, variance, unit in (("drift", drift2, paired), ("shape", shape2, effect), ("data", data2, paired))},
    }  # fmt: skip


def _variance(values: np.ndarray) -> np.ndarray:
    """The standard deviation from the median size, for a normal distribution: robust against single outliers."""
    return (np.median(np.abs(values), axis=(0, 1)) / 0.6745) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--baselines", type=int, default=8)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--gpus", nargs="*", default=[""])
    parser.add_argument("--to", type=Path, default=PATH)
    given = parser.parse_args()
    if given.again:
        runs = json.loads(given.to.read_text("utf-8"))["runs"]
    else:
        programs = [f"{name}={value}" for name, values in PROGRAMS.items() for value in values]
        jobs = [("baseline", seed) for seed in range(given.baselines)]
        jobs += [(program, 100 + seed) for seed in range(given.seeds) for program in programs]
        runs = [None] * len(jobs)
        left = iter(enumerate(jobs))

        def work(gpu: str) -> None:
            for at, (program, seed) in left:  # hands each job to one thread
                runs[at] = run(program, seed, given.steps, gpu)
                print(f"{at + 1} of {len(jobs)}: {program} on seed {seed}: {runs[at]['val_bpb']:.4f}", flush=True)
                given.to.with_suffix(".part").write_text(json.dumps([one for one in runs if one]), "utf-8")

        with ThreadPoolExecutor(len(given.gpus)) as threads:
            list(threads.map(work, given.gpus))
    made = model(runs)
    lines = ",\n  ".join(json.dumps(one) for one in runs)
    given.to.write_text(f'{{"model": {json.dumps(made, indent=1)},\n "runs": [\n  {lines}\n ]}}\n', "utf-8")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
