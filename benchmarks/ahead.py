"""How long lanes are idle with and without look-ahead: real sessions, an agent that thinks, and training that sleeps.

    python benchmarks/ahead.py [--lanes 1 2] [--training 6] [--thinking 2] [--experiments 8]

For each number of lanes, one session without look-ahead and one with it. The idle share is that of the timeline in
report.html, from the times of the runs in the records, without the baseline. The goal: at most 10% with look-ahead, for
runs of 300 s and an agent that thinks as long as it takes. Short runs make the session's own time a larger share.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_autoresearch.core.experiment import BASELINE, Experiment
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.reports.page.contents import ROLES
from pytest_autoresearch.reports.page.timeline import timeline

TRAIN = """
import time
RATE = 0
time.sleep({training} if RATE else 0)
print("step 1 loss: 2.5")
print("---\\nval_bpb: 1.0")
"""
AGENT = """#!{python}
import os, time
time.sleep({thinking})
text = open("train.py").read()
open("train.py", "w").write(text.replace("RATE = 0", "RATE = " + os.environ["AUTORESEARCH_NUMBER"]))
"""
RULE = """
def test_val_bpb(experiment):
    assert experiment.val_bpb < experiment.best
"""
CONFIG = """
[pytest]
autoresearch_command = python -S train.py
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--training", type=float, default=6.0, metavar="SECONDS", help="of a run (6)")
    parser.add_argument("--thinking", type=float, default=2.0, metavar="SECONDS", help="of the agent (2)")
    parser.add_argument("--experiments", type=int, default=8, metavar="N", help="of a session (8)")
    given = parser.parse_args()
    print("lanes  ahead  idle   experiments an hour")
    for lanes in given.lanes:
        for ahead in (0, 1):
            records = session(lanes, ahead, given.training, given.thinking, given.experiments)
            idle, hourly = shares([record for record in records if record.number != BASELINE])
            print(f"{lanes:5}  {ahead:5}  {idle:4.0%}  {hourly:7.0f}", flush=True)


def session(lanes: int, ahead: int, training: float, thinking: float, experiments: int) -> list[Experiment]:
    """The records of one session in a new repository."""
    with tempfile.TemporaryDirectory() as folder:
        root, agent = Path(folder, "checkout"), Path(folder, "agent")
        (root / "experiments").mkdir(parents=True)
        (root / "train.py").write_text(TRAIN.format(training=training))
        (root / "program.md").write_text("Lower val_bpb.\n")
        (root / "pytest.ini").write_text(CONFIG)
        (root / "experiments" / "test_val_bpb.py").write_text(RULE)
        agent.write_text(AGENT.format(python=sys.executable, thinking=thinking))
        agent.chmod(0o755)
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "A start")):
            subprocess.run(["git", *command], cwd=root, check=True)
        options = {
            "max": experiments, "lanes": lanes, "ahead": ahead, "tag": "t", "confirm": "off", "sandbox": "off",
            "proposer": f"command:{agent}",
        }  # fmt: skip
        words = [f"--{'max' if name == 'max' else f'autoresearch-{name}'}={value}" for name, value in options.items()]
        words += ["-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--autoresearch", *words], cwd=root, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return Ratchet(root).records("t")


def shares(records: list[Experiment]) -> tuple[float, float]:
    """The idle share of the lanes, and the experiments an hour."""
    known = timeline(records, ROLES)
    assert known is not None
    idle = sum(lane["idle"] for lane in known["lanes"]) / len(known["lanes"])
    return idle, len(records) * 3600 / known["seconds"]


if __name__ == "__main__":
    main()
