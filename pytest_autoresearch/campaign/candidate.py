"""From an edit in a lane's worktree to a committed candidate: what is checked, what is recorded of the edit.

Runs on the lane's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_autoresearch.campaign.common import Common
from pytest_autoresearch.campaign.dialogue import Dialogue
from pytest_autoresearch.campaign.in_flight import InFlight
from pytest_autoresearch.core.errors import NearDuplicate, Refused
from pytest_autoresearch.core.experiment import Constant, Experiment, Proposal
from pytest_autoresearch.keeprule.racing import distorts
from pytest_autoresearch.ledger.git import DIFF
from pytest_autoresearch.ledger.worktree import Worktree
from pytest_autoresearch.source import fingerprint, guard, near_duplicates

_SIMPLER = 0.01  # a program that is smaller by this share is simpler


@dataclass(frozen=True, slots=True)
class CheckedEdit:
    """An edit that may be committed.

    Attributes:
        program: The digest of the program that it makes.
        constants: The constants that it sets, if it does nothing else.
        simpler: Whether the program is smaller than its base's.
    """

    program: str
    constants: Mapping[str, Constant]
    simpler: bool


def check(common: Common, dialogue: Dialogue, proposal: Proposal, tree: Worktree) -> CheckedEdit:
    """Check the edit in the tree.

    Raises:
        Refused: The edit may not be tried; says why.
    """
    base, editable = dialogue.base, common.editable
    guard.check_changes(proposal, tree.changes(base), editable, common.ratchet.prefix.as_posix())
    before, after = tree.files(base, editable.__contains__), tree.files(tree.staged(), editable.__contains__)
    guard.check_texts(proposal, after, before)
    first = common.ledger.baseline
    start = tree.files(first.commit, editable.__contains__) if first and first.commit != base else before
    guard.check_information(proposal, after, before, start)
    guard.check_effect(proposal, before, after)
    if reason := common.hooks.guard(common.view, dialogue.context, proposal):
        raise Refused(reason, proposal)
    program = fingerprint.digest(after)
    if program in dialogue.failed_programs:
        raise Refused("it is the program that has just failed", proposal)
    guard.check_new(proposal, program, _rivals(common, program))
    changes = near_duplicates.changed_constants(before, after)
    if dialogue.listens and not dialogue.warned:
        earlier = near_duplicates.like(proposal.description, changes, dialogue.context.records)
        if earlier is not None:
            dialogue.warned = True
            raise NearDuplicate(near_duplicates.told(earlier), proposal)
    return CheckedEdit(program, changes, fingerprint.size(after) <= (1 - _SIMPLER) * fingerprint.size(before))


def commit(
    common: Common, flight: InFlight, proposal: Proposal, edit: CheckedEdit, base: str, tree: Worktree
) -> Experiment:
    """Commit the checked edit on top of the base; the candidate is in flight from then on.

    Raises:
        Refused: Another lane has just committed the same program.
    """
    whole = "" if proposal.short == proposal.description else f"\n\n{proposal.description}"
    made, _ = tree.commit(base, f"{proposal.short}{whole}\n\n{proposal.hypothesis}".strip())
    added, removed = _line_counts(tree, base, made)
    candidate = replace(
        attempt(common, flight, proposal, made, base, tree), program=edit.program, constants=edit.constants,
        simpler=edit.simpler, comparable=not distorts(_changed_lines(tree, base, made)),
        lines_added=added, lines_removed=removed,
    )  # fmt: skip
    with common.flights.lock:
        guard.check_new(proposal, edit.program, _rivals(common, edit.program))
        programs = {one.program: one.number for one in (*common.flights.candidates, candidate)}
        if (taken := common.ratchet.presence.announce(edit.program, programs)) is not None:
            raise Refused(f"another session has the same program under way as {taken:04d}", proposal)
        flight.candidate = candidate
    return candidate


def baseline(common: Common, flight: InFlight, tree: Worktree) -> Experiment:
    """The commit that the user has checked out, as it is."""
    start = common.ratchet.start
    flight.proposal = Proposal("baseline")
    first = attempt(common, flight, flight.proposal, start, start, tree)
    return replace(first, program=fingerprint.digest(tree.files(start, common.editable.__contains__)))


def attempt(common: Common, flight: InFlight, proposal: Proposal, commit: str, base: str, tree: Worktree) -> Experiment:
    """An experiment of this session without runs."""
    hash_of_tree = tree.git("rev-parse", f"{commit}^{{tree}}")
    return replace(common.like, number=flight.number, proposal=proposal, commit=commit, base=base, tree=hash_of_tree)


def _rivals(common: Common, program: str) -> list[Experiment]:
    """The experiments that tried this program, and all candidates in flight."""
    return [*common.ledger.tried(program), *common.flights.candidates]


def _line_counts(tree: Worktree, base: str, made: str) -> tuple[int, int]:
    """How many lines were added and removed, in text files."""
    added = removed = 0
    for row in tree.git("diff", *DIFF, "--numstat", base, made).splitlines():
        with contextlib.suppress(ValueError):  # a binary file has no counts
            more, less, _ = row.split("\t", 2)
            added, removed = added + int(more), removed + int(less)
    return added, removed


def _changed_lines(tree: Worktree, base: str, made: str) -> list[str]:
    """The lines that were added or removed."""
    patch = tree.git("diff", *DIFF, "--unified=0", base, made)
    return [row[1:] for row in patch.splitlines() if row[:1] in ("+", "-") and row[:3] not in ("+++", "---")]
