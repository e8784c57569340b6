"""A campaign's records as text for a language model: the latest in full, older ones in less and less detail.

Pure: the same records give the same text, byte for byte. A thousand experiments take at most 75,000 bytes, and any
number at most 90,000. Fifty numbers make a block. A complete block is sealed: its text then depends only on its
records, on its age in blocks and, in a campaign with over two hundred keeps, on which keeps are the largest. So the
sealed part stays the same between two seals, and a prompt cache holds it.

It knows nothing of prompts; the caller must mark the text as data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status
from pytest_autoresearch.core.history import chain, taken_back
from pytest_autoresearch.core.run import Role
from pytest_autoresearch.proposers.quoting import line

BLOCK = 50
# If a number is missing and the newest is this far ahead, the number was skipped: its block is sealed without it.
_PATIENCE = 16
_LAST = 10  # shown in more detail, whatever their verdict
# The notable ones of a block: shown in more detail in a young block, as a line in an older one.
_KEEPS, _NEAREST, _CRASHES = 6, 5, 4
_MOST_KEEPS = 200  # the largest, as lines in old blocks

# Up to these ages, in blocks, a block is shown in this way; older blocks are one line each, plus their keeps.
_IN_WORDS, _AS_LINES, _NOTABLE_ONES, _WITH_AREAS = 1, 5, 11, 40
_RECENT_BYTES, _WORDS_BYTES, _LINES_BYTES, _SUMMARY_BYTES = 20_000, 11_000, 6_000, 150

# Bytes of a description; other texts are cut in proportion. The largest width that fits is used.
_WIDTHS = range(120, 39, -10)
_OLD_WIDTH = 60
_USUAL = (Reason.BASELINE, Reason.IMPROVED, Reason.NOT_IMPROVED)


def history(records: Iterable[Experiment], resolution: float = 0.0) -> tuple[str, str]:
    """The sealed blocks, oldest first, and the newer records below a summary.

    The sealed part is empty at first and changes when a block is completed. Every text of a record is cut and on one
    line; a number has at most six decimals.

    Args:
        resolution: Metrics are rounded to multiples of this, so that a model does not learn noise; 0 for no rounding.
    """
    judged = sorted((record for record in records if record.verdict), key=lambda record: record.number)
    judged = [coarse(record, resolution) for record in judged]
    blocks: dict[int, list[Experiment]] = {}
    for record in judged:
        blocks.setdefault(record.number // BLOCK, []).append(record)
    newest = judged[-1].number if judged else 0
    # No block is sealed before an older one, because a block is longer than _PATIENCE.
    sealed = [
        block for index, block in sorted(blocks.items())
        if len(block) == BLOCK or newest >= (index + 1) * BLOCK + _PATIENCE - 1
    ]  # fmt: skip
    return _sealed(sealed), _recent(judged, judged[sum(map(len, sealed)) :])


def stale(records: Iterable[Experiment]) -> int:
    """How many experiments were judged since the last keep; the baseline counts as a keep."""
    judged = [record for record in records if record.verdict]
    last = max((record.number for record in judged if _status(record) is Status.KEEP), default=BASELINE)
    return sum(record.number > last for record in judged)


def measured(record: Experiment) -> str:
    """A commit's metric with its steps and memory; contains no text from a proposer."""
    parts = [f"commit {record.commit[:7]}", *_used(record)]
    return f"{record.metric_name} {number(record.metric)} ({', '.join(parts)})"


def coarse(record: Experiment, resolution: float) -> Experiment:
    """The record with metrics rounded to the resolution: a single run, with the estimate as its metric."""
    run = record.last_run
    if not resolution or run is None or not record.measured:
        return record
    ruling, best = record.verdict, record.decision.best
    if ruling and ruling.gain is not None:
        ruling = replace(ruling, gain=_in_steps(ruling.gain, resolution))
    return replace(
        record, runs=(replace(run, metric=_in_steps(record.metric, resolution), role=Role.CONFIRM),), verdict=ruling,
        decision=replace(record.decision, best=None if best is None else _in_steps(best, resolution)),
    )  # fmt: skip


