"""The built-in proposer: Optuna's TPE over the capital-letter constants of the editable files.

Needs no key and no network. It starts from the constants of the branch head and changes one of them, so that the
verdict is about that constant; it changes two only after every candidate value of single constants was tried. It
knows nothing of git or pytest, keeps no state on disk, and learns only from the campaign's records, so a new session
continues where the last one stopped.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import random
import tokenize
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.core.experiment import Experiment, Proposal, Reason, Status
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.run import CrashClass
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.source import constants, ranges
from pytest_autoresearch.source.constants import Constant, Value
from pytest_autoresearch.source.editable import Editable

Vector = frozenset[tuple[str, Value]]
Step = dict[str, tuple[Value, Value]]  # constants by name: the values before and after

_DRAWS = 16
_PROMISING = frozenset({"BATCH", "LR", "RATE"})  # most often wrong after a move to other hardware


@dataclass(slots=True)
class _Memory:
    """The trials of one constant, from the records.

    Attributes:
        losses: For each tried value, how much worse the metric was than with the first value, in the metric's unit.
            Each trial is compared with its own base, which removes the effects of other constants. Infinite after a
            crash.
        kept: How many of its changes were kept.
        failed: How many were not kept.
        running: How many are running.
    """

    losses: dict[Value, float] = field(default_factory=dict)
    kept: int = 0
    failed: int = 0
    running: int = 0

    def add(self, before: Value, after: Value, loss: float, kept: bool) -> None:
        """Add one trial; `loss` is relative to the value that it started from."""
        base = self.losses.setdefault(before, 0.0)
        if math.isnan(loss):  # unknown: take the median of the worse ones
            worse = sorted(one for one in self.losses.values() if 0 < one < math.inf)
            loss = worse[len(worse) // 2] if worse else math.inf
        self.losses[after] = (base if math.isfinite(base) else 0.0) + loss
        self.kept += kept
        self.failed += not kept


@dataclass(frozen=True, slots=True)
class _Source:
    """An editable file at the branch head.

    Attributes:
        names: Its constants, by their names in a proposal's parameters.
    """

    path: Path
    encoding: str
    text: str
    names: Mapping[str, Constant]


class SearchProposer:
    """Optuna's TPE over the capital-letter constants of the editable files.

    The same seed and the same records give the same proposal.
    """

    name = "search"
    listens = False

    def __init__(self, seed: int) -> None:
        import optuna  # slow to import, and only needed here

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._seed = seed
        self._tried: set[Vector] = set()  # every vector proposed or measured, and those that they started from
        self._memory: dict[str, _Memory] = {}
        self._learned: set[int] = set()
        self._trials = 0
        self._attempts: Counter[int] = Counter()

    def propose(self, context: Context) -> Proposal | None:
        """Change a constant; None if every candidate was tried.

        Raises:
            UserError: The editable files have no constant to search, or Python cannot parse them.
        """
        sources = _read(context)
        found = {name: constant for source in sources for name, constant in source.names.items()}
        present = {name: constant.value for name, constant in found.items()}
        near = {name: ranges.candidates(constant.name, constant.value) for name, constant in found.items()}
        near = {name: values for name, values in near.items() if values}
        if not near:
            raise UserError(
                f"search finds no constant to vary in {', '.join(context.editable)}: write hyperparameters in "
                "capitals at the top level, such as LEARNING_RATE = 0.001, or choose another --autoresearch-proposer"
            )
        self._learn(context.records)
        under_way = [_step(proposal) for _, proposal in context.running]
        memory = self._recall(near, under_way)
        rng = random.Random(f"{self._seed} {context.number} {self._attempts[context.number]}")
        self._attempts[context.number] += 1
        apart = (
            changes
            for changes in itertools.chain(_draws(rng, near, present, memory), _all(rng, near, present))
            if not any(_is_beside(changes, other, near) for other in under_way)
        )
        for changes in itertools.chain(apart, _all(rng, near, present)):
            after = {**present, **changes}
            description = ", ".join(
                f"{name} {one.text} -> {constants.written(after[name], one.text)}"
                for name, one in found.items()
                if name in changes
            )
            if frozenset(after.items()) in self._tried or any(_is_same(changes, other) for other in under_way):
                continue
            self._tried.add(frozenset(after.items()))
            _write(sources, changes)
            return Proposal(
                description=description,
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
            after, before = record.proposal.parameters, _before(record.proposal)
            self._tried |= {frozenset(after.items()), frozenset({**after, **before}.items())}
            kept = record.verdict is not None and record.verdict.status is Status.KEEP
            for name in before.keys() & after.keys():
                self._memory.setdefault(name, _Memory()).add(before[name], after[name], _loss(record), kept)

    def _recall(self, names: Iterable[str], under_way: Iterable[Step]) -> dict[str, _Memory]:
        """The memory of these constants, including running trials."""
        count = Counter(name for step in under_way for name in step)
        known = {name: self._memory.get(name) or _Memory() for name in names}
        return {name: replace(memory, running=count[name]) for name, memory in known.items()}


def _read(context: Context) -> list[_Source]:
    """The editable Python files; a constant found in several files gets its file's path as a prefix."""
    texts = {path: _text(path, name) for name, path in _files(context.folder, context.editable).items()}
    count = Counter(constant.name for _, _, found in texts.values() for constant in found)
    read = []
    for path, (encoding, text, found) in texts.items():
        prefix = f"{path.relative_to(context.folder).as_posix()}:"
        names = {constant.name if count[constant.name] == 1 else prefix + constant.name: constant for constant in found}
        read.append(_Source(path, encoding, text, names))
    return read


