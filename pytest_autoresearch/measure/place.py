"""Where runs are made: a `RunSpec` goes out, a `Run` comes back. This machine is one place, a cluster is another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pytest_autoresearch.core.run import Limits, Progress, Run
from pytest_autoresearch.keeprule.racing import Race
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.measure.job import make_job
from pytest_autoresearch.runners.base import Runner
from pytest_autoresearch.runners.compile_cache import fill
from pytest_autoresearch.settings import Settings


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run of a commit, in words that mean the same on every machine.

    Attributes:
        commit: The commit.
        seed: AUTORESEARCH_SEED.
        lane: The lane to run on.
        limits: Limits of time and memory.
        variables: Variables for training, beside the harness's own.
        scorer: Variables for the scorer alone, which name no file.
        scorer_reads: Variables for the scorer alone that name a file which it reads.
        scorer_writes: Variables for the scorer alone that name a file which it writes.
        compiled: The commit of the baseline, whose compile cache the run begins with; empty for no cache.
        race: The run's race; None if it is not raced.
    """

    commit: str
    seed: int
    lane: int
    limits: Limits
    variables: Mapping[str, str] = field(default_factory=dict)
    scorer: Mapping[str, str] = field(default_factory=dict)
    scorer_reads: Mapping[str, Path] = field(default_factory=dict)
    scorer_writes: Mapping[str, Path] = field(default_factory=dict)
    compiled: str = ""
    race: Race | None = None


class Place(Protocol):
    """Makes runs. Several lane threads call it at once."""

    def run(
        self, spec: RunSpec, tree: Worktree, log: Path, note: Callable[[Progress], None], say: Callable[[str], None]
    ) -> Run:
        """Train and score.

        Args:
            tree: The lane's worktree on this machine.
            log: The file that receives the bounded output.
            note: Called repeatedly with the run's progress.
            say: Called with a sentence for the user.

        Raises:
            Stopped: `close` was called before there was a result.
            AutoresearchError: The machine failed, which says nothing about the commit.
        """
        ...

    def close(self) -> None:
        """End every run at once; later calls of `run` raise Stopped."""
        ...


class Here:
    """This machine. See `Place`."""

    def __init__(self, settings: Settings, harness: Harness, ratchet: Ratchet, runner: Runner) -> None:
        self._settings = settings
        self._harness = harness
        self._ratchet = ratchet
        self._runner = runner

    def run(
        self, spec: RunSpec, tree: Worktree, log: Path, note: Callable[[Progress], None], say: Callable[[str], None]
    ) -> Run:
        tree.reset(spec.commit)
        tree.show(self._settings.root, self._settings.readable, self._ratchet.elsewhere.present)
        # Only what the baseline compiled goes from run to run. A candidate's own cache could carry weights, which it
        # has trained on text that lies around, into its later runs; so each of them compiles again.
        compiled = self._ratchet.home / "compiled" / self._ratchet.tag / spec.compiled if spec.compiled else None
        if compiled and self._harness.score is not None:
            fill(tree.cache, compiled)
        # Another lane may be copying a cache that exists.
        kept = compiled if compiled and spec.commit == spec.compiled and not compiled.exists() else None
        files = {name: str(path) for name, path in {**spec.scorer_reads, **spec.scorer_writes}.items()}
        job = make_job(
            self._settings, self._harness, tree, spec.variables, log=log, seed=spec.seed, lane=spec.lane,
            limits=spec.limits, score_environment={**spec.scorer, **files},
            keep_cache=kept,
        )  # fmt: skip
        race = spec.race

        def look(now: Progress) -> str:
            note(now)
            return race.look(now.losses) if race else ""

        run = self._runner.run(job, look)
        return replace(run, bar=race.bar, hopeless=race.hopeless) if race else run

    def close(self) -> None:
        self._runner.close()
