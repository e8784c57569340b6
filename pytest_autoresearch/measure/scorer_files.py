"""What the scorer wrote of each commit that may matter again: the loss of every token, by which it later looks where a
candidate is suspiciously better. Kept in the git folder, which no candidate sees; lost, the scorer looks anywhere.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from pytest_autoresearch.core.experiment import Direction, Experiment

_THRESHOLD = "probe_threshold"  # what a scorer prints that wants to be asked to probe
_SECONDS = ("load_seconds", "evaluation_seconds")  # and one that holds later models to what the baseline's took


class ScorerFiles:
    """The files of one campaign.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, commit: str) -> Path:
        """The file of a commit, there or not."""
        return self._folder / f"{commit}.npy"

    def variables(
        self, commit: str, baseline: Experiment | None, incumbent: str, below: float | None
    ) -> dict[str, str]:
        """What the scorer of a commit is told: where to write, and below which metric it is to be suspicious.

        Args:
            commit: What is scored.
            baseline: None where it is the baseline's first run, which tells how much two askings may differ.
            incumbent: The commit of the best so far.
            below: That metric; None for never.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        told = {"AUTORESEARCH_NATS": str(self.of(commit))}
        if baseline is None:
            return {**told, "AUTORESEARCH_PROBE_CALIBRATE": "1"}
        told |= bounds(baseline, below)
        if "AUTORESEARCH_PROBE_BELOW" in told and self.of(incumbent).exists():
            told["AUTORESEARCH_INCUMBENT_NATS"] = str(self.of(incumbent))
        return told

    def keep_only(self, commits: Container[str]) -> None:
        """Remove the files of all other commits."""
        for path in self._folder.glob("*.npy"):
            if path.stem not in commits:
                path.unlink(missing_ok=True)


def bounds(baseline: Experiment, below: float | None) -> dict[str, str]:
    """What the scorer of a model that is not trusted is held to: the baseline's seconds, and when to be suspicious.

    Args:
        baseline: As it was recorded.
        below: Below which metric; None for never.
    """
    told = {}
    for name in _SECONDS:
        if (seconds := _printed(baseline, name)) is not None:
            told[f"AUTORESEARCH_BASELINE_{name.upper()}"] = repr(seconds)
    threshold = _printed(baseline, _THRESHOLD)
    if threshold is not None and baseline.direction is Direction.MINIMIZE and below is not None:
        told["AUTORESEARCH_PROBE_BELOW"] = repr(below)
        told["AUTORESEARCH_PROBE_THRESHOLD"] = repr(threshold)
    return told


def _printed(baseline: Experiment | None, name: str) -> float | None:
    runs = baseline.runs if baseline else ()
    return next((run.metrics[name] for run in reversed(runs) if name in run.metrics), None)