def _in_steps(value: float, step: float) -> float:
    steps = value / step
    return round(steps) * step if math.isfinite(steps) else value


def number(value: float, sign: str = "") -> str:
    """A short form of the number, with at most six decimals."""
    return f"{value:{sign}.6f}" if abs(value) < 10_000 else f"{value:{sign}.7g}"


# ---------------------------------------------------------------------------------------------------- two parts


def _sealed(blocks: Sequence[list[Experiment]]) -> str:
    kept = [record for block in blocks for record in block if _status(record) is Status.KEEP]
    largest = {record.number for record in _by_gain(kept)[:_MOST_KEEPS]}
    return "\n\n".join(_block(block, len(blocks) - index, largest) for index, block in enumerate(blocks))


def _block(block: list[Experiment], age: int, largest: Collection[int]) -> str:
    """A sealed block; `largest` are the keeps that an old block still shows."""
    if age <= _IN_WORDS:
        text = _fitted(lambda width: _lines(block, _notable(block), width), _WORDS_BYTES)
    elif age <= _AS_LINES:
        text = _fitted(lambda width: _lines(block, (), width), _LINES_BYTES)
    else:
        shown = {record.number for record in block if _status(record) is Status.KEEP and record.number in largest}
        if age <= _NOTABLE_ONES:
            shown |= _notable([record for record in block if _status(record) is not Status.KEEP])
        text = _lines([record for record in block if record.number in shown], (), _OLD_WIDTH)
    return f"{_summary(block, with_areas=age <= _WITH_AREAS)}\n{text}".rstrip("\n")


def _recent(judged: list[Experiment], unsealed: list[Experiment]) -> str:
    if not judged:
        return "No experiment has been judged yet, not even the baseline."
    last = judged[-_LAST:]
    shown = unsealed if len(unsealed) > len(last) else last
    in_words = _notable(unsealed) | {record.number for record in last}
    top = _standing(judged)
    text = _fitted(lambda width: _lines(shown, in_words, width), _RECENT_BYTES - len(top.encode()))
    return f"{top}\n\n{text}"


def _standing(judged: list[Experiment]) -> str:
    """The baseline, the best, and the counts of verdicts."""
    branch = chain(judged)
    lines = ["The baseline is not measured yet."]
    if branch:
        first, best = branch[0], branch[-1]
        lines = [f"baseline {first.number:04d}: {measured(first)}"]
        if best is not first:
            total = number(first.direction.gain(best.metric, first.metric), "+")
            said = line(best.proposal.description, _WIDTHS[0])
            lines.append(f"best     {best.number:04d}: {measured(best)}, gain {total} since the baseline: {said}")
    gone = taken_back(judged)
    if numbers := [f"{record.number:04d}" for record in judged if record.commit in gone]:
        lines.append(
            f"taken back, so not in the code: {', '.join(numbers[-_LAST:])}; the program was rejected when it ran again"
        )
    tried = [record for record in judged if record.number != BASELINE]
    lines.append(f"{_plural(len(tried), 'experiment')}: {_counts(tried)}; {stale(judged)} since the last keep")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- selections


def _notable(records: list[Experiment]) -> set[int]:
    """The most informative records: the largest keeps, the discards nearest to the best, the last crashes."""
    found = {status: [record for record in records if _status(record) is status] for status in Status}
    nearest = [record for record in found[Status.DISCARD] if math.isfinite(_gain(record))]
    chosen = [
        *_by_gain(found[Status.KEEP])[:_KEEPS], *_by_gain(nearest)[:_NEAREST], *found[Status.CRASH][-_CRASHES:]
    ]  # fmt: skip
    return {record.number for record in chosen}


def _by_gain(records: Iterable[Experiment]) -> list[Experiment]:
    """The largest gain first; for equal gains, the older record first."""
    return sorted(records, key=lambda record: (-_gain(record), record.number))


def _gain(record: Experiment) -> float:
    """How much better than the best at the time; minus infinity if unknown."""
    given = record.verdict.gain if record.verdict else None
    gain = record.gain if given is None and record.decision.best is not None else given
    return -math.inf if gain is None or math.isnan(gain) else gain


