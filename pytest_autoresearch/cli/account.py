"""One experiment in words: the proposal, the verdict and its reason, runs and cost.

Pure: record in, text out; prints nothing.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.cli.rows import finite
from pytest_autoresearch.core.experiment import Experiment, Verdict
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.reports.summary import limits_line, plural, reason_words, usage_line

_NAMES = len("best before")
_WIDTH = 84  # of a text beside its name, so that a line has at most 100 columns


def sections(
    experiment: Experiment, known: dict[str, int], artifacts: str, *, several_lanes: bool
) -> Iterable[tuple[str, str]]:  # fmt: skip
    """Non-empty blocks of text, each with its heading, which may be empty.

    Args:
        experiment: With or without a verdict.
        known: The numbers of the experiments by commit.
        artifacts: The folder of its files, or a note that they are gone.
        several_lanes: Whether the campaign's runs were on several lanes.
    """
    about = (
        ("", _proposal(experiment)),
        ("", _verdict(experiment)),
        ("runs", _runs(experiment, known, several_lanes)),
        ("repairs", _repairs(experiment)),
        ("", _cost(experiment)),
        ("", _surroundings(experiment)),
        ("", _places(experiment, known, artifacts)),
    )
    return ((heading, text) for heading, text in about if text)


def _proposal(experiment: Experiment) -> str:
    proposal = experiment.proposal
    by = " ".join(word for word in (proposal.proposer, f"({proposal.source})" if proposal.source else "") if word)
    constants = experiment.constants or proposal.parameters
    return output.pairs(
        [
            ("description", _wrapped(proposal.description)),
            ("hypothesis", _wrapped(proposal.hypothesis)),
            ("expected", _wrapped(proposal.expected)),
            ("area", _wrapped(proposal.area)),
            ("proposer", _wrapped(by)),
            ("constants", _wrapped(", ".join(f"{name} = {value}" for name, value in constants.items()))),
            ("repeats", proposal.repeats[:7] or None),
            ("planned as", None if experiment.planned_number is None else f"{experiment.planned_number:04d}"),
            ("told", _wrapped("; ".join(experiment.heard))),
            ("notes", _wrapped(experiment.notes)),
        ],
        least=_NAMES,
    )


def _verdict(experiment: Experiment) -> str:
    ruling, crash = experiment.verdict, experiment.crash
    metric, best = finite(experiment.metric), experiment.decision.best
    gain = ruling.gain if ruling else None
    return output.pairs(
        [
            ("verdict", _wrapped(_ruling(ruling)) if ruling else "none yet"),
            ("crash", _wrapped(str(crash)) if crash and ruling and crash.message not in ruling.message else None),
            ("hopeless", _wrapped(experiment.hopeless)),
            (
                experiment.metric_name[:20],
                None if crash or metric is None else f"{metric:.6f} {_rests_on(experiment)}",
            ),
            ("best before", None if best is None else f"{best:.6f}"),
            ("gain", f"{gain:+.6f} (needed {experiment.margin:.6f})" if gain is not None and not crash else None),
            ("probability", _probability(experiment)),
            (
                "evidence",
                _wrapped(experiment.decision.evidence)
                if ruling and experiment.decision.evidence not in ruling.message
                else None,
            ),
            ("simpler", "by 1% or more" if experiment.simpler else None),
        ],
        least=_NAMES,
    )


def _rests_on(experiment: Experiment) -> str:
    """What the metric comes from."""
    if experiment.share is not None:
        others = plural(experiment.share.size - 1, "other proposal")
        return f"by its effect in {plural(experiment.share.runs, 'run')} with {others}"
    return f"from {plural(sum(run.metric is not None for run in experiment.own_runs), 'run')}"


def _ruling(ruling: Verdict) -> str:
    reason = "" if ruling.message.startswith(ruling.reason) else f" ({reason_words(ruling.reason)})"
    return f"{ruling.status}{reason}: {ruling.message}"


def _probability(experiment: Experiment) -> str | None:
    if experiment.decision.probability is None:
        return None
    return f"{experiment.decision.probability:.3f} that it is better than the best before"


def _runs(experiment: Experiment, known: dict[str, int], several_lanes: bool) -> str:
    """A line for each training process, and notes on them below; a note that several share has all their numbers."""
    rows: list[tuple[str, ...]] = []
    notes: dict[str, list[str]] = {}
    by_two = any(run.allocator_mb is not None and run.memory_from != "resident" for run in experiment.runs)
    for n, run in enumerate(experiment.runs, 1):
        rows.append(
            (
                str(n),
                f"{run.role} {_of(run, known)}".rstrip(),
                *([str(run.lane)] if several_lanes else []),
                str(run.seed),
                run.crash.reason if run.crash else "-" if run.metric is None else f"{run.metric:.6f}",
                f"{run.training_seconds:.1f}",
                f"{run.startup_seconds:.1f}",
                f"{run.score_seconds:.1f}",
                f"{run.total_seconds:.1f}",
                output.memory(run.peak_memory_mb),
                *(["-" if run.allocator_mb is None else output.memory(run.allocator_mb)] if by_two else []),
            )
        )
        for note in _notes(run):
            notes.setdefault(note, []).append(str(n))
    if not rows:
        return ""
    names = [
        "run",
        "role",
        *(["lane"] if several_lanes else []),
        "seed",
        experiment.metric_name[:14],
        "train s",
        "start s",
        "score s",
        "all s",
    ]
    names += ["driver", "allocator"] if by_two else ["memory"]
    columns = [Column(name, right=name not in ("run", "role")) for name in names]
    return "\n".join(
        [
            output.table(rows, columns),
            *(_wrapped(f"{', '.join(runs)}: {note}", 98) or "" for note, runs in notes.items()),
        ]
    )


def _of(run: Run, known: dict[str, int]) -> str:
    """The commit of a run, if it is not the experiment's own."""
    if not run.commit:
        return ""
    return f"of {known[run.commit]:04d}" if run.commit in known else f"of {run.commit[:7]}"


