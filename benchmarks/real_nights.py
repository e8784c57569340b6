"""Real sessions of proposals without effect: how many are kept.

    python benchmarks/real_nights.py [--nights 3] [--proposals 100] [--rules off standard strict]

Sessions run in a new repository with git, processes and the acceptance test. Training takes milliseconds and prints
0.98 plus normal noise with standard deviation 0.0004, which depends on the seed and the program's text. Each proposal
sets an unused constant. `benchmarks/aa.py` simulates the same nights with the same rule; the results must agree.
"""

from __future__ import annotations

import argparse
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

IGNORED = 0
drawn = random.Random(f"{os.environ['AUTORESEARCH_SEED']} NIGHT_OF_THEM {open(__file__).read()}")
print("val_bpb:", 0.98 + drawn.gauss(0, 0.0004))
"""
HOOK = """
from pytest_autoresearch.core.experiment import Proposal

def pytest_autoresearch_propose(context, failure):
    train = context.folder / "train.py"
    lines = train.read_text().splitlines(True)
    at = next(number for number, line in enumerate(lines) if line.startswith("IGNORED"))
    lines[at] = f"IGNORED = {context.number}\\n"
    train.write_text("".join(lines))
    return Proposal(f"ignored {context.number}")
"""
FILES = {
    "conftest.py": HOOK,
    "describe.py": """print('{"device": "cuda", "budget_seconds": 10}')\n""",  # for the prior of the noise
    "program.md": "Nothing helps.\n",
    "pytest.ini": "[pytest]\nautoresearch_command = python -S train.py\n"
    "autoresearch_describe = python -S describe.py\n",
    ".gitignore": "__pycache__/\nresults.*\nexperiments/\n",
}


def night(folder: Path, rule: str, number: int, proposals: int) -> tuple[int, int]:
    """One night in a new repository: how many proposals were kept, and how many runs it took."""
    for name, text in {**FILES, "train.py": TRAIN.replace("NIGHT_OF_THEM", str(number))}.items():
        (folder / name).write_text(text)
    git = ["git", "-c", "user.name=aa", "-c", "user.email=aa@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "baseline"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    options = ["--autoresearch-tag", "aa", "--autoresearch-sandbox", "off", "--autoresearch-confirm", rule]
    session = [sys.executable, "-m", "pytest", "-q", "--autoresearch", "--max", str(proposals), *options]
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
    given = parser.parse_args()
    print(f"{'rule':<10} {'nights':>6} {'kept of 100':>14} {'runs a night':>13} {'seconds a night':>16}")
    for rule in given.rules:
        began, kept, runs = time.monotonic(), 0, 0
        for number in range(given.nights):
            with tempfile.TemporaryDirectory() as folder:
                more = night(Path(folder), rule, number, given.proposals)
            kept, runs = kept + more[0], runs + more[1]
        tried = given.nights * given.proposals
        share, error = 100 * kept / tried, 100 * math.sqrt(max(kept, 1)) / tried
        seconds = (time.monotonic() - began) / given.nights
        said = f"{share:.1f} ± {error:.1f}"
        print(f"{rule:<10} {given.nights:>6} {said:>14} {runs / given.nights:>13.0f} {seconds:>16.0f}", flush=True)


if __name__ == "__main__":
    main()
