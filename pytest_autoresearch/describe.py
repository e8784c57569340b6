"""What the plugin knows of a harness: what one trusted command prints, and defaults where there is none."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_autoresearch.errors import UserError
from pytest_autoresearch.settings import this_python


@dataclass(frozen=True, slots=True)
class Harness:
    """The harness's description.

    Attributes:
        profile: The hardware class.
        device: For people.
        budget_seconds: Training seconds of one run.
        memory_limit_mb: In MiB; infinite where there is none.
        hardware_key: Results are compared only within one.
        data_hash: Results are compared only within one.
        score: The trusted scorer's command; None where training reports the metric itself.
        environment: Variables that training and scoring get for the whole campaign.
    """

    profile: str = ""
    device: str = "not described"
    budget_seconds: float = 300.0
    memory_limit_mb: float = math.inf
    hardware_key: str = ""
    data_hash: str = ""
    score: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def describe(command: tuple[str, ...] | None, folder: Path) -> Harness:
    """Ask the harness. Its standard error goes to the user's: it may have data to prepare, and says so there.

    Raises:
        UserError: The command failed or printed something else.
    """
    if command is None:
        return Harness()
    said = " ".join(command)
    sys.stdout.flush()
    try:
        done = subprocess.run(
            this_python(command), cwd=folder, stdout=subprocess.PIPE, text=True, check=False,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"autoresearch_describe: {error.strerror} ({said}): correct it in the configuration") from None
    if done.returncode:
        raise UserError(f"autoresearch_describe failed (see above): run `{said}` until it prints JSON")
    try:
        answer = json.loads(done.stdout)
        limit = answer.get("memory_limit_mb")
        return Harness(
            profile=str(answer.get("profile", "")),
            device=str(answer.get("device", "not described")),
            budget_seconds=float(answer.get("budget_seconds", 300.0)),
            memory_limit_mb=math.inf if limit is None else float(limit),
            hardware_key=str(answer.get("hardware_key", "")),
            data_hash=str(answer.get("data_hash", "")),
            score=tuple(answer["score"]) if answer.get("score") else None,
            environment={str(name): str(value) for name, value in answer.get("environment", {}).items()},
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"autoresearch_describe: `{said}` printed no JSON description ({error}): see its docs"
        ) from None
