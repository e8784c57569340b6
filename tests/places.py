"""Plain git repositories with made-up experiments, for claims about git and records that need no training.

Commits, refs and worktrees are real; only the numbers that training would have given are written down.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

from pytest_autoresearch.core.experiment import Experiment, Proposal, Status, Verdict
from pytest_autoresearch.core.failure import Failure, Stage
from pytest_autoresearch.core.run import Crash, CrashClass, Run
from pytest_autoresearch.ledger.campaign_lock import Presence
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.ratchet import Ratchet

_CHECKOUTS = itertools.count()


def git(folder: Path, *command: str, stdin: str = "", **environment: str) -> str:
    """What a git command in the folder prints; it must succeed."""
    done = subprocess.run(
        ["git", *command], cwd=folder, input=stdin, text=True, capture_output=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def apart(ratchet: Ratchet) -> Ratchet:
    """The ratchet of a session that works, for the other sessions, in a checkout of its own."""
    ratchet.presence = Presence(ratchet.home, ratchet.root / f"checkout-{next(_CHECKOUTS)}")
    return ratchet


def attempt(number: int = 1, **fields: Any) -> Experiment:
    """An experiment that has run and is not yet judged."""
    given: dict[str, Any] = {
        "tag": "t", "commit": "c" * 40, "base": "b" * 40, "tree": "d" * 40,
        "proposal": Proposal(f"idea {number}"), "runs": (Run(42, 1.0 - number / 1000),), **fields,
    }  # fmt: skip
    return Experiment(number, **given)


def refusal(why: str) -> Failure:
    """A refusal, as its proposer is told."""
    return Failure(Stage.PROPOSAL, Crash(CrashClass.REFUSED, why))


def judged(experiment: Experiment, status: Status = Status.KEEP, reason: str = "") -> Experiment:
    """The experiment with a verdict; its number is its time."""
    return experiment.judged(Verdict(status, reason or status, f"so it is: {status}"), float(experiment.number))


class Place:
    """A repository with one commit, and campaigns in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        git(path, "init", "-q", "-b", "main")
        git(path, "config", "user.name", "Ada")
        git(path, "config", "user.email", "ada@example.org")
        (path / "train.py").write_text("RATE = 1\nDEPTH = 4\nWIDTH = 8\nSTEPS = 16\n")
        (path / ".gitignore").write_text("*.bin\n")
        git(path, "add", "-A")
        git(path, "commit", "-qm", "A baseline")
        self.start = git(path, "rev-parse", "HEAD")

    def ratchet(self, tag: str = "t") -> Ratchet:
        """A session's ratchet, taking part in the campaign; each session as if in a checkout of its own."""
        ratchet = apart(Ratchet(self.path))
        ratchet.choose(tag)
        ratchet.open()
        return ratchet

    def ledger(self, ratchet: Ratchet, name: str = "results.tsv") -> Ledger:
        """A session's ledger, as a campaign opens it."""
        ledger = Ledger(ratchet, ratchet.records(), self.path / name, attempt(0))
        ledger.open()
        return ledger

    def baseline(self, tag: str = "t") -> Experiment:
        """A campaign's baseline, judged."""
        tree = git(self.path, "rev-parse", f"{self.start}^{{tree}}")
        first = attempt(0, tag=tag, commit=self.start, base=self.start, tree=tree, proposal=Proposal("baseline"))
        return judged(first, reason="baseline")

    def candidate(self, number: int, base: str, text: str = "", **fields: Any) -> Experiment:
        """An experiment whose commit is made, on top of the base."""
        blob = git(self.path, "hash-object", "-w", "--stdin", stdin=text or f"RATE = {number}\n")
        tree = git(self.path, "mktree", stdin=f"100644 blob {blob}\ttrain.py\n")
        commit = git(self.path, "commit-tree", tree, "-p", base, "-m", f"idea {number}")
        return attempt(number, commit=commit, base=base, tree=tree, **fields)

    def crashed(self, number: int, base: str) -> Experiment:
        """A refused proposal, judged: its record points at the base."""
        tree = git(self.path, "rev-parse", f"{base}^{{tree}}")
        crash = Crash(CrashClass.REFUSED, "it changes nothing")
        return judged(attempt(number, commit=base, base=base, tree=tree, runs=(), refusal=crash), Status.CRASH)

    def refs(self) -> dict[str, str]:
        """Every ref and what it names."""
        lines = git(self.path, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split(" ") for line in lines)

    def head(self, tag: str = "t") -> str:
        """The commit of the campaign's branch."""
        return git(self.path, "rev-parse", f"refs/heads/autoresearch/{tag}")
