"""What a campaign showed, as a section for `program.md`, and as a patch that a person reads and applies. Pure.

`program.md` is an instruction for the next proposer, and descriptions are the words of the last one. So they are
quoted, short and on one line; the rest of the section is made of numbers.
"""

from __future__ import annotations

import difflib
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.text import shortened
from pytest_autoresearch.keeprule.ablation import Effect, Findings, Standing
from pytest_autoresearch.keeprule.audit import moved
from pytest_autoresearch.reports.plain import line as plain_line

_MOST_DISCARDS = 15  # the nearest misses
_SAID = 100  # characters of a description
_END = "\\ No newline at end of file\n"


def section(records: Sequence[Experiment], found: Findings) -> str:
    """The section in Markdown."""
    name = found.line[-1].metric_name
    whole = f" {name} is {moved(found.whole, found.direction)}." if found.whole else ""
    parts = [
        _heading(found.tag) + "\n",
        f"{len(found.effects)} of {len(records) - 1} experiments were kept.{whole} Each kept change was measured again "
        f"on {found.seeds} fresh seeds.\n",
    ]
    lists = {
        "Helped": _effects(found, Standing.HELPS),
        "Kept, but unclear": _effects(found, Standing.UNCLEAR),
        "Kept, but no longer helps beside the others": _effects(found, Standing.IDLE),
        "Did not help, nearest misses first": _discards(records),
        "Surprises": list(_surprises(found)),
        "Facts": list(_facts(records, found)),
    }
    for title, lines in lists.items():
        if lines:
            parts.append("\n".join([f"{title}:\n", *(f"- {each}" for each in lines)]) + "\n")
    return "\n".join(parts)


def patch(before: str, section: str, tag: str, path: str = "program.md") -> str:
    """The patch that adds the section at the end of the page, or replaces an earlier one of the same campaign."""
    head = _heading(tag)
    lines = before.splitlines(keepends=True)
    at = next((place for place, line in enumerate(lines) if line.rstrip() == head), len(lines))
    end = next((place for place in range(at + 1, len(lines)) if lines[place].startswith("## ")), len(lines))
    rest = lines[end:]
    front = "".join(lines[:at]).rstrip("\r\n")
    after = f"{front}\n\n{section}" + (f"\n{''.join(rest)}" if rest else "")
    made = difflib.unified_diff(lines, after.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n{_END}" for line in made)


def _heading(tag: str) -> str:
    return f"## What the campaign {tag} showed"


def _effects(found: Findings, standing: Standing) -> list[str]:
    some = [one for one in found.effects if one.standing is standing and one.now is not None]
    some.sort(key=lambda one: -one.now.gain if one.now else 0.0)
    return [f"{_named(one.keep)}: {_now(one)}" for one in some]


def _discards(records: Sequence[Experiment]) -> list[str]:
    """The discards with their change of the metric; those nearest to a gain first."""
    failed = [one for one in records if one.verdict and one.verdict.status is Status.DISCARD]
    known = [(one.verdict.gain, one) for one in failed if one.verdict and one.verdict.gain is not None]
    known.sort(key=lambda pair: -pair[0])
    lines = [f"{_named(one)}: {_change(one, gain)}" for gain, one in known[:_MOST_DISCARDS]]
    if more := len(failed) - len(lines):
        lines.append(f"and {more} more")
    return lines


def _surprises(found: Findings) -> Iterator[str]:
    for one in found.effects:
        best, now = one.keep.decision.best, one.now
        if best is None or now is None:
            continue
        then = one.keep.direction.gain(one.keep.metric, best)
        if now.gain < then / 2 and now.gain + now.margin < then:
            yield f"{_named(one.keep)} does less now: {_now(one)}; when it was kept, {abs(then):.4g}"
        elif now.gain > 2 * then and now.gain - now.margin > then:
            yield f"{_named(one.keep)} does more beside the others: {_now(one)}; when it was kept, {abs(then):.4g}"
    for each in found.transfers:
        if each.gain is not None and each.gain.gain <= each.gain.margin:
            yield f"at {plain_line(each.name)}, the whole gain is {moved(each.gain, found.direction)}: {each.words}"


def _facts(records: Sequence[Experiment], found: Findings) -> Iterator[str]:
    baseline = next(one for one in records if one.number == BASELINE)
    metrics = [run.metric for run in baseline.own_runs if run.metric is not None]
    if len(metrics) > 1 and (sd := statistics.stdev(metrics)) > 0:
        yield f"two runs of one program differ by {sd:.2g} (standard deviation over seeds)"
    crashes = Counter(
        one.verdict.reason for one in records if one.verdict is not None and one.verdict.status is Status.CRASH
    )
    if crashes:
        counts = (f"{count} of the class {plain_line(kind)}" for kind, count in crashes.most_common())
        yield f"crashes: {', '.join(counts)}"
    for each in found.transfers:
        if each.gain is not None and each.gain.gain > each.gain.margin:
            yield f"at {plain_line(each.name)}, the whole gain is {moved(each.gain, found.direction)}"


def _named(one: Experiment) -> str:
    words = shortened(plain_line(one.proposal.description).replace("`", "'"), _SAID)
    return f"`{words}` ({one.number:04d})"


def _now(one: Effect) -> str:
    return moved(one.now, one.keep.direction) if one.now else one.why


def _change(one: Experiment, gain: float) -> str:
    worse = "better" if gain > 0 else "worse"
    return f"{abs(gain):.4g} {worse}" if gain else "the same"
