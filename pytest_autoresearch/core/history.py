"""Questions to a set of records: the chain of keeps, what was taken back, the candidates without a verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status


def chain(records: Iterable[Experiment]) -> list[Experiment]:
    """The keeps in the order of the branch, the baseline first.

    They are ordered by their bases, not by number: with two sessions, a lower number may be kept after a higher one. A
    keep that a later record refutes is not part of it, and neither is any keep that was made from it.
    """
    known = list(records)
    refuted = {record.refutes for record in known}
    keeps = [one for one in _kept(known) if one.number == BASELINE or one.commit not in refuted]
    after = {record.base: record for record in keeps if record.number != BASELINE}
    line = [record for record in keeps if record.number == BASELINE]
    while line and line[-1].commit in after:
        line.append(after.pop(line[-1].commit))
    return line


def taken_back(records: Iterable[Experiment]) -> frozenset[str]:
    """The commits that were kept and are not on the line: their keep was refuted, or one that it was made from."""
    known = list(records)
    refuted = {record.refutes for record in known} - {""}
    if not refuted:
        return frozenset()
    made: dict[str, list[str]] = {}
    for keep in _kept(known):
        if keep.number != BASELINE:
            made.setdefault(keep.base, []).append(keep.commit)
    gone, look = set[str](), [commit for commits in made.values() for commit in commits if commit in refuted]
    while look:
        if (commit := look.pop()) not in gone:
            gone.add(commit)
            look += made.get(commit, ())
    return frozenset(gone)


def _kept(records: Iterable[Experiment]) -> list[Experiment]:
    return [record for record in records if record.verdict and record.verdict.status is Status.KEEP]


def untried(records: Iterable[Experiment], waiting: Iterable[Experiment]) -> list[Experiment]:
    """Candidates without a valid verdict, oldest first.

    These are candidates that a session could not judge, and stale ones, which were measured against an old base.
    A candidate leaves the list when a later record repeats it; nothing has to be deleted.
    """
    done, left = list(records), list(waiting)
    repeated = {candidate.proposal.repeats for candidate in (*done, *left)}
    recorded = {record.commit for record in done}
    stale = [record for record in done if record.is_owed]
    owed = [*(candidate for candidate in left if candidate.commit not in recorded), *stale]
    return sorted((one for one in owed if one.commit not in repeated), key=lambda candidate: candidate.number)
