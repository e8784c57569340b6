"""The values that a constant may be given are those that a researcher would dare."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_autoresearch.source.constants import Value
from pytest_autoresearch.source.ranges import candidates

names = st.sampled_from(["LR", "ADAM_BETA2", "WARMDOWN_RATIO", "DEPTH", "N_HEAD", "BATCH_SIZE", "X"])
values = st.one_of(
    st.integers(-10, 2**33), st.floats(allow_nan=False), st.floats(0, 1), st.sampled_from([2**k for k in range(31)])
)


@settings(deadline=None)  # a busy machine is no failure
@given(names, values)
def test_candidates_are_near_distinct_ascending_and_of_the_same_kind(name: str, value: Value) -> None:
    found = candidates(name, value)
    if not found:
        return
    assert value in found
    assert len(found) > 1
    assert list(found) == sorted(set(found))
    assert {type(other) for other in found} == {type(value)}
    assert all(0.47 <= other / value <= 2.1 for other in found)
    if isinstance(value, float):
        assert all(other == value or max(doublings(other, value)) > 0.1 for other in found)


def doublings(a: float, b: float) -> tuple[float, float]:
    """How far apart two numbers are, and for fractions their odds."""
    odds = math.log2(a / (1 - a) / (b / (1 - b))) if 0 < a < 1 and 0 < b < 1 else 0.0
    return abs(math.log2(a / b)), abs(odds)


@pytest.mark.parametrize("value", [0.8, 0.9, 0.95, 0.99, 0.999])
def test_what_a_beta_lacks_to_one_is_at_most_halved_or_doubled(value: float) -> None:
    found = candidates("ADAM_BETA2", value)
    assert 0.4 < (1 - found[-1]) / (1 - value) < 0.65
    assert 1.6 < (1 - found[0]) / (1 - value) < 2.1
    assert found[-1] < 1


def test_a_learning_rate_may_pass_one() -> None:
    assert candidates("EMBEDDING_LR", 0.95)[-1] > 1


def test_a_fraction_never_reaches_one() -> None:
    assert candidates("WARMDOWN_RATIO", 0.7)[-1] < 0.9


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TOTAL_BATCH", 2**18, (2**17, 2**18, 2**19)),
        ("HEAD_DIM", 64, (32, 64, 128)),
        ("N_HEAD", 4, (2, 4, 8)),
        ("WINDOW_DIVISOR", 8, (4, 8, 16)),
        ("DEPTH", 8, (6, 7, 8, 9, 10)),
        ("N_LAYER", 16, (12, 13, 14, 15, 16, 17, 18, 19, 20)),
        ("EXPERTS", 1, (1, 2)),
        ("WIDTH", 384, (256, 384, 512, 640, 768)),
        ("WARMUP_STEPS", 10, (8, 9, 10, 11, 12)),
        ("ROPE_BASE", 40, (24, 32, 40, 48, 56, 64, 72, 80)),
        ("TIED", True, (False, True)),
    ],
)
def test_integers_keep_the_roundness_that_they_have(name: str, value: Value, expected: tuple[Value, ...]) -> None:
    assert candidates(name, value) == expected


def test_decimal_integers_go_to_decimal_integers() -> None:
    assert {other % 100 for other in candidates("STEPS", 1000)} == {0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WARMUP_RATIO", 0.0),
        ("OFFSET", 0),
        ("IGNORE_INDEX", -100),
        ("SENTINEL", -1),
        ("ADAM_EPS", 1e-8),
        ("H100_PEAK", 989.5e12),
        ("HUGE", math.inf),
        ("SEED", 42),
        ("LOG_EVERY", 10),
        ("VOCAB_SIZE", 8192),
        ("DEBUG", True),
    ],
)
def test_what_is_plainly_no_hyperparameter_is_left_alone(name: str, value: Value) -> None:
    assert candidates(name, value) == ()


def test_a_negative_float_stays_negative() -> None:
    assert candidates("BIAS", -0.5)[0] == -1.0
    assert candidates("BIAS", -0.5)[-1] == -0.25