def _files(folder: Path, editable: Editable) -> dict[str, Path]:
    """The editable Python files, by path in the folder. Links are left out: they may lead to the user's own files."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.py"))}
    inside = folder.resolve()
    return {
        name: path for name, path in paths.items()
        if name in editable and not path.is_symlink() and path.is_file() and inside in path.resolve().parents
    }  # fmt: skip


def _text(path: Path, name: str) -> tuple[str, str, tuple[Constant, ...]]:
    """A file's encoding, its text with its own line ends, and its constants."""
    raw = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
        return encoding, text, constants.find(text)
    except (SyntaxError, UnicodeDecodeError) as error:
        why = f"{error.msg} on line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else str(error)
        raise UserError(
            f"search cannot read {name} at the branch head: {why}; commit a version that Python can parse"
        ) from error


def _write(sources: Iterable[_Source], changes: Mapping[str, Value]) -> None:
    for source in sources:
        mine = {constant.name: changes[name] for name, constant in source.names.items() if name in changes}
        if mine:
            source.path.write_bytes(constants.edit(source.text, mine).encode(source.encoding))


def _before(proposal: Proposal) -> dict[str, Value]:
    """The earlier values of the constants that a search's proposal changed: its `source`."""
    try:
        said = json.loads(proposal.source)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _step(proposal: Proposal) -> Step:
    """The constants that a search's proposal changed, each with its values before and after."""
    before, after = _before(proposal), proposal.parameters
    return {name: (before[name], after[name]) for name in before.keys() & after.keys()}


def _is_same(changes: Mapping[str, Value], other: Step) -> bool:
    """Whether the running trial sets the same constants to the same values, whatever they were before."""
    return changes == {name: after for name, (_, after) in other.items()}


def _is_beside(changes: Mapping[str, Value], other: Step, near: Mapping[str, tuple[Value, ...]]) -> bool:
    """Whether the running trial sets the same constants to the same or to neighbouring values."""
    return changes.keys() == other.keys() and all(
        abs(_nearest(near[name], value) - _nearest(near[name], other[name][1])) <= 1 for name, value in changes.items()
    )


def _loss(record: Experiment) -> float:
    """How much worse than the best, in the metric's unit; infinite for a crash, NaN without a result.

    If the metric was good enough but the experiment was discarded, another assertion failed, such as one on memory.
    Similar values would fail, too, so this counts as a crash.
    """
    verdict = record.verdict
    if record.hopeless or (record.crash is not None and record.crash.kind is CrashClass.STALE):
        return math.nan
    if record.crash or verdict is None or verdict.status is Status.CRASH or not math.isfinite(record.gain):
        return math.inf
    undecided = verdict.reason in (Reason.STALE, Reason.SKIP)
    turned_down = verdict.status is Status.DISCARD and record.gain > record.margin and not undecided
    return math.inf if turned_down else -record.gain


