"""`autoresearch finalize`: what of a campaign holds, as branches and as the text of a pull request."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from pytest_autoresearch.cli import output
from pytest_autoresearch.cli.output import Column
from pytest_autoresearch.cli.repository import Repository, here, tag_argument
from pytest_autoresearch.cli.signals import noted
from pytest_autoresearch.core.errors import Stopped, UserError
from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.records import to_json
from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.keeprule import ablation, audit
from pytest_autoresearch.keeprule.ablation import Findings
from pytest_autoresearch.keeprule.audit import moved
from pytest_autoresearch.ledger.ledger import Ledger
from pytest_autoresearch.ledger.stack import Stack, Step
from pytest_autoresearch.measure.auditor import check_conditions
from pytest_autoresearch.measure.conditions import setting_of
from pytest_autoresearch.measure.finalizer import Finalizer
from pytest_autoresearch.measure.remeasure import Remeasurement
from pytest_autoresearch.measure.setup import equip
from pytest_autoresearch.measure.variants import Variant
from pytest_autoresearch.reports import program_notes, progress, pull_request

_INTERRUPTED = 130
_EPILOG = f"""Runs the whole stack of kept changes, the baseline, and the stack without each change in turn, on the
same {ablation.RUNS} fresh seeds. Says what each change is worth now, and makes branches for a review:
autoresearch/TAG-final has one commit for each change, with its measured effect in the message;
autoresearch/TAG-final-0003 has the change 0003 alone, if it applies to the baseline. The campaign's
own branch and your checkout are not touched. What the campaign showed becomes a patch for program.md.
Nothing is pushed: the last lines are the commands for that.

An interrupted measurement goes on where it stopped, with the same command.

examples:
  autoresearch finalize                   what does each change do now?
  autoresearch finalize --drop            a final program without what no longer helps
  autoresearch finalize nov27 --drop 3,5  a final program without 0003 and 0005
  autoresearch finalize --budget 2x --set DEPTH=2x
                                          does the gain hold at twice the budget? at twice the depth?

exit status:
  0  done
  2  not possible now; one sentence says why
  130  stopped with Ctrl-C; the runs so far are kept
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `finalize`."""
    parser.epilog = _EPILOG
    tag_argument(parser)
    parser.add_argument(
        "--runs", type=_runs, default=ablation.RUNS, metavar="N", help=f"seeds of each program ({ablation.RUNS})"
    )
    parser.add_argument(
        "--budget", type=lambda text: Variant(budget=text), action="append", dest="variants", metavar="SECONDS",
        help="also compare first and final program with other training seconds, such as 600 or 2x; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--set", type=_values, action="append", dest="variants", metavar="NAME=VALUE,...",
        help="also compare them with other constants or environment variables, such as DEPTH=2x; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--drop", type=_numbers, nargs="?", const=(), default=None, metavar="NUMBERS",
        help="leave out what no longer helps, or the changes of these experiments, such as 3,5",
    )  # fmt: skip


def command(given: argparse.Namespace) -> int:
    """Measure, make the branches, and print what to type next."""
    repository = here(given)
    settings, ratchet = repository.settings, repository.ratchet
    records = repository.records(given.tag)
    line = chain(records)
    if len(line) < 2:
        raise UserError(f"nothing was kept in {ratchet.tag}, so there is nothing to finalize")
    stack = Stack(ratchet, line)
    stack.check_branches()
    equipment = equip(settings, ratchet)
    setting = setting_of(settings, ratchet, equipment)
    check_conditions(settings, ratchet, setting, line[-1])
    ledger = Ledger(ratchet, records, settings.root / "results.tsv", like=line[0])
    said = _Said(sys.stderr if given.json else sys.stdout)
    try:
        with noted() as came:
            measuring = Remeasurement(
                settings, ratchet, equipment.harness, setting, ledger, equipment.place(settings, ratchet),
                len(equipment.taken.lanes), said, said.say, lambda: bool(came),
            )  # fmt: skip
            with measuring.held():
                finalizer = Finalizer(stack, line, given.runs, measuring, settings.editable, given.variants or ())
                said.say(_opening(line, given.runs, *finalizer.left, len(given.variants or ())))
                found, steps = finalizer.find(given.drop)
    except Stopped as stopped:
        said.say(f"{stopped}: the runs so far are kept, and the same command goes on")
        return _INTERRUPTED if came else 2
    branches = _publish(stack, found, steps)
    path, notes = _write(repository, records, found, stack.name), _propose_notes(repository, records, found)
    if given.json:
        output.dump(_document(found, branches, path, notes))
    else:
        _print(found, branches, path, notes, stack.name)
    return 0


class _Said:
    """Prints what is said, from any thread; the progress of runs is not shown."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def note(self, number: int, progress: Progress) -> None: ...

    def note_beside(self, number: int, lane: int, progress: Progress | None) -> None: ...

    def say(self, text: str) -> None:
        with self._lock:
            print(output.line(text), file=self._stream, flush=True)

    def end(self, why: str, failed: bool = False) -> None:
        self.say(why)


def _opening(line: Sequence[Experiment], runs: int, programs: int, left: int, variants: int) -> str:
    seconds = [run.total_seconds for run in line[-1].own_runs if run.metric is not None]
    minutes = left * max(seconds, default=0.0) / 60
    time = f", about {output.duration(60 * minutes)} on one lane" if minutes >= 1 else ""
    others = f", then {2 * runs * variants} runs under other conditions" if variants else ""
    return f"finalizing {line[-1].tag}: {programs} programs on {runs} seeds, {left} runs to make{time}{others}"


