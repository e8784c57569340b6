"""A repository as a proposer meets it: a lane's tree to edit, and the user's checkout in another place."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pytest_autoresearch.core.experiment import Experiment, Proposal
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.source.editable import Editable

TRAIN = "".join(f"LINE_{number} = {number}\n" for number in range(1, 21))
ADA = {f"GIT_{role}_{part}": text for role in ("AUTHOR", "COMMITTER") for part, text in
       (("NAME", "Ada Lövelace"), ("EMAIL", "ada@example.org"))}  # fmt: skip


class Tree:
    """A real repository with one commit, of a `train.py` of twenty lines."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "lane"
        self.queue = folder / "checkout" / "experiments" / "queue"
        self.top.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.commit("a start", "train.py", TRAIN)

    def git(self, *command: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | ADA
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(
            ["git", *command], cwd=self.top, env=environment, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, message: str, path: str, text: str) -> str:
        """Commit one file; the commit's full hash."""
        (self.top / path).parent.mkdir(parents=True, exist_ok=True)
        (self.top / path).write_text(text)
        self.git("add", path)
        self.git("commit", "-q", "-m", message)
        return self.head()

    def change(self, old: str, new: str, message: str = "", path: str = "train.py") -> str:
        """Commit one replacement; the commit's full hash."""
        return self.commit(message or f"{old} -> {new}", path, self.text(path).replace(old, new))

    def head(self) -> str:
        return self.git("rev-parse", "HEAD").strip()

    def enqueue(self, name: str, patch: str) -> None:
        self.queue.mkdir(parents=True, exist_ok=True)
        (self.queue / name).write_text(patch)

    def diff(self, old: str, new: str, path: str = "train.py") -> str:
        """The patch for one replacement, with the tree as it was afterwards."""
        file = self.top / path
        text = file.read_text()
        file.write_text(text.replace(old, new))
        patch = self.git("diff")
        file.write_text(text)
        return patch

    def context(self, records: tuple[Experiment, ...] = (), folder: str = ".") -> Context:
        experiments = self.queue.parent
        return Context(1, self.top / folder, Editable(("train.py",)), "", records, (), experiments.parent, experiments)

    def text(self, path: str = "train.py") -> str:
        return (self.top / path).read_text()

    def state(self) -> tuple[str, str, dict[str, bytes]]:
        """All that a failed patch might have changed: git's view, the index and every file."""
        files = [path for path in sorted(self.top.rglob("*")) if path.is_file() and ".git" not in path.parts]
        staged = self.git("ls-files", "--stage")
        status = self.git("--no-optional-locks", "status", "--porcelain", "--ignored")
        return staged, status, {str(path.relative_to(self.top)): path.read_bytes() for path in files}


def recorded(proposal: Proposal | None) -> Experiment:
    """The record of a proposal."""
    assert proposal is not None
    return Experiment(1, "t", "c", "b", "t", proposal)
