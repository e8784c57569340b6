"""The commands that a person types after a session, each with what it is for. Pure: records in, text out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.reports.position import rough, seconds_of_an_experiment

MORE = 20  # experiments of the next session
_LONGEST = 120  # of a command that is shown
_WIDEST = 38  # of the commands, so that what they are for fits beside them


def next_steps(
    records: Sequence[Experiment], again: Sequence[str], named: str = "", audited: bool = False, follows: bool = False
) -> list[str]:
    """The lines, under a heading; empty without a baseline.

    Args:
        records: All records of the campaign.
        again: The command that makes more experiments; empty if it would make none.
        named: The campaign, if the commands do not find it by themselves; else empty.
        audited: Whether the gain was measured again already.
        follows: Whether the user's checkout is at the best program already.
    """
    line = chain(records)
    if not line:
        return []
    tag = ["--tag", named] if named else []
    steps = [] if len(line) > 1 else _without_keep(records, tag)
    if len(line) > 1:
        best = max(line[1:], key=_gain)
        steps = [(["show", str(best.number), "--diff", *tag], "the largest gain, with its change")]
        if not follows:
            steps.append((["best", "--checkout", *tag], "switch to the best program, on a branch"))
        if not audited:
            steps.append((["audit", *tag], "measure first and last again, to quote the gain"))
    shown = [(shlex.join(["autoresearch", *words]), what) for words, what in steps]
    each = seconds_of_an_experiment(records)
    if again:
        takes = "" if each is None else f", {rough(each * MORE)}"
        command = shlex.join(again)
        command = command if len(command) <= _LONGEST else f"the same command with --max {MORE}"
        shown.append((command, f"{MORE} experiments more{takes}"))
    if not shown:
        return []
    wide = max((len(command) for command, _ in shown if len(command) <= _WIDEST), default=0)
    return ["next:", *(f"  {command:<{wide}}  {what}" for command, what in shown)]


def more_of(arguments: Sequence[str]) -> list[str]:
    """The command line of a session, with `MORE` experiments instead of as many as it had."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        name, given, _ = word.partition("=")
        if name in ("--max", "--autoresearch-max"):
            if not given:
                next(words, None)
        else:
            kept.append(word)
    return ["pytest", *kept, "--max", str(MORE)]


def _without_keep(records: Sequence[Experiment], tag: list[str]) -> list[tuple[list[str], str]]:
    """The nearest miss; the last crash if nothing else was measured."""
    tried = [record for record in records if record.number != BASELINE and record.verdict is not None]
    measured = [one for one in tried if one.measured and one.verdict and one.verdict.status is Status.DISCARD]
    if measured:
        nearest = max(measured, key=lambda one: one.direction.gain(one.metric, records[0].metric))
        return [(["show", str(nearest.number), "--diff", *tag], "the nearest miss, with its change")]
    if tried:
        return [(["show", str(tried[-1].number), "--log", *tag], "the last crash, with its output")]
    return []


def _gain(experiment: Experiment) -> float:
    return (experiment.verdict.gain or 0.0) if experiment.verdict else 0.0