def _draws(
    rng: random.Random,
    near: Mapping[str, tuple[Value, ...]],
    present: Mapping[str, Value],
    memory: Mapping[str, _Memory],
) -> Iterator[dict[str, Value]]:
    """Draw a constant by Thompson sampling over how often its changes were kept, then a value by TPE.

    A constant that moved the metric more, up or down, is drawn more often. A running trial counts as failed until its
    verdict is known, so that lanes try different constants.
    """
    inside = {name: _between(values, present[name], memory[name].losses) for name, values in near.items()}
    effects = _effects(memory)
    hopes = {}
    for name, one in memory.items():
        if len(inside[name]) > 1:
            promising = bool(ranges.words(name.rpartition(":")[2]) & _PROMISING)
            hopes[name] = (1 + one.kept + promising, 1 + one.failed + one.running)
    for _ in range(_DRAWS if hopes else 0):
        luck = {name: rng.betavariate(*hope) * effects[name] for name, hope in hopes.items()}
        name = max(luck, key=luck.__getitem__)
        value = _sample(rng, inside[name], present[name], memory[name].losses)
        if value != present[name]:
            yield {name: value}


def _between(values: tuple[Value, ...], present: Value, losses: Mapping[Value, float]) -> tuple[Value, ...]:
    """The values around the present one, up to the nearest worse value on either side.

    TPE alone would try 0.9 after 0.7 was worse than 0.6, because it knows no value there.
    """
    here = losses.get(present, 0.0)
    worse = [value for value, loss in losses.items() if loss > here]
    low = max((value for value in worse if value < present), default=-math.inf)
    high = min((value for value in worse if value > present), default=math.inf)
    return tuple(value for value in values if low < value < high)


def _effects(memory: Mapping[str, _Memory]) -> dict[str, float]:
    """How far each constant has moved the metric, relative to the upper quartile, which is assumed for untried ones.

    The cube root damps large moves: a trial is one noisy number, and large moves are mostly large mistakes.
    """
    finite = {name: [loss for loss in one.losses.values() if math.isfinite(loss)] for name, one in memory.items()}
    moved = {name: max(losses) - min(losses) for name, losses in finite.items() if len(losses) > 1}
    usual = sorted(moved.values())[3 * len(moved) // 4] if moved else 0.0
    return {name: (moved.get(name, usual) / usual) ** (1 / 3) if usual else 1.0 for name in memory}


def _sample(rng: random.Random, values: tuple[Value, ...], present: Value, losses: Mapping[Value, float]) -> Value:
    """One value by TPE; the present one if TPE draws nothing else."""
    import optuna

    # Only arguments that are stable in every version: warnings of experimental or deprecated ones would be errors.
    sampler = optuna.samplers.TPESampler(seed=rng.getrandbits(32), n_startup_trials=2, multivariate=False)
    study = optuna.create_study(sampler=sampler)
    place = optuna.distributions.IntDistribution(0, len(values) - 1)
    # One trial per index: a long campaign, whose heads had other values around them, would make a long study.
    at: dict[int, list[float]] = {}
    for value, loss in {present: 0.0, **losses}.items():
        at.setdefault(_nearest(values, value), []).append(loss)
    for index, found in at.items():
        mean = math.fsum(found) / len(found)
        study.add_trial(optuna.trial.create_trial(params={"place": index}, distributions={"place": place}, value=mean))
    drawn = (values[study.ask({"place": place}).params["place"]] for _ in range(8))
    return next((value for value in drawn if value != present), present)


def _nearest(values: tuple[Value, ...], value: Value) -> int:
    """The index of the nearest of sorted values."""
    after = bisect_left(values, value)
    around = range(max(0, after - 1), min(len(values), after + 1))
    return min(around, key=lambda index: abs(values[index] - value))


def _all(
    rng: random.Random, near: Mapping[str, tuple[Value, ...]], present: Mapping[str, Value]
) -> Iterator[dict[str, Value]]:
    """Every change of one constant, then every change of two; used if the draws give nothing new."""
    single = [(name, value) for name, values in near.items() for value in values if value != present[name]]
    rng.shuffle(single)
    yield from ({name: value} for name, value in single)
    yield from (dict(pair) for pair in itertools.combinations(single, 2) if pair[0][0] != pair[1][0])


def _hypothesis(count: int, trials: int, changed: Mapping[str, _Memory]) -> str:
    so_far = ", ".join(
        f"{name} kept {one.kept} of {one.kept + one.failed}" if one.kept + one.failed else f"{name} not tried yet"
        for name, one in changed.items()
    )
    return f"TPE over {count} constant{'s'[: count != 1]}, {trials} trial{'s'[: trials != 1]}; {so_far}."
