"""Draws the next single change of a search: which constant by Thompson sampling, and which value by TPE."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping

from pytest_autoresearch.proposers.trials import Memory, nearest
from pytest_autoresearch.source import ranges
from pytest_autoresearch.source.constants import Value

_DRAWS = 16
_PROMISING = frozenset({"BATCH", "LR", "RATE"})  # most often wrong after a move to other hardware


def likely(
    rng: random.Random,
    near: Mapping[str, tuple[Value, ...]],
    present: Mapping[str, Value],
    memory: Mapping[str, Memory],
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
            promising = bool(ranges.words(name) & _PROMISING)
            hopes[name] = (1 + one.kept + promising, 1 + one.failed + one.running)
    for _ in range(_DRAWS if hopes else 0):
        luck = {name: rng.betavariate(*hope) * effects[name] for name, hope in hopes.items()}
        name = max(luck, key=luck.__getitem__)
        value = _sample(rng, inside[name], present[name], memory[name].losses)
        if value != present[name]:
            yield {name: value}


def _between(values: tuple[Value, ...], present: Value, losses: Mapping[Value, float]) -> tuple[Value, ...]:
    """The values around the present one, up to the nearest worse value on either side; all texts that were not worse.

    TPE alone would try 0.9 after 0.7 was worse than 0.6, because it knows no value there.
    """
    here = losses.get(present, 0.0)
    worse = [value for value, loss in losses.items() if loss > here]
    if isinstance(present, str):
        return tuple(value for value in values if value not in worse)
    numbers = [value for value in worse if not isinstance(value, str)]
    low = max((value for value in numbers if value < present), default=-math.inf)
    high = min((value for value in numbers if value > present), default=math.inf)
    return tuple(value for value in values if not isinstance(value, str) and low < value < high)


def _effects(memory: Mapping[str, Memory]) -> dict[str, float]:
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
        at.setdefault(nearest(values, value), []).append(loss)
    for index, found in at.items():
        mean = math.fsum(found) / len(found)
        study.add_trial(optuna.trial.create_trial(params={"place": index}, distributions={"place": place}, value=mean))
    drawn = (values[study.ask({"place": place}).params["place"]] for _ in range(8))
    return next((value for value in drawn if value != present), present)


def every(
    rng: random.Random, near: Mapping[str, tuple[Value, ...]], present: Mapping[str, Value]
) -> Iterator[dict[str, Value]]:
    """Every change of one constant, then every change of two; used if the draws give nothing new."""
    single = [(name, value) for name, values in near.items() for value in values if value != present[name]]
    rng.shuffle(single)
    yield from ({name: value} for name, value in single)
    yield from (dict(pair) for pair in itertools.combinations(single, 2) if pair[0][0] != pair[1][0])
