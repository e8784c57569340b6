"""The session's header, experiment lines and summary as plain text. Pure: records in, text out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status, Usage
from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.core.run import Limits, Progress, Role, Run
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.audit import Audit, claim
from pytest_autoresearch.keeprule.racing import races

COLUMNS = "  no.  verdict  {metric:>12}      change    memory  seconds  description"
NOTHING = Usage()
_PLAIN = (Reason.NOT_IMPROVED, Reason.REGRESSION)  # the numbers show these reasons
_LARGEST = 5
_MANY = 20  # experiments after which it is no longer usual that nothing was kept
_REASONS = {"regression": "not better", "not-improved": "not better", "within-noise": "within noise"}
_RUNS = {"incumbent": "re-running the best", "confirm": "confirming", "batch": "batch"}  # by the log: `confirm-1`


def column_line(metric_name: str) -> str:
    """The line above the experiments."""
    return COLUMNS.format(metric=metric_name[:12])


def experiment_line(experiment: Experiment) -> str:
    """One judged experiment: number, verdict, metric, change against best, memory, seconds, description.

    A crash shows its class in place of the metric, and its message after the description.
    """
    ruling = experiment.verdict
    if ruling is None:
        raise ValueError(f"{experiment!r} has no verdict")
    said = experiment.proposal.short
    crash = experiment.crash
    if crash is not None:
        metric, change = crash.reason, ""
        said = f"{said} ({one_line(crash.message)})"
    elif not experiment.measured:
        metric, change, said = ruling.reason, "", f"{said} ({ruling.message.rpartition(': ')[2]})"
    else:
        metric = f"{experiment.metric:.6f}"
        change = "" if experiment.decision.best is None else f"{experiment.metric - experiment.decision.best:+.6f}"
        if ruling.status is Status.DISCARD and ruling.reason not in _PLAIN and experiment.share is None:
            said = f"{said} ({ruling.message.rpartition('; ')[2]})"
    own = experiment.own_runs
    if len(own) > 1 and (first := own[0].crash) is not None:
        said = f"{said} (again with {_variables(own[-1])} after {first.reason})"
    if experiment.repairs:
        said = f"{said} (after {plural(len(experiment.repairs), 'repair')})"
    memory = _memory(experiment.peak_memory_mb)
    word = ruling.reason if ruling.reason == Reason.JOINS else ruling.status
    return (
        f" {experiment.number:04d}  {word:<7}  {metric:>12}  {change:>10}  {memory:>8}"
        f"  {experiment.seconds:5.0f} s  {said}"
    )


def progress_line(number: int, description: str, now: Progress, lane: int | None = None) -> str:
    """One running experiment.

    Args:
        lane: Where it runs; None if there is only one lane.
    """
    where = "" if lane is None else f" lane {lane} ·"
    return f"{number:04d}{where} {progress_text(now)}" + (f"  {description}" if description else "")


def progress_text(now: Progress) -> str:
    """The progress of one run: `training · confirming (1) · step 90 · loss 4.9165 · 10 s left · 395 MB`."""
    run = run_words(now.run, now.runs)
    parts = [now.phase, *([run] if run else [])]
    if now.step is not None:
        parts.append(f"step {now.step}")
    if now.loss is not None:
        parts.append(f"loss {now.loss:.4f}")
    if now.remaining_seconds is not None:
        parts.append(f"{max(now.remaining_seconds, 0):.0f} s left")
    elif now.seconds >= 1:
        parts.append(f"{now.seconds:.0f} s")
    if now.memory_mb:
        parts.append(_memory(now.memory_mb) + (" on the GPU" if now.on_gpu else ""))
    return " · ".join(parts)


def reason_words(reason: str) -> str:
    """The recorded reason of a verdict, in words for people."""
    return _REASONS.get(reason, reason)


def run_words(name: str, runs: int | None) -> str:
    """A run by its log's name, in words: `confirm-1` as `confirming (1)`; empty for the first or only run.

    Args:
        runs: How many runs the experiment has, if that is known from the start: `baseline-2` is then `baseline 2 of 5`.
    """
    if runs is not None:
        again = "repeated" if "-again-" in name else ""
        turn = re.match(r"baseline-(\d+)", name)
        which = [f"baseline {turn[1] if turn else 1} of {runs}"] if runs > 1 else []
        return ", ".join([*which, *([again] if again else [])])
    if merged := re.fullmatch(r"merged-\d+-(.+)", name):
        return "on the new head" if merged[1] == "train" else f"{run_words(merged[1], None)}, on the new head"
    role, _, turn_of = name.rpartition("-")
    return f"{_RUNS.get(role, role)} ({turn_of})" if role and turn_of.isdecimal() else name


def limits_line(limits: Limits) -> str:
    """The limits of a run, for the header."""
    memory = "no memory limit" if math.isinf(limits.memory_limit_mb) else f"{limits.memory_limit_mb / 1024:.1f} GB"
    return f"{limits.budget_seconds:g} s of training, {memory}, hard timeout {limits.deadline_seconds:g} s"


def best_line(records: Iterable[Experiment]) -> str:
    """The best so far, for the header."""
    known = list(records)
    line = chain(known)
    if not line:
        return "none yet: the baseline runs first"
    last = line[-1]
    return f"{last.metric_name} {replicates.levels(known)[-1]:.6f} ({last.number:04d} {last.proposal.short})"


def usage_line(usage: Usage) -> str:
    """Requests, tokens and cost of proposals; empty if no model was asked."""
    if not usage.requests:
        return ""
    said = f"{usage.model}: {plural(usage.requests, 'request')}"
    if usage.tokens:
        read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        cached = usage.cache_read_tokens / read if read else 0.0
        said += f", {usage.tokens:,} tokens ({cached:.0%} of the input from the cache)"
    return said + (", cost unknown" if usage.cost_usd is None else f", ${usage.cost_usd:.4f}")


def summary_lines(
    records: list[Experiment], session: set[int], branch: str, usage: Usage = NOTHING, audited: Audit | None = None
) -> list[str]:
    """The results of the session and of its campaign.

    Args:
        records: All records of the campaign.
        session: The numbers that this session recorded.
        branch: The branch's short name.
        usage: Usage of the session's proposals.
        audited: The audit of the branch's head, if there is one.
    """
    mine = [record for record in records if record.number in session and record.number != BASELINE]
    count = {status: sum(r.verdict is not None and r.verdict.status is status for r in mine) for status in Status}
    tried = sum(record.number != BASELINE for record in records)
    lines = [
        f"{plural(len(mine), 'experiment')} in this session: {count[Status.KEEP]} kept, {count[Status.DISCARD]} "
        f"discarded, {count[Status.CRASH]} crashed; {tried} in the campaign"
    ]
    if said := _runs_line([record for record in records if record.number in session]):
        lines.append(said)
    if said := usage_line(usage):
        lines.append(f"proposals: {said}")
    if said := _memory_line([record for record in records if record.number in session]):
        lines.append(said)
    if gone := len(taken_back(records)):
        lines.append(f"{plural(gone, 'keep')} taken back, because a program was rejected when it ran again")
    line = chain(records)
    if not line:
        return lines
    first = line[0]
    if len(line) == 1:
        lines.append(f"nothing kept yet; the baseline has {first.metric_name} {first.metric:.6f}")
        if said := _what_to_expect(tried):
            lines.append(said)
    else:
        now = replicates.levels(records)[-1]
        lines.append(
            f"{first.metric_name} {first.metric:.6f} -> {now:.6f} ({now - first.metric:+.6f}): "
            f"{kept_text(records)}; {claim(audited)}"
        )
    gains = sorted((r for r in line[1:] if _gain(r) > 0), key=_gain, reverse=True)[:_LARGEST]
    if gains:
        lines.append("largest gains:")
        lines += [f"  {r.number:04d}  {r.metric - r.best:+.6f}  {r.proposal.short}" for r in gains]
    if len(line) > 1:
        lines.append(f"all keeps: git log --oneline {first.commit[:7]}..{branch}")
    return lines


def _what_to_expect(tried: int) -> str:
    """What a short campaign without a keep means; empty after many experiments."""
    if not 0 < tried < _MANY:
        return ""
    return f"that is usual after {plural(tried, 'experiment')}, because most changes do not help"


def _runs_line(records: list[Experiment]) -> str:
    """How many runs there were, and for what; empty if there was one for each experiment."""
    runs = [run for record in records for run in record.runs]
    again = runs_beyond_the_first(records)
    overtaken = sum(_is_overtaken(run) for run in runs)
    disturbed = sum(bool(run.inconclusive) for run in runs)
    raced = races(records)
    said = plural(len(runs), "training run")
    if again:
        said += f": {again} for noise and confirmation"
    if overtaken:
        said += f"; {overtaken} measured again on a later head"
    if disturbed:
        said += f"; {disturbed} inconclusive and repeated"
    if raced.stopped:
        said += f"; {raced.stopped} stopped early, {_time(raced.saved_seconds)} saved"
    if raced.spared:
        said += f"; {raced.wrong} of {plural(raced.spared, 'control run')} would have been stopped wrongly"
    return said if again or overtaken or disturbed or raced.stopped or raced.spared else ""


def _memory_line(records: list[Experiment]) -> str:
    """The two measurements of a GPU's memory, under their names; empty if there is one."""
    both = [
        (run.peak_memory_mb, run.allocator_mb)
        for record in records
        for run in record.runs
        if run.allocator_mb is not None and run.memory_from != "resident"
    ]
    if not both:
        return ""
    driver, allocator = map(max, zip(*both, strict=True))
    return f"GPU memory: at most {_memory(driver)} by the driver, {_memory(allocator)} by the allocator (results.tsv)"


