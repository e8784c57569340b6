"""Scoring for a training script that is run by hand: starts the trusted scorer as a process of its own, as a session
does, and reads what it prints. May not compute anything itself."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from harness import cache
from harness.errors import HarnessError

_CHECKOUT = Path(__file__).resolve().parent.parent


def score(model_path: str | os.PathLike[str], train_path: str | os.PathLike[str]) -> dict[str, float]:
    """Score a model in a process of its own, as a session does; for a training script run by hand.

    Returns:
        What the scorer printed: `val_bpb`, `score_seconds`, `evaluation_tokens`.

    Raises:
        HarnessError: The scorer's own sentence.
    """
    paths = ["--model", os.path.abspath(model_path), "--train", os.path.abspath(train_path)]
    command = [sys.executable, "-m", "harness.scorer", *paths]
    environment = os.environ | {"AUTORESEARCH_CACHE": str(cache.root())}
    done = subprocess.run(
        command, cwd=_CHECKOUT, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("harness: ")]
        raise HarnessError(
            said[-1].removeprefix("harness: ")
            if said
            else f"the scorer ended with exit code {done.returncode}; type `{shlex.join(command)}` to see why."
        )
    printed = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    return {name: float(printed[name]) for name in ("val_bpb", "score_seconds", "evaluation_tokens")}
