"""Per-token losses of earlier commits, written by the scorer; the leak probe aims with them.

They are in the git folder, which no candidate sees. Without them, the probe chooses tokens at random.
"""

from __future__ import annotations

import shutil
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_autoresearch.core.experiment import Direction, Experiment

_THRESHOLD = "probe_threshold"  # printed by a scorer that has a leak probe
_SECONDS = ("load_seconds", "evaluation_seconds")  # printed by a scorer that limits later models to these times


@dataclass(frozen=True, slots=True)
class ScorerInput:
    """What a scorer gets beside the model: variables, of which some name files.

    Attributes:
        variables: Those that name no file.
        reads: Those that name a file which the scorer reads.
        writes: Those that name a file which the scorer writes.
    """

    variables: Mapping[str, str]
    reads: Mapping[str, Path] = field(default_factory=dict)
    writes: Mapping[str, Path] = field(default_factory=dict)


class ScorerFiles:
    """The files of one campaign.

    Args:
        folder: The folder with the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, commit: str) -> Path:
        """The path of a commit's file, which may not exist."""
        return self._folder / f"{commit}.npy"

    def input(self, commit: str, baseline: Experiment | None, incumbent: str, below: float | None) -> ScorerInput:
        """What the scorer of a commit gets: the file for its losses, and when to probe.

        Args:
            commit: The commit to score.
            baseline: None for the baseline's first run, in which the scorer calibrates the probe.
            incumbent: The commit of the incumbent.
            below: The scorer probes a model whose metric is below this; None: it does not probe.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        writes = {"AUTORESEARCH_NATS": self.of(commit)}
        fresh = {"AUTORESEARCH_FRESH": "1"} if baseline is None or commit == baseline.commit else {}
        if baseline is None:
            return ScorerInput({**fresh, "AUTORESEARCH_PROBE_CALIBRATE": "1"}, writes=writes)
        told = bounds(baseline, below)
        reads = {}
        if "AUTORESEARCH_PROBE_BELOW" in told and commit != baseline.commit and self.of(baseline.commit).exists():
            reads["AUTORESEARCH_BASELINE_NATS"] = self.of(baseline.commit)
        if "AUTORESEARCH_PROBE_BELOW" in told and self.of(incumbent).exists():
            reads["AUTORESEARCH_INCUMBENT_NATS"] = self.of(incumbent)
        return ScorerInput({**fresh, **told}, reads, writes)

    def for_audit(self, commit: str, baseline: Experiment, below: float | None) -> ScorerInput:
        """What the scorer of a commit gets in an audit: losses of both sides are kept until it ends.

        Args:
            commit: The commit to score.
            baseline: The campaign's first program, with which it is compared.
            below: See `input`.
        """
        audit = ScorerFiles(self._folder / "audit")
        told = bounds(baseline, below)
        if commit == baseline.commit and _printed(baseline, _THRESHOLD) is not None:
            audit._folder.mkdir(parents=True, exist_ok=True)
            writes = {"AUTORESEARCH_NATS": audit.of(commit)}
            return ScorerInput({**told, "AUTORESEARCH_FRESH": "1"}, writes=writes)
        if "AUTORESEARCH_PROBE_BELOW" in told and audit.of(baseline.commit).exists():
            return ScorerInput(told, {"AUTORESEARCH_BASELINE_NATS": audit.of(baseline.commit)})
        return ScorerInput(told)

    def end_audit(self) -> None:
        """Remove the losses of audit rows: no verdict may depend on them."""
        shutil.rmtree(self._folder / "audit", ignore_errors=True)

    def keep_only(self, commits: Container[str]) -> None:
        """Remove the files of all other commits."""
        for path in self._folder.glob("*.npy"):
            if path.stem not in commits:
                path.unlink(missing_ok=True)


def bounds(baseline: Experiment, below: float | None) -> dict[str, str]:
    """Variables for the scorer of an untrusted model: the baseline's seconds, and when to probe.

    Args:
        baseline: The recorded baseline.
        below: The scorer probes a model whose metric is below this; None: it does not probe.
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


def _printed(baseline: Experiment, name: str) -> float | None:
    """The number that the scorer printed in the baseline's last run that has one; never what training printed."""
    said = [run.scored for run in baseline.own_runs if run.scored is not None]
    # A record of an earlier version has the scorer's numbers among training's. The first run was calibrated, so there
    # the scorer printed every number itself, and its own number stood over training's.
    earlier = [run.metrics for run in baseline.own_runs[:1]] if not said else []
    return next((numbers[name] for numbers in (*reversed(said), *earlier) if name in numbers), None)
