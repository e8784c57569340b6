"""The speed of a whole experiment on one H200, beside upstream's figures.

    python benchmarks/h200.py [--parts step runs score session] [--experiments 4] [--budget 45] [--to FILE]

Fresh runs of this folder's files: the steps of `train.py` (`step`), `--repeats` runs of `--budget` seconds and one of
`--long` seconds by hand (`runs`), one score (`score`), and a session of the plugin with `--experiments` experiments of
one run each after the baseline (`session`). With all parts and the defaults it takes about 15 minutes. Do not use the
machine meanwhile. Prepare data first: `source_text.py` makes text without a network. The folder need not be a git
repository.

Each part can be tried on a CPU, where its figures mean nothing:

    python benchmarks/h200.py --profile cpu --budget 5 --long 5 --repeats 1 --experiments 1

Upstream's figures are quoted: its script ran on one H200 on 2026-11-30, with flex attention in place of FA3, on other
text than yours may be. The bits per byte of two texts cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import entry_points
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from curves import trained

import harness
import train
from harness import profiles

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("step", "runs", "score", "session")
QUOTED = "2026-11-30"
# Name of the figure: what it says, upstream's figure of that day, ours of that day, the goal.
FIGURES = {
    "tokens_per_second": ("tokens a second, millions", "1.63 (50.3M parameters)", "1.46 (57.7M)", "1.75 or more"),
    "mfu_percent": ("MFU of the default model, percent", "39.6", "35.7", "45 or more"),
    "fed_ratio": ("steps fed by the harness against one constant batch", "0.93", "1.000 to 1.008", "as it is"),
    "step_spread_percent": ("spread of steps over identical runs, sd/mean, percent", "2.4", "0.33", "as it is"),
    "val_bpb_120": ("val_bpb at 120 s, seed 42", "0.6623", "0.6579", "0.985 of upstream's or less"),
    "evaluation_seconds": ("evaluation of the profile's tokens, seconds", "15.4 to 16.6", "6.6 to 7.1", "5 or less"),
    "outside_cold": ("seconds outside the budget, cold", "88", "134 (baseline)", "45 or less"),
    "outside_warm": ("the same of a later experiment of a session", "40", "88 (64 to 108)", "15 or less"),
    "experiments_an_hour": ("experiments an hour at 300 s, without an agent's time", "10.6", "9.3", "11.4 or more"),
    "idle_percent": ("samples with an idle GPU in a session, percent", "25 to 28", "58", "10 or less"),
}

SCORE_STAGES = ("load_seconds", "evaluation_seconds", "score_seconds")

Figures = dict[str, float]


def step(profiled: Path | None, rounds: int = 3) -> Figures:
    """The steps of this process, fed by the harness and with one constant batch; the kernels of a step go to a file."""
    import loader

    _, trainer, rates = loader.rates(rounds, seconds=5.0)
    fed, constant = zip(*rates, strict=True)
    rate = statistics.median(constant)
    if profiled:
        profiled.write_text(kernels(trainer), "utf-8")
    return {
        "tokens_per_second": rate * trainer.tokens_per_step / 1e6,
        "mfu_percent": trainer.mfu_percent(1, 1 / rate),
        "fed_ratio": statistics.median(one / other for one, other in zip(fed, constant, strict=True)),
    }


def alone(part: Callable[..., Figures], *given: object) -> Figures:
    """The figures of a part that runs in a process of its own.

    This process never opens the GPU: a session repeats runs beside which another program uses it.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(part, *given).result()


def kernels(trainer: train.Trainer) -> str:
    """The kernels of one step on made-up tokens after a pause, longest first: milliseconds, how often, name."""
    with torch.profiler.profile() as profiled:
        trainer.warm_up(steps=1)
    rows = [(event.self_device_time_total / 1000, event.count, event.key) for event in profiled.key_averages()]
    rows = sorted((row for row in rows if row[0]), reverse=True)
    lines = [f"{milliseconds:9.3f} {count:5} {name}" for milliseconds, count, name in rows]
    return "\n".join([f"{sum(row[0] for row in rows):9.3f} in all", *lines, ""])


def runs(repeats: int, budget: float, longer: float) -> Figures:
    """Runs by hand, all on one seed."""
    steps = [
        trained("baseline", 42, None, {"AUTORESEARCH_BUDGET": str(budget)})[0]["num_steps"] for _ in range(repeats)
    ]
    found = {f"val_bpb_{longer:g}": trained("baseline", 42, None, {"AUTORESEARCH_BUDGET": str(longer)})[0]["val_bpb"]}
    if repeats > 1:
        found["step_spread_percent"] = 100 * statistics.stdev(steps) / statistics.mean(steps)
    return found


def score() -> Figures:
    """The evaluation alone, of an untrained model: its time does not depend on the weights."""
    from harness.scorer import measure

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        train.Trainer(harness.profile(), seed=1).save(path)
        return {"evaluation_seconds": measure(path, ROOT / "train.py").evaluation_seconds}


