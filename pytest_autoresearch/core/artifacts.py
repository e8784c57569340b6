"""The files that sessions write for people: `experiments/runs`, with a folder for each campaign and each experiment.

Git ignores all of them, and any of them may have been deleted.
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
        folder: The campaign's folder.
    """

    folder: Path

    def experiment(self, number: int) -> Path:
        """The folder with an experiment's logs and patches."""
        return self.folder / f"{number:04d}"

    def log(self, number: int, name: str = "train") -> Path:
        """The log of one run; the first run's log is called `train`."""
        return self.experiment(number) / f"{name}.log"

    @property
    def notes(self) -> Path:
        """The proposer's notes, for itself and for people."""
        return self.folder / "notes.md"

    @property
    def stock(self) -> Path:
        """What a proposer keeps for later experiments."""
        return self.folder / "stock.json"

    @property
    def live(self) -> Path:
        """The progress of a running session; see `session.live`."""
        return self.folder / "progress.json"

    @property
    def inbox(self) -> Path:
        """What the user says to the proposer; see `campaign.inbox`."""
        return self.folder / "inbox.jsonl"

    @property
    def stop(self) -> Path:
        """Asks the running session to end after the experiments under way; `autoresearch stop` makes it."""
        return self.folder / "STOP"

    @property
    def pause(self) -> Path:
        """While it is there, the running session begins no run; `autoresearch pause` makes it."""
        return self.folder / "PAUSE"

    def packages(self, digest: str) -> Path:
        """The list of installed packages with this digest."""
        return self.folder / f"packages-{digest}.txt"

    def make(self) -> Path:
        """Create the campaign's folder if missing, and return it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ignore = self.folder.parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return self.folder

    def make_experiment(self, number: int) -> Path:
        """Create the folder of an experiment if missing, and return it."""
        self.make()
        folder = self.experiment(number)
        folder.mkdir(exist_ok=True)
        return folder


def campaign(experiments: Path, tag: str) -> Artifacts:
    """The files of a campaign, in the folder of acceptance rules."""
    return Artifacts(experiments / _RUNS / tag)


def campaigns(experiments: Path) -> list[Artifacts]:
    """The files of every campaign that has files here."""
    runs = experiments / _RUNS
    return [Artifacts(folder) for folder in sorted(runs.iterdir())] if runs.is_dir() else []


def of(experiments: Path, experiment: Experiment) -> Path:
    """The folder of an experiment. It is named after the planned number, which another session may have taken since."""
    number = experiment.number if experiment.planned_number is None else experiment.planned_number
    return campaign(experiments, experiment.tag).experiment(number)


def logs(folder: Path) -> list[Path]:
    """The logs in an experiment's folder, oldest first."""
    return sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime_ns)


def rule_files(experiments: Path) -> Iterator[Path]:
    """Every Python file of the folder of acceptance rules, except artifacts."""
    return (path for path in experiments.rglob("*.py") if _RUNS not in path.relative_to(experiments).parts)
