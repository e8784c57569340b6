"""What a session asks of the scorer in addition to the metric, from environment variables.

Knows only names and numbers; reads none of the files.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.server_process import Deadlines

LOAD_FACTOR, EVALUATION_FACTOR = 2.0, 3.0
LEAST_SPARE_SECONDS, SPARE_SHARE = 5.0, 0.02
"""Extra time for a busy machine: at least this many seconds, and at least this share of the budget."""


@dataclass(frozen=True, slots=True)
class ScorerOptions:
    """What a session requests in addition to the metric; by hand, nothing.

    Attributes:
        nats: File for the loss of every target: float32 [rows, sequence] as `.npy`. Candidates must not read it.
        incumbent_nats: The same file of the best model so far; the probe looks where the new model gains most.
        probe_below: A model with a metric below this is probed.
        probe_threshold: In the probe, a loss counts as changed if it differs by more than this, in nats.
        calibrate: Whether to measure that threshold with this model, which must be trusted.
        fresh: Whether to measure the fresh rows too, so that later models can be compared with this one.
        baseline_nats: The file of a model that was measured with `fresh`. A model that is probed is also asked whether
            it gains more on the rows of the metric than on fresh ones; without the file, whether it is better there.
    """

    nats: Path | None = None
    incumbent_nats: Path | None = None
    probe_below: float | None = None
    probe_threshold: float = math.inf
    calibrate: bool = False
    fresh: bool = False
    baseline_nats: Path | None = None

    @property
    def may_ask_again(self) -> bool:
        """Whether the model may be asked again by a fresh server."""
        return self.calibrate or self.probe_below is not None


def options_of_environment() -> ScorerOptions:
    """AUTORESEARCH_NATS, _INCUMBENT_NATS, _BASELINE_NATS, _FRESH, _PROBE_BELOW and _THRESHOLD, _PROBE_CALIBRATE."""
    below, threshold = _number("AUTORESEARCH_PROBE_BELOW"), _number("AUTORESEARCH_PROBE_THRESHOLD")
    if below is not None and (threshold is None or threshold <= 0):
        raise HarnessError(
            "AUTORESEARCH_PROBE_BELOW is set without a threshold; set AUTORESEARCH_PROBE_THRESHOLD to the nats that "
            "AUTORESEARCH_PROBE_CALIBRATE=1 prints for a trusted model."
        )
    return ScorerOptions(
        nats=_path("AUTORESEARCH_NATS"),
        incumbent_nats=_path("AUTORESEARCH_INCUMBENT_NATS"),
        probe_below=below,
        probe_threshold=math.inf if threshold is None else threshold,
        calibrate=os.environ.get("AUTORESEARCH_PROBE_CALIBRATE") == "1",
        fresh=os.environ.get("AUTORESEARCH_FRESH") == "1",
        baseline_nats=_path("AUTORESEARCH_BASELINE_NATS"),
    )


def deadlines_of_environment() -> Deadlines:
    """Deadlines from AUTORESEARCH_BASELINE_LOAD_SECONDS and _EVALUATION_SECONDS, measured with the trusted baseline.

    A model could train on during loading and evaluation, on rows that it has saved. So neither may take much longer
    than with the baseline. Loading may take twice as long: a model of twice the depth needs that to compile.
    """
    usual = Deadlines()
    load, evaluation = (_number(f"AUTORESEARCH_BASELINE_{name}_SECONDS") for name in ("LOAD", "EVALUATION"))
    budget = _number("AUTORESEARCH_BUDGET") or 0.0
    spare = max(LEAST_SPARE_SECONDS, SPARE_SHARE * budget)
    return replace(
        usual,
        load_seconds=usual.load_seconds if load is None else LOAD_FACTOR * load + spare,
        total_seconds=usual.total_seconds if evaluation is None else EVALUATION_FACTOR * evaluation + spare,
    )


def _path(name: str) -> Path | None:
    text = os.environ.get(name)
    return Path(text).absolute() if text else None


def _number(name: str) -> float | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise HarnessError(f"{name}={text!r} is not a number; unset it or set it to, say, 0.5.")
    return number
