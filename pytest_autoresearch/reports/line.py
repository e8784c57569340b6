"""One judged experiment in one line, for the agent that drives the session: as a sentence and as JSON. Pure."""

from __future__ import annotations

import json
import math

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.reports.harmless import harmless_json

_MOST = 300  # characters of a message: the last line of a traceback can be any length


def verdict_line(experiment: Experiment) -> str:
    """The verdict, the metric and its change or the reason, the description."""
    ruling = experiment.verdict
    if ruling is None:
        raise ValueError(f"{experiment!r} has no verdict")
    message = one_line(ruling.message)
    if len(message) > _MOST:
        message = f"{message[: _MOST - 3]}..."
    return f"{ruling.status} {experiment.number:04d}: {message}: {experiment.proposal.short}"


def json_line(experiment: Experiment, log: str, set_aside: str = "") -> str:
    """One JSON object on one line. Missing values and numbers that are not finite are null.

    Args:
        experiment: Judged.
        log: Path of its full log; empty if nothing was run.
        set_aside: The command that restores the edit in the checkout; empty if the edit was not removed from it.
    """
    ruling = experiment.verdict
    if ruling is None:
        raise ValueError(f"{experiment!r} has no verdict")
    document = {
        "number": experiment.number,
        "status": str(ruling.status),
        "reason": ruling.reason,
        "message": one_line(ruling.message),
        "metric_name": experiment.metric_name,
        "metric": _finite(experiment.metric),
        "best": _finite(experiment.decision.best),
        "gain": _finite(ruling.gain),
        "commit": experiment.commit,
        "description": experiment.proposal.description,
        "log": log or None,
        "seconds": _finite(round(experiment.seconds, 3)),
        "cost_usd": _finite(experiment.usage.cost_usd),
        "set_aside": set_aside or None,
    }
    return harmless_json(json.dumps(document, allow_nan=False))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