def runs_beyond_the_first(records: Iterable[Experiment]) -> int:
    """How many valid runs were not the first of their experiment's own commit."""
    counted = [[run for run in record.runs if not run.inconclusive] for record in records]
    first = (any(not run.commit for run in runs) + sum(map(_is_overtaken, runs)) for runs in counted)
    return sum(map(len, counted)) - sum(first)


def _is_overtaken(run: Run) -> bool:
    """Whether it was the first run of a candidate that was merged into a later head since."""
    return run.role is Role.SCREEN and bool(run.commit) and not run.inconclusive


def _time(seconds: float) -> str:
    """A duration in a suitable unit."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def kept_text(records: Sequence[Experiment]) -> str:
    """How many changes were kept, and how many of them are probably luck: not at all if the metric has no noise."""
    count = len(chain(records)) - 1
    said, nothing = f"{count} kept", replicates.luck(records).nothing
    if replicates.measured_noise(replicates.samples(records).values()).exact:
        return said
    if nothing is None:
        return f"{said}, each measured once: part of the gain may be luck"
    expected = round(nothing)
    if not expected:
        return f"{said}, probably not by luck" if count == 1 else f"{said}; probably none of them is luck"
    return f"{said}; about {expected} of them {'is' if expected == 1 else 'are'} probably luck"


def _variables(run: Run) -> str:
    return " ".join(f"{name}={value}" for name, value in run.variables.items())


def _gain(experiment: Experiment) -> float:
    return (experiment.verdict.gain or 0.0) if experiment.verdict else 0.0


def _memory(mb: float) -> str:
    return f"{mb:.0f} MB" if mb < 10_000 else f"{mb / 1024:.1f} GB"


def plural(count: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
