"""Makes the job for one run of a commit: the same in a campaign, an audit and `autoresearch run`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pytest_autoresearch.core.run import Limits
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.measure import rows_secret
from pytest_autoresearch.measure.harness import Harness
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.environment import named
from pytest_autoresearch.settings import Settings


def make_job(
    settings: Settings,
    harness: Harness,
    tree: Worktree,
    variables: Mapping[str, str],
    *,
    log: Path,
    seed: int,
    lane: int,
    limits: Limits,
    score_environment: Mapping[str, str] | None = None,
    keep_cache: Path | None = None,
) -> Job:
    """The job that trains and scores the commit in a worktree. See `Job` for the other arguments.

    Args:
        tree: The worktree with the commit.
        variables: Variables for training, added to the harness's own.
    """
    clocked = harness.score is not None  # without a clock no cache can be kept, and the user's own cache is better
    secret = {rows_secret.VARIABLE: harness.secret} if harness.secret else {}
    asked = named(os.environ, settings.environment)
    return Job(
        command=settings.command, folder=tree.folder, out=tree.out, log=log, seed=seed, lane=lane, limits=limits,
        metric_name=settings.metric, ranks=settings.gpus, score=harness.score, score_folder=settings.root,
        scorer_prints=harness.scorer_prints, score_waits=harness.score_waits,
        environment={**asked, **harness.environment, **variables}, rows=harness.training_rows,
        score_environment={**(score_environment or {}), **secret},
        readable=(tree.top, *tree.lent, *settings.readable_paths),
        # A scorer reads the tree after training; what training has written there must not count as the commit's.
        tree=None if clocked else tree.top,
        covered=harness.hidden, trusted=tuple(settings.root / path for path in settings.frozen),
        module_folders=tuple(tree.folder / name for name in harness.module_folders),
        cache=tree.cache if clocked else None, keep_cache=keep_cache if clocked else None,
    )  # fmt: skip
