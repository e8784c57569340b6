"""The built-in proposer: Optuna's TPE over the constants of the editable files, one at a time.

Needs no key and no network. It starts from the constants of the branch head and changes one of them, so that the
verdict is about that constant; it changes two only after every candidate value of single constants was tried. It
knows nothing of git or pytest, keeps no state on disk, and learns only from the campaign's records, so a new session
continues where the last one stopped.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pytest_autoresearch.core.experiment import Experiment, Proposal, Status
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.proposers import draws, search_files, trials
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.trials import Memory, Step
from pytest_autoresearch.source import constants
from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.space import Space
from pytest_autoresearch.source.stated_ranges import Range

Vector = frozenset[tuple[str, Value]]


class SearchProposer:
    """Optuna's TPE over the constants of the editable files. The same seed and records give the same proposal.

    Args:
        table: The user's ranges, by the names of constants.
    """

    name = "search"
    listens = False

    def __init__(self, seed: int, table: Mapping[str, Range] | None = None) -> None:
        import optuna  # slow to import, and only needed here

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._seed = seed
        self._table = table or {}
        self._tried: set[Vector] = set()  # every vector proposed or measured, and those that they started from
        self._memory: dict[str, Memory] = {}
        self._learned: set[int] = set()
        self._trials = 0
        self._attempts: Counter[int] = Counter()

    def propose(self, context: Context) -> Proposal | None:
        """Change a constant; None if every candidate was tried.

        Raises:
            UserError: The editable files have no constant to search, or Python cannot parse them.
        """
        found = search_files.read(context, self._table)
        near, present = found.near, found.present
        self._learn(context.records)
        under_way = [trials.step(proposal) for _, proposal in context.running]
        memory = self._recall(near, under_way)
        rng = random.Random(f"{self._seed} {context.number} {self._attempts[context.number]}")
        self._attempts[context.number] += 1
        apart = (
            changes
            for changes in itertools.chain(draws.likely(rng, near, present, memory), draws.every(rng, near, present))
            if not any(trials.is_beside(changes, other, near) for other in under_way)
        )
        for changes in itertools.chain(apart, draws.every(rng, near, present)):
            after = {**present, **changes}
            if frozenset(after.items()) in self._tried or any(trials.is_same(changes, other) for other in under_way):
                continue
            self._tried.add(frozenset(after.items()))
            search_files.write(context, found, changes)
            return Proposal(
                description=described(found, changes),
                hypothesis=_hypothesis(len(near), self._trials, {name: memory[name] for name in changes}),
                proposer=self.name,
                source=json.dumps({name: present[name] for name in changes}),
                parameters=after,
            )
        return None

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal | None:
        """Propose something else; the failed proposal counts as tried."""
        self._tried.add(frozenset(proposal.parameters.items()))
        return self.propose(context)

    def _learn(self, records: Iterable[Experiment]) -> None:
        """Add the records judged since the last proposal, so that a long campaign is not read again each time."""
        for record in records:
            if record.number in self._learned:
                continue
            self._learned.add(record.number)
            if record.proposal.proposer != self.name:
                continue
            self._trials += 1
            after, before = record.proposal.parameters, trials.before(record.proposal)
            self._tried |= {frozenset(after.items()), frozenset({**after, **before}.items())}
            kept = record.verdict is not None and record.verdict.status is Status.KEEP
            for name in before.keys() & after.keys():
                self._memory.setdefault(name, Memory()).add(before[name], after[name], trials.loss(record), kept)

    def _recall(self, names: Iterable[str], under_way: Iterable[Step]) -> dict[str, Memory]:
        """The memory of these constants, including running trials."""
        count = Counter(name for step in under_way for name in step)
        known = {name: self._memory.get(name) or Memory() for name in names}
        return {name: replace(memory, running=count[name]) for name, memory in known.items()}


def described(found: Space, changes: Mapping[str, Value]) -> str:
    """The changed values as they are written, before and after."""
    return ", ".join(
        f"{name} {one.constant.text} -> {constants.written(changes[name], one.constant.text)}"
        for name, one in found.dimensions.items()
        if name in changes
    )


def _hypothesis(count: int, trials: int, changed: Mapping[str, Memory]) -> str:
    so_far = ", ".join(
        f"{name} kept {one.kept} of {one.kept + one.failed}" if one.kept + one.failed else f"{name} not tried yet"
        for name, one in changed.items()
    )
    return f"TPE over {count} constant{'s'[: count != 1]}, {trials} trial{'s'[: trials != 1]}; {so_far}."
