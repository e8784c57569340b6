"""A campaign's records as a language model is shown them: everything of the latest, ever less of the older ones.

Pure: the same records give the same text, byte for byte. What is shown of a thousand experiments stays within 75,000
bytes, and within 90,000 however many there are. Fifty numbers make a block. Once it is complete it is sealed: its text
then depends on its records and on its age in blocks, and once a campaign has over two hundred keeps, on which of those
are the largest. So between two seals the sealed part is the same to the last byte, and a prompt cache holds it.

It knows nothing of prompts; whoever shows the text must say that it is data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.run import Role
from pytest_autoresearch.proposers.quoting import line

BLOCK = 50
# A number that is missing so far behind the newest was skipped or lost: its block is sealed without it.
_PATIENCE = 16
_LAST = 10  # shown in more words, whatever became of them
# Of a block, or of what is not sealed: shown in more words while it is young, and as a line while it is not too old.
_KEEPS, _NEAREST, _CRASHES = 6, 5, 4
_MOST_KEEPS = 200  # the largest, as lines in old blocks

# Ages in blocks up to which a block is shown in this way; older ones are one line each, and their keeps.
_IN_WORDS, _AS_LINES, _NOTABLE_ONES, _WITH_AREAS = 1, 5, 11, 40
_RECENT_BYTES, _WORDS_BYTES, _LINES_BYTES, _SUMMARY_BYTES = 20_000, 11_000, 6_000, 150

# Bytes of a description; everything else that was said is cut in proportion. The widest that fits is taken.
_WIDTHS = range(120, 39, -10)
_OLD_WIDTH = 60
_USUAL = (Reason.BASELINE, Reason.IMPROVED, Reason.NOT_IMPROVED)


def history(records: Iterable[Experiment], resolution: float = 0.0) -> tuple[str, str]:
    """The sealed blocks, oldest first, and what is newer, with a summary on top of it.

    The sealed part is empty at first, and changes when a block is completed. Every text that a record holds is on one
    line and cut; a number has six decimals at most.

    Args:
        resolution: The steps in which metrics are shown; 0 for as they are. What is finer is noise and would be learnt.
    """
    judged = sorted((record for record in records if record.verdict), key=lambda record: record.number)
    judged = [coarse(record, resolution) for record in judged]
    blocks: dict[int, list[Experiment]] = {}
    for record in judged:
        blocks.setdefault(record.number // BLOCK, []).append(record)
    newest = judged[-1].number if judged else 0
    # One is never sealed before an older one: a complete block is longer than our patience.
    sealed = [
        block for index, block in sorted(blocks.items())
        if len(block) == BLOCK or newest >= (index + 1) * BLOCK + _PATIENCE - 1
    ]  # fmt: skip
    return _sealed(sealed), _recent(judged, judged[sum(map(len, sealed)) :])


def stale(records: Iterable[Experiment]) -> int:
    """How many experiments were judged since the last keep, the baseline not counted among them."""
    judged = [record for record in records if record.verdict]
    last = max((record.number for record in judged if _status(record) is Status.KEEP), default=BASELINE)
    return sum(record.number > last for record in judged)


def measured(record: Experiment) -> str:
    """What a commit of the branch has reached, and with what: nothing of it was said by anybody."""
    parts = [f"commit {record.commit[:7]}", *_used(record)]
    return f"{record.metric_name} {number(record.metric)} ({', '.join(parts)})"


def coarse(record: Experiment, resolution: float) -> Experiment:
    """The record as it is shown in steps of the resolution: one run, with the estimate as its metric."""
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
    """With six decimals at most, and in a few characters whatever it is."""
    return f"{value:{sign}.6f}" if abs(value) < 10_000 else f"{value:{sign}.7g}"


# ---------------------------------------------------------------------------------------------------- two parts


def _sealed(blocks: Sequence[list[Experiment]]) -> str:
    kept = [record for block in blocks for record in block if _status(record) is Status.KEEP]
    largest = {record.number for record in _by_gain(kept)[:_MOST_KEEPS]}
    return "\n\n".join(_block(block, len(blocks) - index, largest) for index, block in enumerate(blocks))


def _block(block: list[Experiment], age: int, largest: Collection[int]) -> str:
    """A sealed block; `largest` are the keeps that an old one still shows."""
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
    """Baseline, best, how many came to what."""
    branch = chain(judged)
    lines = ["The baseline is not measured yet."]
    if branch:
        first, best = branch[0], branch[-1]
        lines = [f"baseline {first.number:04d}: {measured(first)}"]
        if best is not first:
            total = number(first.direction.gain(best.metric, first.metric), "+")
            said = line(best.proposal.description, _WIDTHS[0])
            lines.append(f"best     {best.number:04d}: {measured(best)}, gain {total} since the baseline: {said}")
    tried = [record for record in judged if record.number != BASELINE]
    lines.append(f"{_plural(len(tried), 'experiment')}: {_counts(tried)}; {stale(judged)} since the last keep")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- selections


def _notable(records: list[Experiment]) -> set[int]:
    """Those that say most: the largest keeps, the discards that came nearest to the best, the last crashes."""
    found = {status: [record for record in records if _status(record) is status] for status in Status}
    nearest = [record for record in found[Status.DISCARD] if math.isfinite(_gain(record))]
    chosen = [
        *_by_gain(found[Status.KEEP])[:_KEEPS], *_by_gain(nearest)[:_NEAREST], *found[Status.CRASH][-_CRASHES:]
    ]  # fmt: skip
    return {record.number for record in chosen}


def _by_gain(records: Iterable[Experiment]) -> list[Experiment]:
    """The largest first; of equals the older."""
    return sorted(records, key=lambda record: (-_gain(record), record.number))


def _gain(record: Experiment) -> float:
    """How much better than the best at the time; minus infinity where there is no telling."""
    given = record.verdict.gain if record.verdict else None
    gain = record.gain if given is None and record.decision.best is not None else given
    return -math.inf if gain is None or math.isnan(gain) else gain


def _status(record: Experiment) -> Status | None:
    return record.verdict.status if record.verdict else None


# --------------------------------------------------------------------------------------------------------- words


def _fitted(text_of: Callable[[int], str], most_bytes: int) -> str:
    """The text at the largest width that stays in bounds, and at the smallest where none does."""
    for width in _WIDTHS:
        text = text_of(width)
        if len(text.encode()) <= most_bytes:
            break
    return text


def _lines(records: Iterable[Experiment], in_words: Collection[int], width: int) -> str:
    """A line each, with what was thought and what went wrong below those whose number is `in_words`."""
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
        lines.append(f"turned down: {line(ruling.message.rpartition('; ')[2], width)}")
    if record.repairs:
        mended = "; ".join(f"{repair.stage}, {line(str(repair.crash), width)}" for repair in record.repairs)
        lines.append(f"repaired: {line(mended, 3 * width // 2)}")
    return lines


def _used(record: Experiment) -> list[str]:
    """Steps and memory, where they are known."""
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
