"""Small scripts run as jobs by a real runner, with the candidate's side of the contract spoken without the harness."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent

import psutil

from pytest_autoresearch.core.run import Limits, Run
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.local import LocalRunner

# The candidate's side of the contract, spoken without the harness.
CONTRACT = """
import os, socket, subprocess, sys, time

OUT = os.environ["AUTORESEARCH_OUT"]


def begin():
    parent = socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"]))
    parent.sendall(b"begin\\n")
    assert parent.recv(16) == b"go\\n"


def leave(model):
    with open(OUT + "/model.tmp", "w") as file:
        file.write(model)
    os.rename(OUT + "/model.tmp", OUT + "/model.pt")


def child(code, **options):
    return subprocess.Popen([sys.executable, "-S", "-c", code], **options)


def note(pid):
    with open(OUT + "/pids", "a") as file:
        file.write(f"{pid}\\n")
"""
SCORER = """
import os

print("val_bpb:", open(os.environ["AUTORESEARCH_OUT"] + "/model.pt").read())
print("evaluation_tokens: 1000")
"""
LIMITS = Limits(budget_seconds=20.0, startup_seconds=20.0, deadline_seconds=30.0)


@dataclass
class Bench:
    """Runs scripts as jobs; `pids` are those that a script noted."""

    folder: Path
    runner: LocalRunner = field(default_factory=LocalRunner)
    limits: Limits = LIMITS

    def job(self, script: str, *, lane: int = 0, scorer: str | None = None, **limits: float) -> Job:
        folder = self.folder / f"lane{lane}"
        out = folder / "out"
        out.mkdir(parents=True, exist_ok=True)
        (folder / "contract.py").write_text(CONTRACT)
        (folder / "train.py").write_text(dedent(script))
        trusted = self.folder / "checkout"
        trusted.mkdir(exist_ok=True)
        (trusted / "score.py").write_text(dedent(scorer or ""))
        return Job(
            command=("python", "-S", "train.py"),
            folder=folder,
            out=out,
            log=folder / "artifacts" / "0001" / "run.log",
            seed=7,
            lane=lane,
            limits=replace(self.limits, **limits),
            metric_name="val_bpb",
            score=None if scorer is None else ("python3", "-S", "score.py"),
            score_folder=trusted,
        )

    def run(self, script: str, *, scorer: str | None = None, **limits: float) -> Run:
        return self.runner.run(self.job(script, scorer=scorer, **limits), lambda progress: None)

    def pids(self, lane: int = 0) -> list[int]:
        return [int(line) for line in (self.folder / f"lane{lane}" / "out" / "pids").read_text().split()]


def runs(pid: int) -> bool:
    """Whether there is a process with this number that has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def crash(run: Run) -> tuple[str, str]:
    """The class and the message of a run that has to be a crash."""
    assert run.metric is None
    assert run.crash is not None
    return run.crash.reason, run.crash.message