def session(experiments: int, budget: float) -> Figures:
    """A session of the plugin in a repository with this folder's files.

    An experiment's seconds outside the budget are all those of its run but the budget: not those of its proposal.
    """
    from pytest_autoresearch.ledger.ratchet import Ratchet

    options = ["--autoresearch-budget", str(budget), "--autoresearch-proposer", "search", "--autoresearch-tag", "h200"]
    options += ["--autoresearch-confirm", "off"]  # one run an experiment
    if not any(one.module.startswith("pytest_autoresearch") for one in entry_points(group="pytest11")):
        options += ["-p", "pytest_autoresearch.plugin"]
    with tempfile.TemporaryDirectory() as parent:
        folder = repository(Path(parent) / "copy")
        command = [sys.executable, "-m", "pytest", "-q", "--autoresearch", "--max", str(experiments), *options]
        path = os.pathsep.join([str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        environment = {**os.environ, "PYTHONPATH": path}
        with utilisation() as samples:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        made = [one for one in Ratchet(folder).records("h200") if one.measured]
    if not made:
        sys.exit(f"the session measured nothing: {(done.stdout + done.stderr)[-3000:]}")
    for one in made:
        for run in one.runs:
            told = {name: round(one.timings.get(name, 0.0), 1) for name in ("propose", "wait", "run")}
            told |= {"startup": round(run.startup_seconds, 1), "training": round(run.training_seconds, 1)}
            told |= {name: (run.scored or {}).get(name, 0.0) for name in SCORE_STAGES}
            print(f"{one.number:04d} {run.role}: scorer {run.score_seconds:.1f} s, {told}", file=sys.stderr)
    outside = [one.timings["run"] - budget * len(one.runs) for one in made]
    found = {"outside_cold": outside[0]}
    if outside[1:]:
        found["outside_warm"] = statistics.mean(outside[1:])
        found["experiments_an_hour"] = 3600 / (300 + found["outside_warm"])
    if samples:
        found["idle_percent"] = 100 * sum(sample == 0 for sample in samples) / len(samples)
    return found


def repository(folder: Path) -> Path:
    """A new git repository with this folder's files, but for those that git ignores and those of earlier runs."""
    left_out = shutil.ignore_patterns(".git", "__pycache__", "*.egg-info", ".venv", "venv", "shared", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=left_out, symlinks=True)
    for name in ("experiments/runs", "site", "dist", "build"):
        shutil.rmtree(folder / name, ignore_errors=True)
    who = {"GIT_AUTHOR_NAME": "benchmark", "GIT_AUTHOR_EMAIL": "benchmark@example.org"}
    who |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in who.items()}
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "The files to measure"]):
        subprocess.run(["git", *words], cwd=folder, check=True, env={**os.environ, **who})
    return folder


@contextmanager
def utilisation() -> Iterator[list[int]]:
    """The GPU's utilisation in percent, five times a second; the list is filled at the end. Empty without a GPU."""
    samples: list[int] = []
    if os.environ.get("AUTORESEARCH_PROFILE") == "cpu" or not shutil.which("nvidia-smi"):
        yield samples
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200", "-i", "0"]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        try:
            yield samples
        finally:
            process.terminate()
            process.wait()
            out.seek(0)
            samples.extend(int(line) for line in out if line.strip().isdecimal())


def table(found: Figures) -> str:
    """The figures as Markdown; what was not measured is empty."""
    lines = [f"| figure | upstream, quoted from {QUOTED} | ours of {QUOTED} | now | goal |", "|---|---|---|---|---|"]
    for name, (words, upstream, ours, goal) in FIGURES.items():
        now = f"{found[name]:.4g}" if name in found else ""
        lines.append(f"| {words} | {upstream} | {ours} | {now} | {goal} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the parts that are asked for, print the table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--experiments", type=int, default=4, help="of the session, beside the baseline (4)")
    parser.add_argument("--repeats", type=int, default=3, help="runs by hand for the spread of steps (3)")
    parser.add_argument("--budget", type=float, default=45.0, help="seconds of training in these runs (45)")
    parser.add_argument("--long", type=float, default=120.0, help="seconds of training in the run for val_bpb (120)")
    parser.add_argument("--profile", help="of harness.profiles; the device's own by default")
    parser.add_argument("--kernels", type=Path, metavar="FILE", help="write the kernels of a step to this file")
    parser.add_argument("--to", type=Path, help="add the figures to this JSON file")
    given = parser.parse_args()
    if given.profile:
        os.environ["AUTORESEARCH_PROFILE"] = given.profile
    found: Figures = {}
    for part in PARTS:
        if part in given.parts:
            measured = {
                "step": lambda: alone(step, given.kernels),
                "runs": lambda: runs(given.repeats, given.budget, given.long),
                "score": lambda: alone(score),
                "session": lambda: session(given.experiments, given.budget),
            }[part]()
            print(f"{part}: {measured}", file=sys.stderr, flush=True)
            found |= measured
    print(table(found))
    if given.to:
        profile = profiles.profile()
        before = json.loads(given.to.read_text("utf-8")) if given.to.exists() else []
        entry = {"date": datetime.now(UTC).date().isoformat(), "device": profile.device_name, "profile": profile.name}
        given.to.write_text(json.dumps([*before, entry | {"figures": found}], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
