"""What the columns of somebody's log of experiments are: the metric, the verdict, the description, the memory.

Columns are found by their names first, and by their cells where names do not tell. Pure.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from pytest_autoresearch.core.experiment import Direction, Status
from pytest_autoresearch.core.metric_names import direction_of, is_resource, vocabulary, words

Rows = Sequence[Mapping[str, str]]

COMMIT = ("commit", "commit_hash", "commit_sha", "git_commit", "git_hash", "git_sha", "sha", "hash", "rev", "revision")
_STATUS = (
    "status",
    "verdict",
    "decision",
    "outcome",
    "kept",
    "keep",
    "keep/discard",
    "keep_or_discard",
    "accepted",
    "improved",
    "result",
    "action",
    "state",
)
_DESCRIPTION = (
    "description",
    "desc",
    "change",
    "changes",
    "hypothesis",
    "what_was_tried",
    "tried",
    "idea",
    "summary",
    "note",
    "notes",
    "message",
    "title",
    "experiment",
    "name",
    "comment",
    "comments",
    "details",
    "reason",
)
# The metric's heading where nothing else is known, the best first.
_USUAL = (
    "val_bpb",
    "metric",
    "metric_value",
    "val_loss",
    "score",
    "metric_after",
    "new_metric",
    "new_score",
    "score_after",
)
_METRIC_NAME = ("metric_name", "primary_metric", "metric")  # columns that hold the metric's name

_SUMS = frozenset(("combined", "composite", "overall", "aggregate", "primary"))  # made of the other columns
# Words of columns that are never the metric.
_NEVER = vocabulary(
    "id ids uuid idx index seed seeds timestamp ts date datetime created updated started finished ended "
    "commit sha hash git rev revision base parent branch old before prev previous prior baseline train training delta "
    "diff change changed std stdev stderr sd se sem variance margin threshold target goal pid port version params "
    "param parameters lr hyperparams max_score expected predicted p pvalue probability confidence"
)
# Words of counters and settings, unless the name says more, as `steps_per_second` does.
_COUNTERS = vocabulary(
    "# n i no num number iter iters iteration iterations run runs round trial attempt attempts step steps epoch epochs "
    "row generation gen lane rank experiment exp depth width layers heads dim hidden batch rate decay warmup "
    "dropout priority temperature tokens token line lines added removed turn turns cycle phase"
)

_KEEP = vocabulary(
    "keep kept accept accepted improve improved improvement better win won winner merge merged baseline base initial "
    "start"
)
_DISCARD = vocabulary(
    "discard discarded reject rejected revert reverted rollback rolled-back worse regressed regression neutral no-op "
    "noop no-change no-improvement unchanged skip skipped drop dropped abandon abandoned killed not"
)
_CRASH = vocabulary(
    "crash crashed fail failed failure error errored exception oom timeout timed-out invalid metric-error"
)
_OURS = {
    **dict.fromkeys(("kept", "true", "yes", "1", "✓", "✅"), "keep"),
    **dict.fromkeys(("discarded", "false", "no", "0", "✗", "❌"), "discard"),
    "crashed": "crash",
}

_DIGITS = r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"[~≈$€£ ]*({_DIGITS})\s*([^\W\d_%][^\W\d_]*|%)?[\s*†!✓✅]*(?:\(.*\)|(?:±|\+/-).*)?")
_NOTHING = frozenset(("", "-", "\N{EN DASH}", "—", "n/a", "na", "nan", "none", "null", "inf", "-inf", "?"))
_UNIT_MB = {"gb": 1024.0, "gib": 1024.0, "g": 1024.0, "mb": 1.0, "mib": 1.0}
_EPOCH = 1e9  # seconds since 1970: no metric counts so far


def number(cell: str) -> tuple[float, str] | None:
    """A cell's number and its unit: `68.6%`, `1,234.5`, `145s`, `**0.99**`, `0.99*`; None if it is no number."""
    found = _NUMBER.fullmatch(cell.strip().replace("\N{MINUS SIGN}", "-").strip("*`_ "))
    if found is None:
        return None
    value = float(found[1].replace(",", ""))
    return (value, (found[2] or "").casefold()) if math.isfinite(value) else None


def numbers(cells: Sequence[str]) -> list[float | None]:
    """The numbers of a column. One with another unit than most is None, because it cannot be compared."""
    read = [number(cell) for cell in cells]
    units = Counter(found[1] for found in read if found and found[1])
    usual = units.most_common(1)[0][0] if units else ""
    return [found[0] if found and found[1] in ("", usual) else None for found in read]


def word(cell: str) -> str:
    """The word of a verdict, in lower case and without decoration: `keep`, `no-op`, or the text of the cell."""
    text = " ".join(re.sub(r"[*`]", "", cell).casefold().split("(")[0].split())
    first = next(iter(re.findall(r"[^\W\d_]+(?:[-_][^\W\d_]+)*|[✓✗✅❌]|^[01]$", text)), "").replace("_", "-")
    if first in _OURS:
        return _OURS[first]
    return first if first != "not" and meaning(first) else text


def meaning(said: str) -> Status | None:
    """What a word means: kept, discarded or crashed; None if it is none of them, such as `iterate`."""
    first = said.split(" ")[0]
    for status, known in ((Status.KEEP, _KEEP), (Status.DISCARD, _DISCARD), (Status.CRASH, _CRASH)):
        if first in known:
            return status
    return None


