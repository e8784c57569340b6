"""The plugin's own time per experiment, with a training command that only prints.

    python benchmarks/overhead.py [--records 0 1000 10000] [--experiments 20] [--rounds 3] [--search]

For each number of earlier records, two sessions of different length run in a git repository with that many records. The
time per experiment is the difference of the two sessions, divided by the difference in experiments. Rounds of all sizes
alternate, so that a busy minute affects all of them, and medians are compared. The goals: at most 0.5 s per experiment,
and with 10,000 records at most 1.5 times the time without records.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random

from pytest_autoresearch.core.experiment import Decision, Experiment, Proposal, Status, Verdict
from pytest_autoresearch.core.records import encode
from pytest_autoresearch.core.run import Limits, Run
from pytest_autoresearch.ledger.ratchet import Ratchet

TAG = "night"
WHO = "Ada <ada@example.org>"
CONSTANTS = [f"RATE_{letter}" for letter in "ABCDEFGHIJKLMNOPQRST"]
TRAIN = (
    "\n".join(f"{name} = 0.5" for name in CONSTANTS)
    + """
RATE = {rate}
print("step 1 loss: 2.5")
print("---")
print("val_bpb: 1.0")
print("training_seconds: 0.01")
"""
)
PROPOSE = """
from pytest_autoresearch.core.experiment import Proposal

def pytest_autoresearch_propose(context, failure):
    train = context.folder / "train.py"
    train.write_text(train.read_text().replace("RATE = ", f"RATE = {context.number} + ", 1))
    return Proposal(f"rate {context.number}", proposer="benchmark")
"""
CONFIG = """
[pytest]
autoresearch_command = python -S train.py
"""
SHORT = 2  # experiments of the shorter session; the fixed cost of a session is in both and cancels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, nargs="+", default=[0, 1000, 10_000], metavar="N")
    parser.add_argument("--experiments", type=int, default=20, metavar="N", help="of the longer session (20)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="repetitions of each size (3)")
    parser.add_argument("--search", action="store_true", help="with the search as the proposer, not a hook (off)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {count: repository(Path(scratch) / str(count), count, given.search) for count in given.records}
        costs: dict[int, list[float]] = {count: [] for count in folders}
        starts: dict[int, list[float]] = {count: [] for count in folders}
        for _ in range(given.rounds):
            for count, folder in folders.items():
                short, long = session(folder, SHORT), session(folder, SHORT + given.experiments)
                costs[count].append((long - short) / given.experiments)
                starts[count].append(short - SHORT * costs[count][-1])
        empty = training_seconds(Path(scratch))
    print(f"the training command alone: {empty:.3f} s")
    print("earlier records   session's start   an experiment   ratio")
    first = statistics.median(costs[given.records[0]])
    for count in folders:
        cost, start = statistics.median(costs[count]), statistics.median(starts[count])
        print(f"{count:15,}   {start:13.2f} s   {cost:11.3f} s   {cost / first:5.2f}")


def repository(folder: Path, count: int, search: bool) -> Path:
    """A repository with a campaign of a baseline and a number of discards."""
    folder.mkdir()
    for name, text in (
        ("train.py", TRAIN.format(rate=1)), ("conftest.py", "" if search else PROPOSE), ("pytest.ini", CONFIG),
        ("program.md", "Lower val_bpb.\n"), (".gitignore", "results.*\n__pycache__/\n.pytest_cache/\n"),
    ):  # fmt: skip
        (folder / name).write_text(text)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-qm", "A baseline")
    session(folder, 0)
    if count:
        write_records(folder, count)
    return folder


def write_records(folder: Path, count: int) -> None:
    """Records with their own commits and trees, as in a real campaign, written in bulk."""
    baseline = Ratchet(folder).records(TAG)[0]
    stream = []
    for number in range(1, count + 1):
        text, said = TRAIN.format(rate=f"-{number}"), f"rate {number}"
        stream.append(
            f"commit refs/heads/made\nmark :{number}\ncommitter {WHO} 1 +0000\ndata {len(said)}\n{said}\n"
            f"from {baseline.commit}\nM 100644 inline train.py\ndata {len(text)}\n{text}\n"
        )
    marks = folder / ".git" / "marks"
    git(folder, "fast-import", "--quiet", "--force", f"--export-marks={marks}", stdin="".join(stream))
    commits = dict(line[1:].split() for line in marks.read_text().splitlines())
    git(folder, "update-ref", "-d", "refs/heads/made")
    found = git(folder, "log", "--no-walk=unsorted", "--format=%H %T", "--stdin", stdin="\n".join(commits.values()))
    trees = dict(line.split() for line in found.splitlines())
    tags = []
    for number in range(1, count + 1):
        commit = commits[str(number)]
        tag = folder / ".git" / f"tag-{number}"
        tag.write_text(
            f"object {commit}\ntype commit\ntag {TAG}/{number:04d}\ntagger {WHO} {int(time.time())} +0000\n\n"
            f"{encode(discard(baseline, number, commit, trees[commit]))}\n"
        )
        tags.append(tag)
    made = git(folder, "hash-object", "-w", "-t", "tag", "--stdin-paths", stdin="".join(f"{tag}\n" for tag in tags))
    refs = "".join(f"create refs/autoresearch/{TAG}/{n:04d} {name}\n" for n, name in enumerate(made.split(), start=1))
    git(folder, "update-ref", "--stdin", stdin=refs)
    for tag in tags:
        tag.unlink()


def discard(baseline: Experiment, number: int, commit: str, tree: str) -> Experiment:
    """A measured experiment that was not better."""
    random = Random(number)
    changed = random.choice(CONSTANTS)
    values = dict.fromkeys(CONSTANTS, 0.5) | {"RATE": 1, changed: round(random.uniform(0.1, 0.9), 3)}
    proposal = Proposal(f"rate {number}", "", "search", json.dumps({changed: 0.5}), values)
    run = Run(42, 1.0, 1.0, {"val_bpb": 1.0, "training_seconds": 0.01}, 0.01, 0.01, 0.0, 0.02, 10.0)
    return replace(
        baseline, number=number, commit=commit, base=baseline.commit, tree=tree, runs=(run,), decision=Decision(1.0),
        proposal=proposal, limits=Limits(300.0, 30.0, 600.0),
        verdict=Verdict(Status.DISCARD, "not-improved", "val_bpb 1.000000, best 1.000000 (+0.000000)", 0.0),
        finished_at=time.time(),
    )  # fmt: skip


def session(folder: Path, experiments: int) -> float:
    """Seconds of one session; a session of 0 runs the baseline alone."""
    count = ["--max", str(experiments)] if experiments else ["--max", "1", "-k", "0000"]
    command = [sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-tag", TAG, *count]
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return seconds


def training_seconds(folder: Path) -> float:
    """The time of the training command alone."""
    train = folder / "train.py"
    train.write_text(TRAIN.format(rate=1))
    began = time.monotonic()
    for _ in range(10):
        subprocess.run([sys.executable, "-S", str(train)], capture_output=True, check=True)
    return (time.monotonic() - began) / 10


def git(folder: Path, *command: str, stdin: str = "") -> str:
    return subprocess.run(["git", *command], cwd=folder, input=stdin, text=True, capture_output=True, check=True).stdout


if __name__ == "__main__":
    main()
