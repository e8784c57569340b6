"""Where sessions leave files for people: `experiments/runs`, with a folder for each campaign and each experiment.

Git ignores all of it, and any of it may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.experiment import Experiment

_RUNS = "runs"


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The files of one campaign.

    Attributes:
        folder: Of the campaign.
    """

    folder: Path

    def experiment(self, number: int) -> Path:
        """The folder of an experiment: its logs and patches."""
        return self.folder / f"{number:04d}"

    def log(self, number: int, name: str = "train") -> Path:
        """The log of one run; the first run's is called `train`."""
        return self.experiment(number) / f"{name}.log"

    @property
    def notes(self) -> Path:
        """What the proposer notes for itself and for people."""
        return self.folder / "notes.md"

    @property
    def live(self) -> Path:
        """Where a running session is; see `session.live`."""
        return self.folder / "progress.json"

    def make(self) -> Path:
        """The campaign's folder, made where it is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ignore = self.folder.parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return self.folder

    def make_experiment(self, number: int) -> Path:
        """The folder of an experiment, made where it is missing."""
        self.make()
        folder = self.experiment(number)
        folder.mkdir(exist_ok=True)
        return folder


def campaign(experiments: Path, tag: str) -> Artifacts:
    """The files of a campaign, below the folder of acceptance rules."""
    return Artifacts(experiments / _RUNS / tag)


def campaigns(experiments: Path) -> list[Artifacts]:
    """The files of every campaign that has left some here."""
    runs = experiments / _RUNS
    return [Artifacts(folder) for folder in sorted(runs.iterdir())] if runs.is_dir() else []


def of(experiments: Path, experiment: Experiment) -> Path:
    """The folder of an experiment: it was named before another session took the experiment's number."""
    number = experiment.number if experiment.planned_number is None else experiment.planned_number
    return campaign(experiments, experiment.tag).experiment(number)


def logs(folder: Path) -> list[Path]:
    """The logs in an experiment's folder, in the order in which they were written."""
    return sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)


def rule_files(experiments: Path) -> Iterator[Path]:
    """Every Python file of the folder of acceptance rules, less what sessions have left there."""
    return (path for path in experiments.rglob("*.py") if _RUNS not in path.relative_to(experiments).parts)
