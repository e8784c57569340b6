"""Real sessions of proposals without effect: how many are kept.

    python benchmarks/real_nights.py [--nights 3] [--proposals 100] [--rules off standard strict] [--shares 0 0.75]
    python benchmarks/real_nights.py --nights 20 --rules standard --batch 15

Sessions run in a new repository with git, processes and the acceptance test. Training takes milliseconds and prints
0.98 plus normal noise with standard deviation 0.0004. A share of its variance depends on the seed, the rest on the
seed and the program's text. Each proposal sets an unused constant. `--no-prior` lets the rule believe nothing of the
noise, as on a CPU. `benchmarks/aa.py` simulates such nights with the same rule; the results must agree.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_autoresearch.core.experiment import BASELINE, Status
from pytest_autoresearch.ledger.ratchet import Ratchet

TRAIN = """
import os, random

IGNORED_CONSTANTS
name = f"{os.environ['AUTORESEARCH_SEED']} NIGHT_OF_THEM"
of_the_seed = random.Random(name).gauss(0, 0.0004 * SHARE_OF_SEED**0.5)
of_the_run = random.Random(f"{name} {open(__file__).read()}").gauss(0, 0.0004 * (1 - SHARE_OF_SEED) ** 0.5)
print("val_bpb:", 0.98 + of_the_seed + of_the_run)
"""
HOOK = """
from pytest_autoresearch.core.experiment import Proposal

def pytest_autoresearch_propose(context, failure):
    train = context.folder / "train.py"
    lines = train.read_text().splitlines(True)
    at = lines.index(f"IGNORED_{context.number} = 0\\n")
    lines[at] = f"IGNORED_{context.number} = 1\\n"
    train.write_text("".join(lines))
    return Proposal(f"ignored {context.number}")
"""
FILES = {
    "conftest.py": HOOK,
    "describe.py": """print('{"device": "DEVICE", "budget_seconds": 10}')\n""",
    "program.md": "Nothing helps.\n",
    "pytest.ini": "[pytest]\nautoresearch_command = python -S train.py\n"
    "autoresearch_describe = python -S describe.py\n",
    ".gitignore": "__pycache__/\nresults.*\nexperiments/\n",
}


def night(folder: Path, rule: str, number: int, given: argparse.Namespace, share: float) -> tuple[int, int]:
    """One night in a new repository: how many proposals were kept, and how many runs it took."""
    constants = "\n".join(f"IGNORED_{one} = 0" for one in range(1, given.proposals + 1))
    train = TRAIN.replace("NIGHT_OF_THEM", str(number)).replace("SHARE_OF_SEED", str(share))
    train = train.replace("IGNORED_CONSTANTS", constants)
    device = "cpu" if given.no_prior else "cuda"  # only val_bpb on a GPU has a prior
    for name, text in {**FILES, "train.py": train}.items():
        (folder / name).write_text(text.replace("DEVICE", device))
    git = ["git", "-c", "user.name=aa", "-c", "user.email=aa@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "baseline"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    options = ["--autoresearch-tag", "aa", "--autoresearch-sandbox", "off", "--autoresearch-confirm", rule]
    options += ["--autoresearch-batch", given.batch]
    session = [sys.executable, "-m", "pytest", "-q", "--autoresearch", "--max", str(given.proposals), *options]
    done = subprocess.run(session, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    records = Ratchet(folder).records("aa")
    kept = [one for one in records if one.number != BASELINE and one.verdict and one.verdict.status is Status.KEEP]
    return len(kept), sum(len(one.runs) for one in records)


def main() -> None:
    """Print a line for each rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=3)
    parser.add_argument("--proposals", type=int, default=100)
    parser.add_argument("--rules", nargs="+", default=["off", "standard", "strict"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.75], help="of the variance, the seed's")
    parser.add_argument("--no-prior", action="store_true")
    parser.add_argument("--batch", default="off", help="how many proposals are measured together (off)")
    given = parser.parse_args()
    heads = ("rule", "share", "nights", "kept of 100", "most", "runs a night", "seconds a night")
    widths = (10, 6, 7, 12, 5, 13, 16)
    print("".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True)))
    for rule, share in itertools.product(given.rules, given.shares):
        began, kept, runs = time.monotonic(), list[int](), 0
        for number in range(given.nights):
            with tempfile.TemporaryDirectory() as folder:
                more = night(Path(folder), rule, number, given, share)
            kept.append(more[0])
            runs += more[1]
        tried = given.nights * given.proposals
        rate, error = 100 * sum(kept) / tried, 100 * math.sqrt(max(sum(kept), 1)) / tried
        seconds = (time.monotonic() - began) / given.nights
        cells = (
            rule, f"{share:g}", given.nights, f"{rate:.1f} ± {error:.1f}", max(kept), f"{runs / given.nights:.0f}",
            f"{seconds:.0f}",
        )  # fmt: skip
        print("".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)), flush=True)


if __name__ == "__main__":
    main()
