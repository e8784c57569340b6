"""The records of one campaign in memory, kept in step with git and `results.tsv`."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pytest_autoresearch.core import conditions
from pytest_autoresearch.core.errors import BaseMoved, NumberTaken, UserError
from pytest_autoresearch.core.experiment import BASELINE, Experiment, Status
from pytest_autoresearch.core.history import chain
from pytest_autoresearch.core.records import as_recorded
from pytest_autoresearch.keeprule import verdict
from pytest_autoresearch.ledger.ratchet import Ratchet
from pytest_autoresearch.ledger.results_tsv import ResultsFile


class Ledger:
    """Every judged experiment of one campaign.

    Args:
        records: The records at the start of the session.
        results: The path of `results.tsv`.
        like: An experiment with the metric, budget and setting of this session. The campaign's records must have the
            same, so that results can be compared.

    Attributes:
        records: All records, ordered by number.
        notices: Sentences to show at the end of the session.
        incumbent: The experiment whose commit is the branch's head, or None before the baseline.
    """

    def __init__(self, ratchet: Ratchet, records: list[Experiment], results: Path, like: Experiment) -> None:
        self.records: list[Experiment] = []
        self.incumbent: Experiment | None = None
        self._kept: dict[str, Experiment] = {}
        self._tried: dict[str, list[Experiment]] = {}
        self._hold(records)
        self.notices: list[str] = []
        self._lock = threading.Lock()
        self._ratchet = ratchet
        self._like = like
        self._results = ResultsFile(results, like.metric_name)

    def open(self) -> None:
        """Join the campaign and repair what a killed session left unfinished, in git and in `results.tsv`.

        Raises:
            UserError: The campaign cannot continue here.
        """
        self.check_comparable()
        self._hold(self._ratchet.open())
        if self.records:
            self._rebuild()

    def _hold(self, records: list[Experiment]) -> None:
        """Replace the records, and compute once what every experiment needs from all of them."""
        self.records = records
        line = chain(records)
        self.incumbent = line[-1] if line else None
        self._kept = {one.commit: one for one in line}
        self._tried = {}
        for record in records:
            self._tried.setdefault(record.program or record.tree, []).append(record)

    def tried(self, program: str) -> list[Experiment]:
        """The experiments with this program digest. Safe on any thread."""
        return list(self._tried.get(program, ()))

    def kept_at(self, commit: str) -> Experiment | None:
        """The kept experiment with this commit; the incumbent if the commit is not kept. Safe on any thread."""
        return self._kept.get(commit, self.incumbent)

    def base(self) -> str:
        """The commit to make the next proposal from; its record is loaded. Safe on any thread."""
        head = self._ratchet.head()
        with self._lock:
            if head is not None and (self.incumbent is None or self.incumbent.commit != head):
                self._reread()  # another session's keep
            return self.incumbent.commit if self.incumbent else self._ratchet.start

    @property
    def tag(self) -> str:
        return self._ratchet.tag

    @property
    def baseline(self) -> Experiment | None:
        return self.records[0] if self.records and self.records[0].number == BASELINE else None

    def record(self, experiment: Experiment) -> Experiment:
        """Make the verdict permanent: the record and the branch in one transaction, then the row.

        Returns:
            The experiment as recorded in git. It has another number if another session took this one. It is discarded
            as stale if the branch has moved.

        Raises:
            GitError: A git command failed; nothing was recorded.
        """
        with self._lock:
            return self._record(experiment)

    def _record(self, experiment: Experiment) -> Experiment:
        planned = experiment.number
        experiment = self._vetoed(experiment)
        while True:
            try:
                self._ratchet.record(experiment)
                break
            except NumberTaken:
                self._reread()
                if planned == BASELINE and self.baseline is not None:
                    return self.baseline  # another session has recorded the baseline
                number = max(record.number for record in self.records) + 1
                experiment = replace(experiment, number=number, planned_number=planned)
            except BaseMoved:
                self._reread()
                if experiment.refutes:
                    continue  # another session has kept something meanwhile, which is taken back too
                vetoed = self._vetoed(experiment)
                if vetoed.verdict == experiment.verdict:
                    raise  # the branch was deleted or moved by something else
                experiment = vetoed
        kept = experiment.verdict is not None and experiment.verdict.status is Status.KEEP
        held = as_recorded(experiment)  # the logs of a whole night do not stay in memory
        if kept or experiment.refutes:
            self._hold(sorted((*self.records, held), key=lambda record: record.number))
        else:
            insort(self.records, held, key=lambda record: record.number)
            self._tried.setdefault(held.program or held.tree, []).append(held)
        try:
            if experiment.number == BASELINE or not self._results.path.exists():
                self._rebuild()
            else:
                self._results.append(experiment)
        except OSError as error:  # not fatal: the record is in git
            self.notices.append(f"results.tsv lacks {experiment.number:04d} ({error}); the next session adds it")
        return experiment

    def _vetoed(self, experiment: Experiment) -> Experiment:
        """The experiment, discarded if it is a keep that git must not accept."""
        if experiment.verdict is None or experiment.verdict.status is not Status.KEEP:
            return experiment
        return replace(experiment, verdict=verdict.veto(experiment, self._ratchet.head()) or experiment.verdict)

    def _reread(self) -> None:
        """Load the records again, after another session has recorded something."""
        self._hold(self._ratchet.records())
        self._rebuild()

    def _rebuild(self) -> None:
        aside = self._results.rebuild(self.records, self._other_records)
        if aside is not None:
            self.notices.append(f"results.tsv had rows of no experiment of this repository: renamed to {aside.name}")

    def _other_records(self) -> Iterator[Experiment]:
        for tag in self._ratchet.campaigns():
            yield from self._ratchet.records(tag)

    def check_comparable(self) -> None:
        """Check that this session's results can be compared with the campaign's.

        Raises:
            UserError: They cannot.
        """
        first = self.baseline
        if first is None:
            return
        for difference in conditions.differences(first, self._like):
            raise UserError(
                f"the campaign {self._ratchet.tag} began with other {difference} and its results cannot be compared: "
                "choose another --autoresearch-tag"
            )
