"""A finished campaign for reviewers: the messages of its commits, and the text of a pull request in Markdown. Pure."""

from __future__ import annotations

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.text import one_line
from pytest_autoresearch.keeprule.ablation import Effect, Findings, Transfer
from pytest_autoresearch.keeprule.audit import Difference, moved
from pytest_autoresearch.reports.step_summary import text as cell


def message(effect: Effect, found: Findings, alone: bool) -> str:
    """The message of the commit with one keep.

    Args:
        alone: Whether the commit has this keep only, on the baseline.
    """
    keep = effect.keep
    parts = [one_line(keep.proposal.description), one_line(keep.proposal.hypothesis)]
    if effect.now is None:
        told = f"Its effect of its own is not known: {effect.why}."
    else:
        told = (
            f"{keep.metric_name} is {moved(effect.now, keep.direction)} (95%) with this change than without it, in the "
            f"stack of {len(found.effects)} kept changes, on {found.seeds} fresh seeds: {effect.standing}."
        )
    parts.append(told + (" It was not measured alone." if alone and len(found.effects) > 1 else ""))
    parts.append(f"When it was kept: {_then(keep)}.\nRecord: refs/autoresearch/{found.tag}/{keep.number:04d}")
    return "\n\n".join(part for part in parts if part)


def text(found: Findings, branch: str, audit: str, figure: str) -> str:
    """The text of the pull request.

    Args:
        branch: The final program's branch.
        audit: The sentence of the campaign's audit; empty without one.
        figure: The name of a picture beside the text; empty without one.
    """
    name, last = found.line[-1].metric_name, found.line[-1]
    kept = [one for one in found.effects if one.keep.number not in found.dropped]
    parts = [
        f"# {title(found)}",
        f"{len(kept)} changes of the campaign `{found.tag}`, one commit each on `{branch}`. {_whole(found)}",
    ]
    if figure:
        parts.append(f"<!-- drag {figure} here -->")
    head = ["change", f"{name} then", "effect now (95%)", "", "record"]
    rows = [
        [
            cell(one.keep.proposal.description),
            _then(one.keep),
            _now(one),
            standing(one, found),
            f"`{one.keep.number:04d}`",
        ]
        for one in found.effects
    ]
    parts += ["## What each change does", _table(head, rows)]
    parts.append(
        f"*Effect now*: the program with all changes against the program without this one, on the same {found.seeds} "
        "fresh seeds. The effects need not add up to the whole."
    )
    if found.dropped:
        numbers = ", ".join(f"{number:04d}" for number in found.dropped)
        final = f": {name} is {moved(found.final, found.direction)} (95%) than with them" if found.final else ""
        parts.append(f"The final program lacks {numbers}{final}.")
    if found.transfers:
        parts += ["## Under other conditions", _table(
            ["conditions", "final against first (95%)", ""],
            [[cell(one.name), _moved(one.gain, found), one.words] for one in found.transfers],
        )]  # fmt: skip
    parts += ["## How it was measured", _conditions(found, audit, last)]
    return "\n\n".join(parts) + "\n"


def title(found: Findings) -> str:
    """One line for the pull request."""
    name = found.line[-1].metric_name
    return f"{name} {moved(found.whole, found.direction)}" if found.whole else f"Changes of the campaign {found.tag}"


def transfer_line(one: Transfer, found: Findings) -> str:
    """The gain under other conditions, for the terminal."""
    gain = f"{found.line[-1].metric_name} {moved(one.gain, found.direction)}: " if one.gain else ""
    return f"at {one.name}: {gain}{one.words}"


def _whole(found: Findings) -> str:
    if found.whole is None:
        return "The first and the last program could not be compared: too many runs crashed."
    name = found.line[-1].metric_name
    return f"Together, {name} is {moved(found.whole, found.direction)} (95%), on {found.seeds} fresh seeds."


def _conditions(found: Findings, audit: str, last: Experiment) -> str:
    setting, limits = last.setting, last.limits
    lines = [f"- {limits.budget_seconds:g} s of training on {cell(setting.hardware_key) or 'one machine'}"]
    lines.append(f"- commits `{found.line[0].commit[:12]}` (first) and `{last.commit[:12]}` (last of the campaign)")
    lines.append(f"- {audit}" if audit else f"- not audited: `autoresearch audit {found.tag}`")
    lines.append(f"- all experiments, kept or not, once pushed: `autoresearch pull --tag {found.tag}`")
    return "\n".join(lines)


def _then(keep: Experiment) -> str:
    best = keep.decision.best
    return f"{keep.metric:.6g}" if best is None else f"{keep.metric - best:+.6g} to {keep.metric:.6g}"


def _now(one: Effect) -> str:
    return cell(one.why) if one.now is None else moved(one.now, one.keep.direction)


def standing(one: Effect, found: Findings) -> str:
    """Whether a keep earns its place, and whether it was dropped."""
    return f"{one.standing}, dropped" if one.keep.number in found.dropped else str(one.standing)


def _moved(gain: Difference | None, found: Findings) -> str:
    return moved(gain, found.direction) if gain else ""


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