def _notes(run: Run) -> list[str]:
    notes = []
    if run.crash:
        notes.append(f"{run.crash.message}" + ("" if run.exit_status is None else f" (exit status {run.exit_status})"))
    if run.ended_with_model:
        notes.append(
            f"its model was complete, so it was ended at the end of its budget (exit status {run.exit_status})"
        )
    if run.hopeless:
        notes.append(f"{'stopped early' if run.stopped else 'control run, not stopped'}: {run.hopeless}")
    if run.role is Role.EXTRA:
        notes.append("made beside another run; the verdict did not need it, so it counts for later experiments only")
    if run.inconclusive:
        notes.append(f"inconclusive, not counted: {run.inconclusive}")
    if run.reported is not None and run.metric is not None and abs(run.reported - run.metric) > 5e-7:
        notes.append(f"training printed {run.reported:.6f}")
    if run.variables:
        notes.append("with " + " ".join(f"{name}={value}" for name, value in run.variables.items()))
    if run.others:
        notes.append(f"also on the GPU: {', '.join(run.others)}")
    if run.throttling:
        notes.append("clock throttled: " + ", ".join(f"{why} {part:.0%}" for why, part in run.throttling.items()))
    return notes


def _repairs(experiment: Experiment) -> str:
    said = [
        (f"{repair.stage} {repair.commit[:7]}".rstrip(), _wrapped(f"{repair.crash} (sent back to the proposer)"))
        for repair in experiment.repairs
    ]
    return output.pairs(said, least=_NAMES)


def _cost(experiment: Experiment) -> str:
    stages = sorted(experiment.timings.items(), key=lambda stage: -stage[1])
    timings = ", ".join(f"{name} {output.duration(seconds)}" for name, seconds in stages)
    return output.pairs(
        [
            ("time", _wrapped(f"{output.duration(experiment.seconds)}: {timings}") if timings else None),
            ("ended", _local(experiment.finished_at) if experiment.finished_at else None),
            ("proposals", _wrapped(usage_line(experiment.usage))),
        ],
        least=_NAMES,
    )


def _surroundings(experiment: Experiment) -> str:
    setting = experiment.setting
    return output.pairs(
        [
            ("limits", _wrapped(limits_line(experiment.limits))),
            ("hardware", _wrapped(setting.hardware_key)),
            ("profile", setting.profile or None),
            ("sandbox", _wrapped(setting.sandbox)),
            ("harness", setting.harness_hash or None),
            ("data", setting.data_hash or None),
            ("program.md", experiment.program_hash or None),
        ],
        least=_NAMES,
    )


def _places(experiment: Experiment, known: dict[str, int], artifacts: str) -> str:
    base = f"{experiment.base[:7]}" + (f" ({known[experiment.base]:04d})" if experiment.base in known else "")
    alone = experiment.commit == experiment.base or not experiment.number
    lines = f"+{experiment.lines_added} -{experiment.lines_removed} lines: git diff {experiment.base[:7]} "
    return output.pairs(
        [
            ("commit", experiment.commit),
            ("base", base if experiment.number else None),
            ("change", None if alone else f"{lines}{experiment.commit[:7]}"),
            ("record", f"refs/autoresearch/{experiment.tag}/{experiment.number:04d}"),
            ("files", artifacts),
        ],
        least=_NAMES,
    )


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _wrapped(text: str, room: int = _WIDTH) -> str | None:
    """The text in lines that fit; None if it is empty."""
    lines = [textwrap.wrap(one, room, break_on_hyphens=False) or [""] for one in output.plain(text).split("\n")]
    return "\n".join(part for one in lines for part in one).strip("\n") or None