def _publish(stack: Stack, found: Findings, steps: Sequence[Step]) -> dict[str, str]:
    """Make the branches; their last commits by name, the final program first."""
    effects = {one.keep.number: one for one in found.effects}
    messages = [(step, pull_request.message(effects[step.keep.number], found, alone=False)) for step in steps]
    made = {stack.name: stack.publish(stack.name, messages)}
    for one in found.effects:
        alone = stack.alone(one.keep)
        if alone is not None and one.keep.number not in found.dropped and len(found.effects) > 1:
            name = stack.branch_of(one.keep)
            made[name] = stack.publish(name, [(alone, pull_request.message(one, found, alone=True))])
    return made


def _write(repository: Repository, records: Sequence[Experiment], found: Findings, branch: str) -> Path:
    """Write the text of the pull request and, with matplotlib, the picture beside it."""
    folder = repository.settings.campaign_artifacts(found.tag).make()
    picture = ""
    if progress.available():
        progress.draw(records, folder / "pull-request.png")
        picture = "pull-request.png"
    audited = audit.of(repository.ratchet.audits(), found.line)
    path = folder / "pull-request.md"
    path.write_text(pull_request.text(found, branch, audit.sentence(audited) if audited else "", picture), "utf-8")
    return path


def _propose_notes(repository: Repository, records: Sequence[Experiment], found: Findings) -> Path:
    """Write the patch of program.md."""
    page = repository.root / "program.md"
    before = page.read_bytes().decode("utf-8", "surrogateescape") if page.is_file() else ""
    patch = program_notes.patch(before, program_notes.section(records, found), found.tag)
    path = repository.settings.campaign_artifacts(found.tag).make() / "program.patch"
    path.write_bytes(patch.encode("utf-8", "surrogateescape"))
    return path


def _print(found: Findings, branches: dict[str, str], path: Path, notes: Path, name: str) -> None:
    metric = found.line[-1].metric_name
    print(output.colour(f"finalized {found.tag}: {pull_request.title(found)}", "bold") + "\n")
    now = ["" if one.now is None else moved(one.now, found.direction) for one in found.effects]
    columns = [
        (Column("no.", right=True), [f"{one.keep.number:04d}" for one in found.effects]),
        (Column(f"{metric[:16]} with it, now"), now),
        (Column(""), [pull_request.standing(one, found) for one in found.effects]),
        (Column("description"), [output.line(one.keep.proposal.short) for one in found.effects]),
    ]
    print(output.told(columns))
    for one in found.effects:
        if one.now is None:
            print(output.line(f"{one.keep.number:04d} {one.standing}: {one.why}"))
    if found.dropped and found.final is not None:
        print(f"the final program against the whole stack: {metric} {moved(found.final, found.direction)}")
    elif found.idle:
        numbers = ", ".join(f"{number:04d}" for number in found.idle)
        print(f"no longer earns its place: {numbers}; without: autoresearch finalize {found.tag} --drop")

    for transfer in found.transfers:
        print(output.line(pull_request.transfer_line(transfer, found)))
    print()
    final, *others = branches
    told = [("final program", f"git log -p {found.line[0].commit[:7]}..{final}")]
    if others:
        told.append(("each change alone", f"git branch --list {shlex.quote(f'{name}-*')}"))
    told.append(("program.md", f"git apply {shlex.quote(str(notes))}"))
    told.append(("pull request", str(path)))
    told.append(("to open it", f"git push -u origin {final}"))
    told.append(("", f"gh pr create --head {final} --title {shlex.quote(pull_request.title(found))} --body-file "
                     f"{shlex.quote(str(path))}"))  # fmt: skip
    print(output.pairs(told))


def _document(found: Findings, branches: dict[str, str], path: Path, notes: Path) -> dict[str, object]:
    """The findings for programs."""
    return {
        "tag": found.tag,
        "metric_name": found.line[-1].metric_name,
        "direction": found.direction,
        "seeds": found.seeds,
        "whole": to_json(found.whole),
        "effects": [
            {"number": one.keep.number, "description": one.keep.proposal.description, "now": to_json(one.now),
             "standing": one.standing, "why": one.why, "dropped": one.keep.number in found.dropped}
            for one in found.effects
        ],
        "final": to_json(found.final),
        "transfers": [{"name": one.name, "gain": to_json(one.gain), "words": one.words} for one in found.transfers],
        "branches": branches,
        "pull_request": str(path),
        "notes": str(notes),
    }  # fmt: skip


def _runs(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < ablation.LEAST_RUNS:
        raise argparse.ArgumentTypeError(f"give a whole number, {ablation.LEAST_RUNS} or more")
    return count


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError("give numbers of experiments, such as 3,5; name the campaign before --drop")
    return tuple(int(part) for part in parts)


def _values(text: str) -> Variant:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(re.fullmatch(r"[A-Za-z_]\w*", name) and sign and value for name, sign, value in pairs):
        raise argparse.ArgumentTypeError("give NAME=VALUE, such as DEPTH=2x or DEPTH=16,WIDTH=512")
    return Variant(values=tuple((name, value) for name, _, value in pairs))
