"""What every runner is asked and what it answers. A runner knows neither git nor pytest."""

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
        command: The training command; `python` as its first word is this interpreter.
        folder: Where it starts: the candidate's tree.
        out: An empty folder, AUTORESEARCH_OUT.
        log: The file that receives the bounded output.
        seed: AUTORESEARCH_SEED.
        lane: Where to run.
        limits: What it may use.
        metric_name: The metric to read.
        score: The trusted scorer's command, or None where training reports the metric itself.
        score_folder: Where the scorer starts: the user's own checkout.
        environment: Variables for training and scoring beside the allowed ones of this process.
        trusted: What a scorer's own untrusted process may read beside that: the harness.
        score_environment: Variables for the scorer alone.
        readable: What training may read, its tree among it; in a sandbox it sees nothing else of the user's.
        covered: What lies in readable places and may not be read: validation text.
        rows: The file of training rows, which training is handed when its clock starts; None where it has them.
        cache: A folder for what compilers keep, this run's alone; None for the sandbox's own, or the user's.
        keep_cache: Where that is copied when the clock starts, before training has seen data; None for nowhere.
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
    covered: tuple[Path, ...] = ()
    trusted: tuple[Path, ...] = ()
    rows: Path | None = None
    cache: Path | None = None
    keep_cache: Path | None = None


class Runner(Protocol):
    """Somewhere to train. Called from several lane threads at once."""

    def run(self, job: Job, on_progress: Callable[[Progress], str | None]) -> Run:
        """Train and score.

        Args:
            on_progress: Told where the run is, again and again. Where it says during training why there is no point in
                going on, the run is ended and has that as `hopeless`.

        Raises:
            Stopped: `close` was called before there was a result.
        """
        ...

    def close(self) -> None:
        """End every process, now; later calls of `run` raise Stopped."""
        ...
