"""Scores a training script that is run by hand: starts the trusted scorer as a session does, and reads its output."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from harness import cache
from harness.errors import HarnessError

_CHECKOUT = Path(__file__).resolve().parent.parent


def score(model_path: str | os.PathLike[str], train_path: str | os.PathLike[str]) -> dict[str, float]:
    """Score a model in a separate process, as a session does; for a training script that is run by hand.

    Returns:
        `val_bpb`, `score_seconds` and `evaluation_tokens`.

    Raises:
        HarnessError: The scorer failed; the message is the scorer's.
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
            else f"the scorer ended with exit code {done.returncode}; run `{shlex.join(command)}` to see why."
        )
    printed = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    return {name: float(printed[name]) for name in ("val_bpb", "score_seconds", "evaluation_tokens")}
