"""Programs compared on shared seeds: against dense least squares, and for any numbers whatever."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.keeprule.blocks import Block, Blocks, Contrast, Observation
from pytest_autoresearch.keeprule.noise import NO_PRIOR, VAL_BPB_ON_A_GPU, Prior

PROGRAMS, SEEDS = 4, 5
METRICS = st.floats(-5, 5).map(lambda metric: round(metric, 4))
RUNS = st.lists(
    st.builds(
        Observation, st.integers(0, PROGRAMS - 1), st.integers(0, SEEDS - 1).map(Block), METRICS,
        st.sampled_from([0.5, 1.0]),
    ),
    max_size=25,
).map(lambda runs: [Observation(0, Block(0), 0.25), Observation(1, Block(0), -0.5), *runs])  # fmt: skip
EXTREME = st.sampled_from([0.0, -0.0, 1.0, 1e300, -1e300, 1.7e308, -1.7e308, 5e-324, 1e-300, 1e-160, 1e160])


def runs_of(metrics: dict[tuple[object, int], float]) -> list[Observation]:
    return [Observation(program, Block(seed), metric) for (program, seed), metric in metrics.items()]


def dense(runs: Sequence[Observation], prior: Prior, one: object, other: object) -> tuple[float, float]:
    """The contrast and its error by generalised least squares, with the components that `Blocks` estimates."""
    found = Blocks(runs, prior).components
    programs, seeds = sorted({run.program for run in runs}), sorted({run.block for run in runs})  # type: ignore[type-var]
    design = np.array([[float(run.program == program) for program in programs] for run in runs])
    shared = np.array([[float(run.block == seed) for seed in seeds] for run in runs])
    weights = np.array([run.weight for run in runs])
    covariance = found.residual**2 * np.diag(1 / weights) + found.block**2 * shared @ shared.T
    inverse = np.linalg.inv(covariance)
    inner = np.linalg.inv(design.T @ inverse @ design)
    means = inner @ design.T @ inverse @ np.array([run.metric for run in runs])
    apart = np.array([float(program == one) - float(program == other) for program in programs])
    return float(apart @ means), math.sqrt(float(apart @ inner @ apart))


@given(RUNS, st.sampled_from([NO_PRIOR, Prior(0.3, 4)]))
def test_the_contrast_is_that_of_generalised_least_squares(runs: list[Observation], prior: Prior) -> None:
    blocks = Blocks(runs, prior)
    if blocks.components.residual < 1e-3:
        return  # the dense matrix has no inverse
    found = blocks.contrast(0, 1)
    difference, error = dense(runs, prior, 0, 1)
    assert found.difference == pytest.approx(difference, rel=1e-6, abs=1e-7)
    assert found.error == pytest.approx(error, rel=1e-6)


@given(RUNS, st.floats(-100, 100), st.floats(0.01, 100))
def test_shift_and_scale_change_nothing(runs: list[Observation], shift: float, scale: float) -> None:
    moved = [Observation(run.program, run.block, run.metric * scale + shift, run.weight) for run in runs]
    one = Blocks(runs, Prior(0.3, 4)).contrast(0, 1)
    other = Blocks(moved, Prior(0.3 * scale, 4)).contrast(0, 1)
    assert other.degrees == one.degrees
    assert other.difference == pytest.approx(one.difference * scale, rel=1e-6, abs=1e-8 * (1 + scale))
    assert other.error == pytest.approx(one.error * scale, rel=1e-6)


@given(RUNS)
def test_the_contrast_has_a_sign_and_no_order(runs: list[Observation]) -> None:
    one, other = Blocks(runs).contrast(0, 1), Blocks(runs[::-1]).contrast(1, 0)
    assert other.difference == pytest.approx(-one.difference, abs=1e-7)
    assert other.error == pytest.approx(one.error, rel=1e-5, abs=1e-7)


@given(st.lists(EXTREME, min_size=6, max_size=12), st.sampled_from([NO_PRIOR, VAL_BPB_ON_A_GPU]))
def test_no_number_is_too_large_or_too_small(metrics: list[float], prior: Prior) -> None:
    runs = [Observation(at % 2, Block(at // 3), metric) for at, metric in enumerate(metrics)]
    blocks = Blocks(runs, prior)
    found = blocks.contrast(0, 1)
    assert not math.isnan(found.difference)
    assert found.error >= 0
    assert blocks.components.degrees >= 0


def known(chance: random.Random, effects: Sequence[float], sd: float) -> list[Observation]:
    """The runs of twenty other programs, by which the components of variance are known."""
    return [
        Observation(f"other {number}", Block(seed), number + effect + chance.gauss(0, sd))
        for number in range(20)
        for seed, effect in enumerate(effects)
    ]


def test_two_programs_on_the_same_seeds_differ_by_their_paired_difference() -> None:
    chance, effects = random.Random(1), [9.0, -20.0, 14.0, 1.0]
    metrics = {
        (name, seed): level + effect + chance.gauss(0, 0.02)
        for name, level in (("a", 1.0), ("b", 1.1))
        for seed, effect in enumerate(effects)
    }
    found = Blocks(runs_of(metrics) + known(chance, effects, 0.02)).contrast("a", "b")
    pairs = [metrics["a", seed] - metrics["b", seed] for seed in range(4)]
    assert found.difference == pytest.approx(statistics.fmean(pairs), abs=1e-9)
    # One of 61 degrees of freedom believes that the seeds, which differ by 15, are residual.
    assert found.error == pytest.approx(math.sqrt(2 / 4 * (0.02**2 * 60 / 61 + 216 / 61)), rel=0.2)


def test_a_seed_that_only_one_program_has_says_little_of_their_difference_where_seeds_matter() -> None:
    chance, effects = random.Random(2), [9.0, -20.0, 14.0, 1.0, 30.0]
    metrics = {(name, seed): level + effects[seed] for name, level in (("a", 1.0), ("b", 1.1)) for seed in range(4)}
    alone = metrics | {("a", 4): 1.0 + effects[4]}
    rest = known(chance, effects, 0.02)
    for with_it in (metrics, alone):
        assert Blocks(runs_of(with_it) + rest).contrast("a", "b").difference == pytest.approx(-0.1, abs=0.1)


def test_without_a_part_of_the_seed_the_contrast_is_the_difference_of_the_means() -> None:
    runs = [Observation("a", Block(seed), metric) for seed, metric in enumerate([1.0, 1.2, 1.1])]
    runs += [Observation("b", Block(seed), metric) for seed, metric in enumerate([1.3, 1.1, 1.2, 1.4])]
    blocks = Blocks(runs, Prior(0.5, 4))
    assert blocks.components.block == 0
    assert blocks.contrast("a", "b").difference == pytest.approx(1.1 - 1.25)
    assert blocks.contrast("a", "b").error == pytest.approx(blocks.components.residual * math.sqrt(1 / 3 + 1 / 4))


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_what_a_seed_adds_to_all_of_its_runs_moves_no_paired_contrast(more: list[float]) -> None:
    chance, effects = random.Random(5), [9.0, -20.0, 14.0, 1.0]
    runs = known(chance, effects, 0.02)
    runs += [Observation(name, Block(seed), chance.gauss(0, 1) + effects[seed]) for name in "ab" for seed in (0, 1, 3)]
    moved = [Observation(run.program, run.block, run.metric + more[run.block.seed]) for run in runs]
    one, other = (Blocks(taken).contrast("a", "b") for taken in (runs, moved))
    assert one.difference == pytest.approx(other.difference, abs=1e-9)


def test_one_run_each_on_one_seed_and_on_two() -> None:
    same = Blocks([Observation("a", Block(0), 1.0), Observation("b", Block(0), 1.5)]).contrast("a", "b")
    assert same == Contrast(-0.5, 0.0, 0.0)  # nothing is known of the noise
    known = Blocks([Observation("a", Block(0), 1.0), Observation("b", Block(1), 1.5)], Prior(0.1, 4)).contrast("a", "b")
    assert known.difference == -0.5
    assert known.error == pytest.approx(0.1 * math.sqrt(2))
    assert known.degrees == 4


def test_programs_without_a_common_seed_are_compared_through_others() -> None:
    chance = random.Random(3)
    effects = [chance.gauss(0, 1) for _ in range(8)]
    runs = known(chance, effects, 0.01)
    runs += [Observation("a", Block(seed), 0.5 + effects[seed]) for seed in range(4)]
    runs += [Observation("b", Block(seed), 0.7 + effects[seed]) for seed in range(4, 8)]
    found = Blocks(runs).contrast("a", "b")
    assert found.difference == pytest.approx(-0.2, abs=0.05)
    alone = Blocks([run for run in runs if run.program in ("a", "b")]).contrast("a", "b")
    assert found.error < alone.error / 3


def test_a_selecting_run_counts_half() -> None:
    runs = [Observation("a", Block(0), 0.0, 0.5), Observation("a", Block(1), 3.0), Observation("b", Block(2), 0.0)]
    found = Blocks(runs, Prior(9.0, 1e9)).contrast("a", "b")
    assert found.difference == pytest.approx(2.0, abs=1e-6)
    assert runs[0].selected
    assert not runs[1].selected


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_the_components_of_variance_are_found_again(share: float) -> None:
    chance = random.Random(11)
    residuals, blocks = [], []
    for _ in range(150):
        seeds = [chance.gauss(0, math.sqrt(share)) for _ in range(6)]
        runs = [
            Observation(program, Block(seed), program + seeds[seed] + chance.gauss(0, math.sqrt(1 - share)))
            for program in range(8)
            for seed in chance.sample(range(6), 4)
        ]
        found = Blocks(runs).components
        residuals.append(found.residual**2)
        blocks.append(found.block**2)
    assert statistics.fmean(residuals) == pytest.approx(1 - share, rel=0.15, abs=0.05)
    assert statistics.fmean(blocks) == pytest.approx(share, rel=0.15, abs=0.06)


def test_a_campaign_of_thousands_of_experiments_is_compared() -> None:
    """Dense equations of so many blocks take hours."""
    draw = random.Random(1)
    runs = [Observation("head", Block(seed), draw.gauss(0, 0.4)) for seed in range(5)]
    for number in range(3000):
        for seed in (5 + 2 * number, 6 + 2 * number):
            shared = draw.gauss(0, 0.4)
            runs.append(Observation(number, Block(seed), 1.0 + shared + draw.gauss(0, 0.1)))
            runs.append(Observation("head", Block(seed), shared + draw.gauss(0, 0.1)))
    blocks = Blocks(runs)
    assert blocks.components.residual == pytest.approx(0.1, rel=0.05)
    assert blocks.components.block == pytest.approx(0.4, rel=0.05)
    assert blocks.contrast(7, "head").difference == pytest.approx(1.0, abs=0.4)
