"""The variables that a candidate's processes see.

A list of what may pass, not of what may not: a key that nobody thought of stays outside by itself. Knows variables
alone, nothing of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from pytest_autoresearch.runners.base import Job

# Proxies are missing on purpose: their addresses hold passwords, and training has no business on the network.
ALLOWED = (
    # Finding programs, files and the user's language.
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    # The same Python with the same packages, the compiler that torch.compile calls, the libraries that both load.
    *("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "CC", "CXX", "LD_LIBRARY_PATH"),
    # Which devices there are, and how the numeric libraries use them.
    *("CUDA_*", "NVIDIA_*", "PYTORCH_*", "TORCH*", "TRITON_*", "NCCL_*", "OMP_*", "MKL_*", "OPENBLAS_*"),
    # Where tokenizers and data sets are kept, and where they come from.
    *("HF_HOME", "HF_ENDPOINT"),
    # A CI runner ends, after a job, whatever of it still carries this.
    "RUNNER_TRACKING_ID",
    "AUTORESEARCH_*",
)
SECRET = ("*KEY*", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*PASSWD*", "*CREDENTIAL*")
# Of one process alone; an outer campaign's must not reach an inner one's.
OWN = (
    "AUTORESEARCH_SEED",
    "AUTORESEARCH_BUDGET",
    "AUTORESEARCH_OUT",
    "AUTORESEARCH_CLOCK_FD",
    "AUTORESEARCH_CANDIDATE",
    "AUTORESEARCH_SERVER_PREFIX",
    "AUTORESEARCH_SERVER_FDS",
    "AUTORESEARCH_SERVER_VARIABLES",
    "AUTORESEARCH_BASELINE_LOAD_SECONDS",
    "AUTORESEARCH_BASELINE_EVALUATION_SECONDS",
    "AUTORESEARCH_NATS",
    "AUTORESEARCH_INCUMBENT_NATS",
    "AUTORESEARCH_PROBE_BELOW",
    "AUTORESEARCH_PROBE_THRESHOLD",
    "AUTORESEARCH_PROBE_CALIBRATE",
    "AUTORESEARCH_HALVE_BATCH",
    "AUTORESEARCH_ROWS",
    "AUTORESEARCH_SESSION",
)


def passes(name: str) -> bool:
    """Whether a variable of this process may be seen by a candidate. What sounds like a secret never may."""
    if name in OWN or any(fnmatchcase(name.upper(), pattern) for pattern in SECRET):
        return False
    return any(fnmatchcase(name, pattern) for pattern in ALLOWED)


def passed(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables of `ours` that a candidate may see."""
    return {name: value for name, value in ours.items() if passes(name)}


def environment(ours: Mapping[str, str], job: Job) -> dict[str, str]:
    """What training and scoring share: the allowed variables of `ours`, the job's, and the contract's."""
    return {
        **passed(ours),
        **job.environment,
        "AUTORESEARCH_SEED": str(job.seed),
        "AUTORESEARCH_BUDGET": str(job.limits.budget_seconds),
        "AUTORESEARCH_OUT": str(job.out.absolute()),
        "PYTHONUNBUFFERED": "1",  # progress is read as it is printed
        "PYTHONDONTWRITEBYTECODE": "1",  # the lane's tree stays as it was committed
    }


def training_environment(ours: Mapping[str, str], job: Job, clock: int) -> dict[str, str]:
    """For the training command; `clock` is the file descriptor on which `harness.begin()` asks to begin."""
    return {**environment(ours, job), "AUTORESEARCH_CLOCK_FD": str(clock)}


def scoring_environment(ours: Mapping[str, str], job: Job) -> dict[str, str]:
    """For the scorer, which is told where the candidate's tree is."""
    return {**environment(ours, job), **job.score_environment, "AUTORESEARCH_CANDIDATE": str(job.folder.absolute())}
