"""What a set of records says together: the kept line, and what is owed a verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Reason, Status


def chain(records: Iterable[Experiment]) -> list[Experiment]:
    """The keeps in the order of the branch, the baseline first.

    Two sessions that share a campaign may keep a lower number after a higher one, so the order is that of the bases.
    """
    keeps = [record for record in records if record.verdict and record.verdict.status is Status.KEEP]
    after = {record.base: record for record in keeps if record.number != BASELINE}
    line = [record for record in keeps if record.number == BASELINE]
    while line and line[-1].commit in after:
        line.append(after.pop(line[-1].commit))
    return line


def untried(records: Iterable[Experiment], waiting: Iterable[Experiment]) -> list[Experiment]:
    """Candidates that are owed a verdict, oldest first.

    Those that a session left without one, and those that were measured against a base that had moved by then; less
    those that a later record repeats. Nothing needs to be deleted to take one off the list.
    """
    done, left = list(records), list(waiting)
    repeated = {candidate.proposal.repeats for candidate in (*done, *left)}
    recorded = {record.commit for record in done}
    stale = [record for record in done if record.verdict and record.verdict.reason == Reason.STALE]
    owed = [*(candidate for candidate in left if candidate.commit not in recorded), *stale]
    return sorted((one for one in owed if one.commit not in repeated), key=lambda candidate: candidate.number)
