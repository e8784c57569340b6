"""The description of a harness: printed by one trusted command, or defaults if the repository has none."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.keeprule.noise import Prior, prior_of
from pytest_autoresearch.settings import this_python


@dataclass(frozen=True, slots=True)
class Harness:
    """The harness's description.

    Attributes:
        profile: The hardware class.
        device: The device, in words for people.
        budget_seconds: Training seconds of one run.
        memory_limit_mb: In MiB; infinite without a limit.
        hardware_key: Identifies the hardware; only results with the same key are compared.
        data_hash: Identifies the data; only results with the same hash are compared.
        score: The trusted scorer's command; None if training reports the metric itself.
        score_waits: Whether the scorer may be started with training, and then waits for its turn.
        scorer_prints: The names that the scorer may print; no number of these names is kept of what training prints.
        training_rows: A file that training receives, open, when its clock starts; None if training finds its data
            itself.
        data_files: Files that may not change while a session runs.
        hidden: Files and folders with validation text; a sandbox hides them.
        visible_documents: Validation documents that were left out, because training can read them on this machine;
            None if the harness does not say.
        environment: Variables for training and scoring, for the whole campaign.
        audit_environment: Variables that make the scorer use rows that no verdict uses; empty if there are none.
        retry_out_of_memory: Variables for one retry after running out of memory: they reduce the memory of a run but
            not its tokens per step. Empty if the harness has none.
        draws_rows: Whether the scorer draws its rows with the secret in AUTORESEARCH_SECRET.
        secret: That secret, for the scorer alone; empty for none. No harness says this, see `measure.rows_secret`.
        interface: The harness's interface for training scripts, as text for their author.
        module_folders: Folders of the lane that come first on Python's search path, relative to the root; no harness
            says this, see `measure.module_folders`.
    """

    profile: str = ""
    device: str = "not described"
    budget_seconds: float = 300.0
    memory_limit_mb: float = math.inf
    hardware_key: str = ""
    data_hash: str = ""
    score: tuple[str, ...] | None = None
    score_waits: bool = False
    scorer_prints: frozenset[str] = frozenset()
    training_rows: Path | None = None
    data_files: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    visible_documents: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    audit_environment: Mapping[str, str] = field(default_factory=dict)
    retry_out_of_memory: Mapping[str, str] = field(default_factory=dict)
    draws_rows: bool = False
    secret: str = field(default="", repr=False)
    interface: str = ""
    module_folders: tuple[str, ...] = ()

    def prior(self, metric_name: str) -> Prior:
        """The prior of the metric's noise on this device."""
        return prior_of(metric_name, self.device not in _NO_GPU)


_NO_GPU = ("cpu", "not described")


def describe(command: tuple[str, ...] | None, folder: Path, environment: Mapping[str, str]) -> Harness:
    """Run the harness's description command. Its standard error is shown to the user, with progress on preparing data.

    Args:
        command: The command; None if the repository configures none.
        folder: The working directory.
        environment: Variables added to this process's own, which select the GPU.

    Raises:
        UserError: The command failed or printed something else.
    """
    if command is None:
        return Harness()
    said = shlex.join(command)
    sys.stdout.flush()
    try:
        done = subprocess.run(
            this_python(command),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=os.environ | environment | {"PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
    except OSError as error:
        raise UserError(f"autoresearch_describe: {error.strerror} ({said}): correct it in the configuration") from None
    if done.returncode:
        raise UserError(f"autoresearch_describe failed (see above): run `{said}` until it prints JSON")
    try:
        return _harness(json.loads(done.stdout))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"autoresearch_describe: `{said}` printed no JSON description ({error}): see its docs"
        ) from None


def _harness(answer: Mapping[str, Any]) -> Harness:
    limit = answer.get("memory_limit_mb")
    score = answer.get("score")
    if score is not None and not isinstance(score, list):
        raise TypeError("score is no list of words")
    return Harness(
        profile=str(answer.get("profile", "")),
        device=str(answer.get("device", "not described")),
        budget_seconds=_positive("budget_seconds", answer.get("budget_seconds", 300.0)),
        memory_limit_mb=math.inf if limit is None else _positive("memory_limit_mb", limit),
        hardware_key=str(answer.get("hardware_key", "")),
        data_hash=str(answer.get("data_hash", "")),
        score=tuple(str(word) for word in score) if score else None,
        score_waits=answer.get("score_waits") is True,
        scorer_prints=frozenset(map(str, answer.get("scorer_prints", []))),
        training_rows=Path(rows) if (rows := answer.get("training_rows")) else None,
        data_files=_paths("data_files", answer),
        hidden=_paths("hidden", answer),
        visible_documents=None if (count := answer.get("visible_documents")) is None else int(count),
        environment=_variables(answer.get("environment", {})),
        audit_environment=_variables(answer.get("audit_environment", {})),
        retry_out_of_memory=_variables(answer.get("retry_out_of_memory", {})),
        draws_rows=answer.get("secret") is True,
        interface=str(answer.get("interface", "")),
    )


def _paths(name: str, answer: Mapping[str, Any]) -> tuple[Path, ...]:
    found = answer.get(name, [])
    if not isinstance(found, list):
        raise TypeError(f"{name} is no list of paths")
    return tuple(Path(str(path)) for path in found)


def _variables(given: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in given.items()}


def _positive(name: str, value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {value}")
    return number
