"""Designs of several proposals in one set of runs: balance, least squares, and what is believed of the effects."""

from __future__ import annotations

import importlib.util
import math
import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.keeprule.blocks import Components
from pytest_autoresearch.keeprule.designs import MOST, SIZES, Row, estimate, plan
from pytest_autoresearch.keeprule.effects import Belief, Effect, chosen

NOISE = Components(0.1, 0.3, 6)
SIZE = st.floats(-1e100, 1e100)


@pytest.mark.parametrize("proposals", range(1, MOST + 1))
def test_a_design_tells_every_proposal_from_every_other(proposals: int) -> None:
    runs = plan(proposals)
    assert len(runs) == next(size for size in SIZES if size > proposals)
    assert runs[0] == frozenset(), "the incumbent alone"
    for one in range(proposals):
        assert sum(one in has for has in runs) == len(runs) / 2
    for one, other in combinations(range(proposals), 2):
        assert sum({one, other} <= has for has in runs) == len(runs) / 4


@pytest.mark.parametrize("proposals", [0, MOST + 1])
def test_a_design_has_a_size(proposals: int) -> None:
    with pytest.raises(ValueError, match="a design is for 1 to 23 proposals"):
        plan(proposals)


def test_without_its_library_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "pytest_autoresearch.core.extras.find_spec", lambda name: None if name == "pydoe" else found(name)
    )
    with pytest.raises(UserError, match=r"pip install 'pytest-autoresearch\[batch\]'"):
        plan(7)


@given(st.lists(st.tuples(st.frozensets(st.integers(0, 4)), st.integers(0, 2), st.floats(-9, 9)), min_size=9))
def test_the_estimates_are_those_of_least_squares(given_rows: list[tuple[frozenset[int], int, float]]) -> None:
    # Every proposal alone and the incumbent, so that there is one answer.
    whole = [(frozenset(), 0, 1.0), *((frozenset({at}), 0, float(at)) for at in range(5)), *given_rows]
    rows = [Row(*one) for one in whole]
    blocks = sorted({row.block for row in rows})
    matrix = np.array(
        [[float(at in row.has) for at in range(5)] + [float(row.block == block) for block in blocks] for row in rows]
    )
    gains = np.array([row.gain for row in rows])
    wanted = np.linalg.lstsq(matrix, gains)[0]
    freedom = len(rows) - matrix.shape[1]
    left = float(((gains - matrix @ wanted) ** 2).sum())
    residual = math.sqrt((NOISE.degrees * NOISE.residual**2 + left) / (NOISE.degrees + freedom))
    errors = residual * np.sqrt(np.diag(np.linalg.inv(matrix.T @ matrix)))
    found = estimate(rows, 5, NOISE)
    assert [one.gain for one in found] == pytest.approx(wanted[:5], abs=1e-8)
    assert [one.error for one in found] == pytest.approx(errors[:5], rel=1e-6)
    assert {one.degrees for one in found} == {NOISE.degrees + freedom}


def test_every_run_tells_of_every_effect() -> None:
    """The standard error is 2s/sqrt(n); a pair of single runs gives sqrt(2) s."""
    rows = [Row(has, 42, 0.0) for has in plan(15)]
    assert [one.error for one in estimate(rows, 15, NOISE)] == pytest.approx([2 * 0.1 / math.sqrt(16)] * 15)


@given(st.lists(SIZE, min_size=7, max_size=7), st.sampled_from([1e-200, 1.0, 1e40]), SIZE)
def test_effects_that_add_up_are_found_exactly(effects: list[float], scale: float, level: float) -> None:
    rows = [Row(has, 1, scale * (level + math.fsum(effects[at] for at in has))) for has in plan(7)]
    largest = scale * max(map(abs, [*effects, level]))
    found = estimate(rows, 7, Components(0.0, 0.0, 3))
    assert [one.gain for one in found] == pytest.approx([scale * one for one in effects], abs=1e-9 * largest)


def test_a_level_of_its_own_for_each_block() -> None:
    """The seed of a second design moves all of its runs, and no effect."""
    effects = [0.5, -0.25, 0.125]
    rows = [
        Row(has, seed, level + math.fsum(effects[at] for at in has))
        for seed, level in ((1, 10.0), (2, -30.0))
        for has in plan(3)
    ]
    found = estimate(rows, 3, NOISE)
    assert [one.gain for one in found] == pytest.approx(effects)
    assert found[0].error < 0.1 * 2 / math.sqrt(16), "twice the runs, and they agree"


def test_what_the_runs_do_not_tell_apart_has_no_estimate() -> None:
    together = [Row(frozenset(), 1, 0.0), Row(frozenset({0, 1}), 1, 5.0), Row(frozenset({2}), 1, 1.0)]
    found = estimate(together, 4, NOISE)
    assert [math.isinf(one.error) for one in found] == [True, True, False, True], "two go together, one never ran"
    assert found[2].gain == pytest.approx(1.0)
    assert chosen(found, Belief.of(found)) == (2,)


def test_most_of_many_nothings_are_left_alone() -> None:
    draw = random.Random(0).gauss
    nothings = [Effect(draw(0, 1), 1.0, 50) for _ in range(300)]
    belief = Belief.of(nothings)
    assert belief.nothing > 0.6
    assert len(chosen(nothings, belief)) <= 9


def test_real_effects_are_chosen_best_first() -> None:
    draw = random.Random(1).gauss
    effects = [draw(0, 6) for _ in range(40)] + [0.0] * 40
    found = [Effect(one + draw(0, 1), 1.0, 50) for one in effects]
    taken = chosen(found, Belief.of(found))
    assert sum(one > 2 for one in effects) <= len(taken) <= 30
    assert sum(effects[at] < 0 for at in taken) <= 1
    assert [found[at].gain for at in taken] == sorted((found[at].gain for at in taken), reverse=True)


def test_proposals_that_do_nothing_show_how_large_the_noise_is() -> None:
    draw = random.Random(2).gauss
    quiet = [Effect(draw(0, 0.25), 1.0, 3) for _ in range(100)]
    assert Belief.of(quiet).noise == pytest.approx(0.25, rel=0.4)
    assert Belief.of(quiet[:1]).noise > 0.7, "one says little"


@given(
    st.lists(st.builds(Effect, SIZE, st.floats(1e-100, 1e100), st.floats(1, 50)), max_size=25),
    st.builds(Effect, SIZE, st.one_of(st.just(math.inf), st.floats(0, 1e100)), st.floats(0, 50)),
)
def test_any_numbers_give_a_probability(known: list[Effect], one: Effect) -> None:
    believed = Belief.of(known).of_effect(one)
    assert 0 <= believed.p <= 1
    assert abs(believed.gain) <= abs(one.gain) * (1 + 1e-12)


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=15), st.sampled_from([1e-9, 1e9]))
def test_the_unit_of_the_metric_does_not_matter(gains: list[float], unit: float) -> None:
    own = [Effect(gain, 1.0, 5) for gain in gains]
    other = [Effect(gain * unit, unit, 5) for gain in gains]
    p = [Belief.of(own).of_effect(one).p for one in own]
    assert [Belief.of(other).of_effect(one).p for one in other] == pytest.approx(p)
