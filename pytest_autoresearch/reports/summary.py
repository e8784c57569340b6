"""The words of a session: its header, its lines and its summary, as plain text. Pure: it is given records."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status, Usage
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import Limits, Progress, Run
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule.audit import Audit, claim
from pytest_autoresearch.keeprule.racing import races
from pytest_autoresearch.keeprule.replicates import luck

COLUMNS = "  no.  verdict  {metric:>12}      change    memory  seconds  description"
NOTHING = Usage()
_PLAIN = (Reason.NOT_IMPROVED, Reason.REGRESSION)  # which the numbers say
_LARGEST = 5


def column_line(metric_name: str) -> str:
    """The line above the experiments."""
    return COLUMNS.format(metric=metric_name[:12])


def experiment_line(experiment: Experiment) -> str:
    """One judged experiment: number, verdict, metric, change against best, memory, seconds, description.

    The metric of a crash is its class; its message stands behind the description.
    """
    ruling = experiment.verdict
    if ruling is None:
        raise ValueError(f"{experiment!r} has no verdict")
    said = experiment.proposal.description
    crash = experiment.crash
    if crash is not None:
        metric, change = crash.reason, ""
        said = f"{said} ({one_line(crash.message)})"
    elif not experiment.measured:
        metric, change, said = ruling.reason, "", f"{said} ({ruling.message.rpartition(': ')[2]})"
    else:
        metric = f"{experiment.metric:.6f}"
        change = "" if experiment.decision.best is None else f"{experiment.metric - experiment.decision.best:+.6f}"
        if ruling.status is Status.DISCARD and ruling.reason not in _PLAIN:
            said = f"{said} ({ruling.message.rpartition('; ')[2]})"
    own = experiment.own_runs
    if len(own) > 1 and (first := own[0].crash) is not None:
        said = f"{said} (again with {_variables(own[-1])} after {first.reason})"
    if experiment.repairs:
        said = f"{said} (after {plural(len(experiment.repairs), 'repair')})"
    memory = _memory(experiment.peak_memory_mb)
    return (
        f" {experiment.number:04d}  {ruling.status:<7}  {metric:>12}  {change:>10}  {memory:>8}"
        f"  {experiment.seconds:5.0f} s  {said}"
    )


def progress_line(number: int, description: str, now: Progress) -> str:
    """One experiment that is under way."""
    return f"{number:04d} {progress_text(now)}" + (f"  {description}" if description else "")


def progress_text(now: Progress) -> str:
    """Where a run is."""
    parts = [now.phase, *([now.run] if now.run else [])]
    if now.step is not None:
        parts.append(f"step {now.step}")
    if now.loss is not None:
        parts.append(f"loss {now.loss:.4f}")
    if now.remaining_seconds is not None:
        parts.append(f"{max(now.remaining_seconds, 0):.0f} s left")
    elif now.seconds >= 1:
        parts.append(f"{now.seconds:.0f} s")
    if now.memory_mb:
        parts.append(_memory(now.memory_mb))
    return " · ".join(parts)


def limits_line(limits: Limits) -> str:
    """What a run may use, for the header."""
    memory = "no memory limit" if math.isinf(limits.memory_limit_mb) else f"{limits.memory_limit_mb / 1024:.1f} GB"
    return f"{limits.budget_seconds:g} s of training, {memory}, ended after {limits.deadline_seconds:g} s at the latest"


def best_line(records: Iterable[Experiment]) -> str:
    """The incumbent, for the header."""
    line = chain(records)
    if not line:
        return "none yet: the baseline runs first"
    last = line[-1]
    return f"{last.metric_name} {last.metric:.6f} ({last.number:04d} {last.proposal.description})"


def usage_line(usage: Usage) -> str:
    """What proposals have used, in words; empty where nobody was paid."""
    if not usage.requests:
        return ""
    said = f"{usage.model}: {plural(usage.requests, 'request')}"
    if usage.tokens:
        read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        cached = usage.cache_read_tokens / read if read else 0.0
        said += f", {usage.tokens:,} tokens ({cached:.0%} of what it read from the cache)"
    return said + (", cost not known" if usage.cost_usd is None else f", ${usage.cost_usd:.4f}")


def summary_lines(
    records: list[Experiment], session: set[int], branch: str, usage: Usage = NOTHING, audited: Audit | None = None
) -> list[str]:
    """What became of the session and of its campaign.

    Args:
        records: The whole campaign's.
        session: The numbers that this session recorded.
        branch: The branch's short name.
        usage: What the session's proposals have used.
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
    line = chain(records)
    if not line:
        return lines
    first, last = line[0], line[-1]
    if len(line) == 1:
        lines.append(f"nothing was kept yet: {first.metric_name} {first.metric:.6f} is the baseline's")
    else:
        lines.append(
            f"{first.metric_name} {first.metric:.6f} -> {last.metric:.6f} ({last.metric - first.metric:+.6f}) "
            f"over {plural(len(line) - 1, 'keep')}, {certainty(records)}; {claim(audited)}"
        )
    gains = sorted((r for r in line[1:] if _gain(r) > 0), key=_gain, reverse=True)[:_LARGEST]
    if gains:
        lines.append("largest gains:")
        lines += [f"  {r.number:04d}  {r.metric - r.best:+.6f}  {r.proposal.description}" for r in gains]
    lines.append(f"see the best:     git show {branch}")
    if len(line) > 1:
        lines.append(f"all that helped:  git log --oneline {first.commit[:7]}..{branch}")
    return lines


def _runs_line(records: list[Experiment]) -> str:
    """How many runs there were and what for; empty where there was one for each experiment."""
    runs = [run for record in records for run in record.runs]
    again = runs_beyond_the_first(records)
    disturbed = sum(bool(run.inconclusive) for run in runs)
    raced = races(records)
    said = f"{plural(len(runs), 'run')} of training"
    if again:
        said += f", {again} of them to know the noise and to confirm"
    if disturbed:
        said += f"; {disturbed} inconclusive and made again"
    if raced.stopped:
        said += f"; {raced.stopped} stopped early, {_time(raced.saved_seconds)} saved"
    if raced.spared:
        said += f"; {raced.wrong} of {raced.spared} hopeless ones that were let finish came to it after all"
    return said if again or disturbed or raced.stopped or raced.spared else ""


def runs_beyond_the_first(records: Iterable[Experiment]) -> int:
    """How many runs that counted were not the first of their experiment's own commit."""
    counted = [[run for run in record.runs if not run.inconclusive] for record in records]
    return sum(len(runs) - any(not run.commit for run in runs) for runs in counted)


def _time(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def certainty(records: Iterable[Experiment]) -> str:
    """How far the sum of what was kept can be believed."""
    known = luck(records)
    if known.nothing is None:
        return "each measured once: part of it may be luck"
    return (
        f"of which about {known.nothing:.1f} are expected to be nothing (chance alone keeps {known.chance:.1f} of "
        f"{known.tried} that change nothing)"
    )


def _variables(run: Run) -> str:
    return " ".join(f"{name}={value}" for name, value in run.variables.items())


def _gain(experiment: Experiment) -> float:
    return (experiment.verdict.gain or 0.0) if experiment.verdict else 0.0


def _memory(mb: float) -> str:
    return f"{mb:.0f} MB" if mb < 10_000 else f"{mb / 1024:.1f} GB"


def plural(count: int, word: str) -> str:
    """The count with the word in its number."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
