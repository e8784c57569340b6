"""Describes an earlier experiment for a proposer: a summary of its record, the diff, the loss curve, the log's end.

Pure: texts in, text out. Every part has a limit, so that the description costs a proposer few tokens.
"""

from __future__ import annotations

import re

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.text import one_line

_MOST_CHARACTERS = 12_000
_DIFF_CHARACTERS = 6000
_LOG_CHARACTERS = 2500
_TEXT_CHARACTERS = 400
_CURVE_POINTS = 20
_STEP = re.compile(r"\bstep[ :=]*(\d{1,18})\b.*?\bloss[ :=]*([-+\d.eE]{1,24})", re.IGNORECASE)


def looked_at(experiment: Experiment, diff: str, log: str) -> str:
    """The description, in at most 12,000 characters.

    Args:
        diff: The change as a patch; empty without a commit.
        log: The training log.
    """
    parts = [*_said(experiment), "", "diff:", _shortened(diff, _DIFF_CHARACTERS) or "none: nothing was committed"]
    points = curve(log)
    if points:
        parts += ["", "loss by step: " + ", ".join(f"{step} {loss:.4g}" for step, loss in points)]
    said = log if log.strip() else next((run.log for run in reversed(experiment.runs) if run.log), "")
    parts += ["", "end of the log:", said[-_LOG_CHARACTERS:].strip() or "no longer on this machine"]
    return "\n".join(parts)[:_MOST_CHARACTERS]


def curve(log: str) -> list[tuple[int, float]]:
    """Steps and losses from the log, reduced to at most 20 evenly spaced ones, including the first and the last."""
    found = []
    for line in log.splitlines():
        if match := _STEP.search(line):
            try:
                found.append((int(match[1]), float(match[2])))
            except ValueError:
                continue
    if len(found) <= _CURVE_POINTS:
        return found
    places = {round(part * (len(found) - 1) / (_CURVE_POINTS - 1)) for part in range(_CURVE_POINTS)}
    return [found[place] for place in sorted(places)]


def _said(experiment: Experiment) -> list[str]:
    proposal, ruling = experiment.proposal, experiment.verdict
    said = [
        f"experiment {experiment.number:04d}: {one_line(proposal.description)[:_TEXT_CHARACTERS]}",
        f"verdict: {one_line(str(ruling))[:_TEXT_CHARACTERS]}" if ruling else "verdict: none yet",
    ]
    for name, text in (("hypothesis", proposal.hypothesis), ("expected", proposal.expected), ("area", proposal.area)):
        if text:
            said.append(f"{name}: {one_line(text)[:_TEXT_CHARACTERS]}")
    said += [f"repaired after {repair.stage}: {one_line(str(repair.crash))[:200]}" for repair in experiment.repairs]
    if run := experiment.last_run:
        numbers = {name: value for name, value in run.metrics.items() if name != experiment.metric_name}
        shown = ", ".join(f"{name} {value:g}" for name, value in list(numbers.items())[:20])
        said.append(f"training {run.training_seconds:.1f} s, memory {run.peak_memory_mb:.0f} MB; {shown}")
    return said


def _shortened(text: str, most: int) -> str:
    """The text, or its beginning and end if it has more than `most` characters."""
    text = text.strip("\n")
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]}\n[... {len(text) - most:,} characters left out ...]\n{text[-most // 3 :]}"
