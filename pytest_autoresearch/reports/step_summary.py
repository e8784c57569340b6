"""A campaign as a Markdown page, for GitHub's job summary.

Pure: records in, text out. Text from records is escaped, so it cannot become markup, and the page stays small.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from pytest_autoresearch.core.experiment import BASELINE, Direction, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule.replicates import levels
from pytest_autoresearch.reports.summary import kept_text, plural

_TEXT = 160  # characters of a description or a message
_KEEPS = 100  # rows, the latest keeps
_CLASSES = 20
_WIDTH, _HEIGHT = 60, 8  # of the chart, in characters
_BLOCKS = " ▁▂▃▄▅▆▇█"
# Every character that has a meaning in Markdown, its tables, HTML or GitHub's extensions.
_MARKS = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*_{}[]()<>#+-!|~$&\"'=:@"}


def step_summary(records: Sequence[Experiment], session: Iterable[int], branch: str, files: Iterable[str]) -> str:
    """The page: headline, chart, keeps, crashes by class, and where the files are.

    Args:
        records: All records of the campaign, by number.
        session: The numbers that this session recorded.
        branch: The branch's short name.
        files: Paths of the files that the session wrote.
    """
    line = chain(records)
    mine = set(session)
    parts = [f"## {text(branch)}", _headline(records, line, mine)]
    if len(records) > 1 and line:
        parts.append(_chart(records))
    if len(line) > 1:
        parts.append(_keeps(line))
    if crashed := crashes(records, mine):
        parts.append(_crash_table(crashed))
    if named := [f"`{_plain(name)}`" for name in files]:
        parts.append(f"Files, if the workflow uploads artifacts: {', '.join(named)}.")
    if line:
        parts.append(f"`git show {_plain(branch)}` shows the best program. Every experiment has a record in git.")
    return "\n\n".join(parts) + "\n"


def text(words: str) -> str:
    """The words on one line, shortened, escaped for Markdown."""
    said = one_line(words)
    return (said if len(said) <= _TEXT else f"{said[: _TEXT - 1]}…").translate(_MARKS)


def crashes(records: Iterable[Experiment], session: Iterable[int]) -> list[tuple[str, int, Experiment]]:
    """The session's crashes as (class, count, last experiment), the most frequent class first."""
    mine = set(session)
    crashed = [r for r in records if r.number in mine and r.verdict and r.verdict.status is Status.CRASH]
    last = {one.verdict.reason: one for one in crashed if one.verdict}
    counted = Counter(one.verdict.reason for one in crashed if one.verdict)
    return [(reason, count, last[reason]) for reason, count in counted.most_common()]


def crash_message(experiment: Experiment) -> str:
    """The crash's message, without its class."""
    said = experiment.verdict.message if experiment.verdict else ""
    return experiment.crash.message if experiment.crash is not None else said


def _plain(words: str) -> str:
    """The words for a code span, in which only a backtick is special."""
    return one_line(words).replace("`", "'")[:_TEXT]


def _headline(records: Sequence[Experiment], line: Sequence[Experiment], mine: set[int]) -> str:
    tried = [r for r in records if r.number != BASELINE]
    ours = [r for r in tried if r.number in mine]
    count = Counter(r.verdict.status for r in ours if r.verdict)
    said = (
        f"{plural(len(ours), 'experiment')} in this session: {count[Status.KEEP]} kept, {count[Status.DISCARD]} "
        f"discarded, {count[Status.CRASH]} crashed; {len(tried)} in the campaign."
    )
    if not line:
        return f"{said} There is no baseline yet."
    first = line[0]
    name = text(first.metric_name)
    if len(line) == 1:
        return f"**{name} {_number(first.metric)} (the baseline).** {said}"
    now = levels(records)[-1]
    change = now - first.metric
    return (
        f"**{name} {_number(first.metric)} → {_number(now)} ({change:+.6f}).** {said} "
        f"Campaign: {kept_text(records)}; `autoresearch audit` measures the gain again."
    )


def _chart(records: Sequence[Experiment]) -> str:
    """The best so far over the experiments, drawn with block characters."""
    best = _best_so_far(records)
    low, high = min(best), max(best)
    maximize = records[0].direction is Direction.MAXIMIZE
    width = min(_WIDTH, len(best))
    columns = [best[(len(best) - 1) * at // max(width - 1, 1)] for at in range(width)]
    # Heights start at one eighth, so that the lowest value is still visible.
    steps = 8 * _HEIGHT
    heights = [steps if high == low else 1 + round((steps - 1) * (value - low) / (high - low)) for value in columns]
    labels = {_HEIGHT - 1: _number(high), 0: _number(low)}
    margin = max(map(len, labels.values()))
    rows = []
    for row in reversed(range(_HEIGHT)):
        blocks = "".join(_BLOCKS[max(0, min(8, height - 8 * row))] for height in heights)
        rows.append(f"{labels.get(row, ''):>{margin}} {blocks}".rstrip())
    better = "higher is better" if maximize else "lower is better"
    title = f"Best so far over {plural(len(best) - 1, 'experiment')}; {better}."
    return "\n".join([title, "", "```text", *rows, "```"])


def _best_so_far(records: Sequence[Experiment]) -> list[float]:
    """The branch's metric after each experiment, starting at the first with a metric."""
    on_branch = {record.number: record.metric for record in chain(records)}
    best: list[float] = []
    for record in sorted(records, key=lambda one: one.number):
        metric = on_branch.get(record.number)
        if metric is not None and math.isfinite(metric):
            best.append(metric)
        elif best:
            best.append(best[-1])
    return best or [0.0]


def _keeps(line: Sequence[Experiment]) -> str:
    shown = line[1:][-_KEEPS:]
    rows = [
        f"| {keep.number:04d} | {_number(keep.metric)} | {_change(keep)} | {len(keep.own_runs)} | {_chance(keep)} "
        f"| `{_plain(keep.commit[:7])}` | {text(keep.proposal.description)} |"
        for keep in shown
    ]
    left = len(line) - 1 - len(shown)
    title = "Kept changes, in the order of the branch" + (
        f" (the last {len(shown)} of {left + len(shown)})" if left else ""
    )
    head = f"| no. | {text(line[0].metric_name)} | change | runs | better | commit | description |"
    return "\n".join([f"### {title}", "", head, "|---|---|---|---|---|---|---|", *rows])


def _crash_table(crashed: Sequence[tuple[str, int, Experiment]]) -> str:
    rows = [
        f"| {text(reason)} | {count} | {last.number:04d} | {text(crash_message(last))} |"
        for reason, count, last in crashed[:_CLASSES]
    ]
    if left := sum(count for _, count, _ in crashed[_CLASSES:]):
        rows.append(f"| others | {left} | | |")
    return "\n".join(["### Crashes", "", "| class | count | last | message |", "|---|---|---|---|", *rows])


def _change(experiment: Experiment) -> str:
    if experiment.decision.best is None or not math.isfinite(experiment.metric):
        return ""
    return f"{experiment.metric - experiment.decision.best:+.6f}"


def _chance(experiment: Experiment) -> str:
    """The probability that it is better; empty if not computed."""
    return "" if experiment.decision.probability is None else _certainty(experiment.decision.probability)


def _number(value: float) -> str:
    return f"{value:.6f}" if abs(value) < 1e6 else f"{value:.6g}"


def _certainty(probability: float) -> str:
    """Two decimals, but never a plain 0.00 or 1.00."""
    return ">0.99" if probability > 0.99 else "<0.01" if probability < 0.01 else f"{probability:.2f}"