def commit_column(names: Sequence[str]) -> str:
    """The heading of the commits; empty if there is none."""
    return next((name for name in COMMIT if name in names), "")


def status_column(names: Sequence[str], rows: Rows) -> str:
    """The heading of the verdicts; empty if there is none. `status: completed` beside `decision: keep` is none."""
    there = [name for name in _STATUS if name in names]
    said = [name for name in there if _mostly(rows, name, lambda cell: meaning(word(cell)) is not None)]
    return next(iter(said or [name for name in there if not _mostly(rows, name, number)]), "")


def description_column(names: Sequence[str], rows: Rows) -> str:
    """The heading of the descriptions; empty if there is none."""
    there = [name for name in _DESCRIPTION if name in names]
    return next((name for name in there if not _mostly(rows, name, number)), "")


def memory_column(names: Sequence[str]) -> tuple[str, float]:
    """The heading of the memory and its unit in MiB; empty if there is none."""
    for name in names:
        said = words(name)
        if {"memory", "mem", "vram"} & set(said) and said[-1] in _UNIT_MB:
            return name, _UNIT_MB[said[-1]]
    return "", 1.0


def metric_column(names: Sequence[str], rows: Rows, told: str = "") -> str:
    """The heading of the metric; empty if no column is known to be it.

    Args:
        names: The headings.
        rows: The cells.
        told: The metric's name, if the log says it.
    """
    if told and told in names:
        return told
    settings = any(name.startswith("param") for name in names)  # then old_value and new_value are a parameter's
    cells = {name: [row[name] for row in rows] for name in names}
    usual = [name for name in _USUAL if name in names and _holds_numbers(cells[name], empty=True)]
    others = [name for name in names if _may_be_metric(name, cells[name]) and not (settings and name.endswith("value"))]
    measured = [name for name in others if _holds_numbers(cells[name])]
    blank = [name for name in others if _holds_numbers(cells[name], empty=True)]  # a night of crashes alone

    def is_known(name: str) -> bool:
        return direction_of(name) is not None and not is_resource(name)

    classes: tuple[Callable[[str], bool], ...] = (
        lambda name: not is_resource(name) and bool(_SUMS & set(words(name))),
        lambda name: is_known(name) and bool({"val", "eval"} & set(words(name))),
        is_known,
        lambda name: not is_resource(name),
        is_resource,
    )
    ranked = [name for belongs in classes for name in measured if belongs(name)]
    return next(iter([*usual, *ranked, *filter(is_known, blank)]), "")


def metric_title(names: Sequence[str], rows: Rows, column: str, told: str) -> str:
    """The metric's name: what the log says, a column that names it in every row, or the heading."""
    for name in _METRIC_NAME:
        said = {row[name] for row in rows if row[name]} if name in names and name != column else set()
        if len(said) == 1 and number(next(iter(said))) is None:
            return said.pop()
    return told or column


def guessed_direction(rows: Sequence[tuple[Status | None, float | None]]) -> Direction | None:
    """Which way the metric improves, by all verdicts: a keep is better than the last keep, a discard mostly worse.

    None unless twice as many verdicts speak for one direction as for the other.
    """
    votes: Counter[Direction] = Counter()
    last: float | None = None
    for verdict, value in rows:
        if value is None or verdict not in (Status.KEEP, Status.DISCARD):
            continue
        if last is not None and value != last and (value or verdict is Status.KEEP):  # a discarded 0 says nothing
            rises = (value > last) == (verdict is Status.KEEP)
            votes[Direction.MAXIMIZE if rises else Direction.MINIMIZE] += 1
        last = value if verdict is Status.KEEP else last
    (first, most), (_, least) = [*votes.most_common(), (Direction.MINIMIZE, 0), (Direction.MINIMIZE, 0)][:2]
    return first if most >= max(1, 2 * least) else None


def _mostly(rows: Rows, name: str, is_so: Callable[[str], object]) -> bool:
    """Whether at least half of the cells of a column that are not empty are so."""
    said = [row[name] for row in rows if row[name].strip()]
    return bool(said) and 2 * sum(bool(is_so(cell)) for cell in said) >= len(said)


def _holds_numbers(cells: Sequence[str], empty: bool = False) -> bool:
    """Whether at least half of the cells that say something are numbers; `empty`: also if none says anything."""
    said = [cell for cell in cells if cell.strip().casefold() not in _NOTHING and meaning(word(cell)) is None]
    return 2 * sum(number(cell) is not None for cell in said) >= len(said) if said else empty


def _may_be_metric(name: str, cells: Sequence[str]) -> bool:
    said = set(words(name)) or {name}
    if said & _NEVER or name in (*COMMIT, *_STATUS[:5]) or name.endswith("_at"):
        return False
    if direction_of(name) is None and (said & _COUNTERS or _counts(cells)):
        return False
    return not (said & {"time", "times"} and any((found or 0) > _EPOCH for found in numbers(cells)))


def _counts(cells: Sequence[str]) -> bool:
    """Whether the cells are 1, 2, 3 and so on."""
    found = numbers(cells)
    return len(found) > 2 and all(a is not None and b is not None and b - a == 1 for a, b in pairwise(found))
