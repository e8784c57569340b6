"""The protocol of every runner: a `Job` goes in, a `Run` comes out. A runner knows neither git nor pytest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pytest_autoresearch.core.run import Limits, Progress, Run


@dataclass(frozen=True, slots=True)
class Job:
    """One training process to run, and how to score it.

    Attributes:
        command: The training command; `python` as its first word means this interpreter.
        folder: The working directory: the candidate's tree.
        out: An empty folder, AUTORESEARCH_OUT.
        log: The file that receives the bounded output.
        seed: AUTORESEARCH_SEED.
        lane: The lane to run on.
        limits: Limits of time and memory.
        metric_name: The metric to read.
        ranks: How many processes train together, each of which may print the metric.
        score: The trusted scorer's command, or None if training reports the metric itself.
        score_waits: Whether the scorer may be started early, and waits for its turn.
        scorer_prints: The names of the scorer's numbers, which training cannot print.
        score_folder: The scorer's working directory: the user's own checkout.
        environment: Variables for training and scoring, in addition to the allowed variables of this process.
        trusted: More paths that the scorer's model server may read: the harness.
        score_environment: Variables for the scorer alone.
        readable: Paths that training may read. In a sandbox it sees no other file of the user.
        module_folders: Folders that come first on Python's search path in training and in the scorer's model server.
        covered: Paths inside `readable` that are hidden: validation text.
        rows: The file of training rows. Training receives it when its clock starts; None if training has data already.
        tree: The candidate's whole tree, which contains `folder`, if training may write to it: each run has a new one.
            None if training may only read it.
        cache: A compile cache for this run alone; None for the sandbox's own, or the user's.
        keep_cache: Where `cache` is copied when the clock starts, before training has seen data; None for no copy.
    """

    command: tuple[str, ...]
    folder: Path
    out: Path
    log: Path
    seed: int
    lane: int
    limits: Limits
    metric_name: str
    score: tuple[str, ...] | None
    score_folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    score_environment: Mapping[str, str] = field(default_factory=dict)
    readable: tuple[Path, ...] = ()
    module_folders: tuple[Path, ...] = ()
    covered: tuple[Path, ...] = ()
    trusted: tuple[Path, ...] = ()
    rows: Path | None = None
    tree: Path | None = None
    cache: Path | None = None
    keep_cache: Path | None = None
    scorer_prints: frozenset[str] = frozenset()
    score_waits: bool = False
    ranks: int = 1


class Runner(Protocol):
    """Trains and scores. Several lane threads call it at once."""

    def run(self, job: Job, on_progress: Callable[[Progress], str | None]) -> Run:
        """Train and score.

        Args:
            on_progress: Called repeatedly with the run's progress. If it returns a reason during training, the run is
                ended, and its `hopeless` is that reason.

        Raises:
            Stopped: `close` was called before there was a result.
        """
        ...

    def close(self) -> None:
        """End every process at once; later calls of `run` raise Stopped."""
        ...
