"""How noise is estimated, and Student's t against the tables in every statistics book."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.noise import NO_PRIOR, VAL_BPB_ON_A_GPU, Noise, Sample, pooled, prior_of

METRICS = st.floats(-1e6, 1e6).map(lambda x: round(x, 6))

TABLE = {  # upper percentage points of Student's t
    (0.975, 1): 12.706, (0.95, 2): 2.920, (0.90, 3): 1.638, (0.75, 4): 0.741, (0.975, 5): 2.571, (0.90, 6): 1.440,
    (0.995, 10): 3.169, (0.9995, 15): 4.073, (0.95, 30): 1.697, (0.975, 120): 1.980, (0.975, math.inf): 1.960,
}  # fmt: skip


@pytest.mark.parametrize(("p", "freedom"), TABLE)
def test_quantiles_of_students_t_are_those_of_the_tables(p: float, freedom: float) -> None:
    assert round(student_t.quantile(p, freedom), 3) == TABLE[p, freedom]
    assert student_t.quantile(1 - p, freedom) == pytest.approx(-TABLE[p, freedom], abs=6e-4)


def test_with_one_and_two_degrees_of_freedom_students_t_has_a_closed_form() -> None:
    for t in (-30.0, -2.5, -0.1, 0.0, 0.7, 4.0, 1e9):
        assert student_t.cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, rel=1e-12)
        assert student_t.cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), rel=1e-12, abs=1e-15)


@given(st.floats(0.001, 0.999), st.floats(0.5, 1e9))
def test_the_quantile_is_the_inverse_of_the_distribution_function(p: float, freedom: float) -> None:
    assert student_t.cdf(student_t.quantile(p, freedom), freedom) == pytest.approx(p, abs=1e-9)


def test_the_ends_of_students_t() -> None:
    assert student_t.cdf(math.inf, 3) == 1
    assert student_t.cdf(-1e300, 3) == 0
    assert math.isnan(student_t.cdf(math.nan, 3))
    assert student_t.quantile(0.5, 7) == 0
    assert student_t.quantile(1, 7) == math.inf
    assert student_t.quantile(1e-300, 40) < -1e6
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_t.cdf(1, 0)
    with pytest.raises(ValueError, match="no probability"):
        student_t.quantile(1.5, 3)


def test_the_noise_of_a_gpu_night_starts_from_what_is_known_of_such_nights() -> None:
    noise = pooled([Sample.of([0.9970, 0.9974, 0.9978])], VAL_BPB_ON_A_GPU)
    assert noise.degrees == 4
    assert noise.sd == pytest.approx(math.sqrt((2 * 0.0004**2 + 2 * 0.0007**2) / 4))
    assert prior_of("val_bpb", on_a_gpu=True).baseline_runs == 3


def test_of_any_other_metric_nothing_is_believed_and_the_baseline_is_run_more_often() -> None:
    assert prior_of("val_bpb", on_a_gpu=False) == prior_of("score", on_a_gpu=True) == NO_PRIOR
    assert NO_PRIOR.baseline_runs == 5
    values = [17.0, 18.5, 17.2, 19.0, 16.1]
    assert pooled([Sample.of(values)]).sd == pytest.approx(statistics.stdev(values))


def test_nothing_measured_and_nothing_believed_is_not_no_noise() -> None:
    assert pooled([]).sd == pooled([Sample.of([3.0])]).sd == math.inf
    assert pooled([], VAL_BPB_ON_A_GPU).sd == 0.0007


@given(st.lists(METRICS, min_size=2, max_size=8))
def test_a_sample_has_the_mean_and_the_spread_of_its_runs(values: list[float]) -> None:
    sample = Sample.of(values)
    assert sample.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert sample.spread == pytest.approx(statistics.stdev(values) * math.sqrt(len(values) - 1), abs=1e-5)


@pytest.mark.parametrize("metric", [0.9979, 0.0, -3.0, 17, 1e300, 1e-300])
def test_a_metric_that_no_seed_moves_is_deterministic(metric: float) -> None:
    assert pooled([Sample.of([metric] * 5)]).exact
    assert pooled([Sample.of([metric] * 3)], VAL_BPB_ON_A_GPU).exact


def test_equal_runs_show_no_determinism_where_they_are_few_or_had_one_seed() -> None:
    assert not pooled([Sample.of([0.5] * 2)]).exact
    assert not pooled([Sample.of([0.5] * 4)]).exact
    assert pooled([Sample.of([0.5] * 3)], VAL_BPB_ON_A_GPU).exact
    assert pooled([Sample.of([0.5] * 3)], least=3).exact


def test_determinism_is_one_part_in_ten_million_and_ends_when_a_run_differs() -> None:
    assert pooled([Sample.of([1.0, 1.0, 1.0, 1.0 + 1e-8, 1.0])]).exact
    assert not pooled([Sample.of([1.0, 1.0, 1.0, 1.0 + 1e-6, 1.0])]).exact
    assert not pooled([Sample.of([0.0, 0.0, 0.0, 1e-300, 0.0])]).exact
    assert pooled([Sample.of([0.5] * 6)]).exact
    assert not pooled([Sample.of([*[0.5] * 5, 0.6])]).exact


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_the_noise_grows_with_the_scale_of_the_metric_however_large_or_small(scale: float) -> None:
    values = [1.0, 2.0, 4.0, 3.5, 2.5]
    assert pooled([Sample.of(v * scale for v in values)]).sd == pytest.approx(statistics.stdev(values) * scale)


def test_numbers_too_far_apart_for_a_number_give_an_infinite_noise() -> None:
    sample = Sample.of([1.7e308, -1.7e308])
    assert sample.mean == pytest.approx(0)
    assert pooled([sample]).sd == math.inf
    assert Noise().sd == math.inf