def _status(record: Experiment) -> Status | None:
    return record.verdict.status if record.verdict else None


# --------------------------------------------------------------------------------------------------------- words


def _fitted(text_of: Callable[[int], str], most_bytes: int) -> str:
    """The text at the largest width that fits, or at the smallest if none fits."""
    for width in _WIDTHS:
        text = text_of(width)
        if len(text.encode()) <= most_bytes:
            break
    return text


def _lines(records: Iterable[Experiment], in_words: Collection[int], width: int) -> str:
    """A line for each record; below those in `in_words` also hypothesis and failure."""
    lines = []
    for record in records:
        lines.append(_line(record, width))
        if record.number in in_words:
            lines += [f"  {more}" for more in _more(record, width)]
    return "\n".join(lines)


def _line(record: Experiment, width: int) -> str:
    """Number, verdict, metric, gain, size of the edit, description."""
    status, reason = (record.verdict.status, record.verdict.reason) if record.verdict else ("running", "")
    said = f"{record.number:04d} {status}"
    if reason and reason not in _USUAL:
        said += f" ({line(reason, 20)})"
    if status is not Status.CRASH and record.measured:
        said += f" {number(record.metric)}"
        if math.isfinite(_gain(record)):
            said += f", gain {number(_gain(record), '+')}"
    if record.lines_added or record.lines_removed:
        said += f", +{record.lines_added}/-{record.lines_removed} lines"
    return f"{said}: {line(record.proposal.description, width)}"


def _more(record: Experiment, width: int) -> list[str]:
    proposal, ruling = record.proposal, record.verdict
    lines = []
    if proposal.hypothesis:
        lines.append(f"because: {line(proposal.hypothesis, 2 * width)}")
    facts = [f"area {line(proposal.area, width // 3)}"] if proposal.area else []
    facts += _used(record)
    if facts:
        lines.append(", ".join(facts))
    if record.crash is not None:
        lines.append(f"crash: {line(record.crash.message, 3 * width // 2)}")
    elif ruling and ruling.status is Status.DISCARD and ruling.reason not in _USUAL:
        lines.append(f"failed: {line(ruling.message.rpartition('; ')[2], width)}")
    if record.repairs:
        mended = "; ".join(f"{repair.stage}, {line(str(repair.crash), width)}" for repair in record.repairs)
        lines.append(f"repaired: {line(mended, 3 * width // 2)}")
    return lines


def _used(record: Experiment) -> list[str]:
    """Steps and memory, if known."""
    used = []
    steps = record.last_run.metrics.get("num_steps") if record.last_run else None
    if steps is not None and math.isfinite(steps):
        used.append(f"{steps:.7g} steps")
    if record.peak_memory_mb:
        used.append(f"{record.peak_memory_mb:.0f} MB")
    return used


def _summary(block: list[Experiment], with_areas: bool) -> str:
    """A block in one line."""
    first = block[0].number // BLOCK * BLOCK
    tried = [record for record in block if record.number != BASELINE]
    said = f"{first:04d}-{first + BLOCK - 1:04d}: {_counts(tried)}"
    best = max((_gain(record) for record in tried if math.isfinite(_gain(record))), default=None)
    if best is not None:
        said += f"; best gain {number(best, '+')}"
    if with_areas:
        areas = Counter(line(record.proposal.area, 24).lower() for record in tried if record.proposal.area)
        common = sorted(areas.items(), key=lambda pair: (-pair[1], pair[0]))
        said += "; areas: " * bool(areas) + ", ".join(f"{area} {count}" for area, count in common)
    return line(said, _SUMMARY_BYTES)


def _counts(records: list[Experiment]) -> str:
    count = Counter(map(_status, records))
    return ", ".join(_plural(count[status], status, "es" if status is Status.CRASH else "s") for status in Status)


def _plural(count: int, word: str, ending: str = "s") -> str:
    return f"{count} {word}{'' if count == 1 else ending}"
