"""The environment variables that a candidate's processes see.

This is an allow-list, so an API key with an unexpected name is not passed on. Knows variables alone, no processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from pytest_autoresearch.runners.base import Job

# Proxies are missing on purpose: their addresses may contain passwords, and training has no network.
ALLOWED = (
    # Paths and the user's language.
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    # The same Python and packages, the compiler that torch.compile calls, and shared libraries.
    *("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "CC", "CXX", "LD_LIBRARY_PATH"),
    # Devices and numeric libraries.
    *("CUDA_*", "CUBLAS_*", "CUDNN_*", "NVIDIA_*", "HIP_*", "HSA_*", "ROCR_*", "MIOPEN_*"),
    *("PYTORCH_*", "TORCH*", "TRITON_*", "NCCL_*", "GLOO_*", "JAX_*", "XLA_*", "TF_*"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "NUMBA_*", "NUMEXPR_*"),
    # Tokenizers and data sets.
    *("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    # After a job, a CI runner ends every process that has this variable.
    "RUNNER_TRACKING_ID",
    "AUTORESEARCH_*",
)
SECRET = ("*KEY*", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*PASSWD*", "*CREDENTIAL*")
# Variables for one process alone; an outer campaign's values must not reach an inner campaign.
OWN = (
    "AUTORESEARCH_SEED",
    "AUTORESEARCH_BUDGET",
    "AUTORESEARCH_OUT",
    "AUTORESEARCH_CLOCK",
    "AUTORESEARCH_CLOCK_FD",
    "AUTORESEARCH_CANDIDATE",
    "AUTORESEARCH_SERVER_PREFIX",
    "AUTORESEARCH_SERVER_FDS",
    "AUTORESEARCH_SERVER_VARIABLES",
    "AUTORESEARCH_SERVER_AFTER",
    "AUTORESEARCH_SERVER_SPARE_PREFIX",
    "AUTORESEARCH_SERVER_SPARE_FDS",
    "AUTORESEARCH_TURN_FD",
    "AUTORESEARCH_VISIBLE",
    "AUTORESEARCH_BASELINE_LOAD_SECONDS",
    "AUTORESEARCH_BASELINE_EVALUATION_SECONDS",
    "AUTORESEARCH_NATS",
    "AUTORESEARCH_INCUMBENT_NATS",
    "AUTORESEARCH_PROBE_BELOW",
    "AUTORESEARCH_PROBE_THRESHOLD",
    "AUTORESEARCH_PROBE_CALIBRATE",
    "AUTORESEARCH_HALVE_BATCH",
    "AUTORESEARCH_ROWS",
    "AUTORESEARCH_SECRET",
    "AUTORESEARCH_FRESH",
    "AUTORESEARCH_BASELINE_NATS",
    "AUTORESEARCH_SESSION",
)


def passes(name: str) -> bool:
    """Whether a candidate may see a variable of this process. A name that looks like a secret is never passed."""
    if name in OWN or _is_secret(name):
        return False
    return any(fnmatchcase(name, pattern) for pattern in ALLOWED)


def _is_secret(name: str) -> bool:
    return any(fnmatchcase(name.upper(), pattern) for pattern in SECRET)


def passed(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables of `ours` that a candidate may see."""
    return {name: value for name, value in ours.items() if passes(name)}


def named(ours: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The variables of `ours` with these names, globs allowed. A glob names no variable that looks like a secret."""
    given = tuple(names)
    return {
        name: value
        for name, value in ours.items()
        if name not in OWN
        and (name in given or (not _is_secret(name) and any(fnmatchcase(name, pattern) for pattern in given)))
    }


def environment(ours: Mapping[str, str], job: Job) -> dict[str, str]:
    """Variables for training and for scoring: the allowed ones of `ours`, the job's, and those of the contract."""
    return {
        **passed(ours),
        **job.environment,
        "AUTORESEARCH_SEED": str(job.seed),
        "AUTORESEARCH_BUDGET": str(job.limits.budget_seconds),
        "AUTORESEARCH_OUT": str(job.out.absolute()),
        "PYTHONUNBUFFERED": "1",  # so that progress arrives at once
        "PYTHONDONTWRITEBYTECODE": "1",  # so that the lane's tree stays as committed
    }


def training_environment(ours: Mapping[str, str], job: Job, clock: int, door: Path) -> dict[str, str]:
    """Variables for the training command.

    Args:
        clock: The file descriptor by which the first process may ask for its rows.
        door: The path of the socket by which `harness.begin()` asks, in any process.
    """
    asks = {"AUTORESEARCH_CLOCK": str(door), "AUTORESEARCH_CLOCK_FD": str(clock)}
    return candidate_environment(environment(ours, job), job) | asks


def candidate_environment(variables: Mapping[str, str], job: Job) -> dict[str, str]:
    """Variables for a process that runs the candidate's code: it imports the modules of the lane.

    The scorer is trusted and never gets these: a module of the lane could take the place of one of its own.
    """
    return with_module_folders(variables, job.module_folders)


def with_module_folders(variables: Mapping[str, str], folders: Iterable[Path]) -> dict[str, str]:
    """The variables with these folders first in PYTHONPATH."""
    entries = [*(str(folder.absolute()) for folder in folders), variables.get("PYTHONPATH", "")]
    path = os.pathsep.join(entry for entry in entries if entry)
    return {**variables, "PYTHONPATH": path} if path else dict(variables)


def scoring_environment(ours: Mapping[str, str], job: Job) -> dict[str, str]:
    """Variables for the scorer; AUTORESEARCH_CANDIDATE is the candidate's tree."""
    return {**environment(ours, job), **job.score_environment, "AUTORESEARCH_CANDIDATE": str(job.folder.absolute())}
