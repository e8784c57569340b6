"""The look for memorised text, as arithmetic of losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.memorised import LEAST_ROWS, look

MEASURED, FRESH, LENGTH = 256, 64, 32
SIZES = torch.full((MEASURED + FRESH, LENGTH), 3)


def some_nats(seed: int) -> Tensor:
    """Losses of about 3 nats, in rows that differ."""
    random = torch.Generator().manual_seed(seed)
    rows = 3 + 0.5 * torch.randn(MEASURED + FRESH, 1, generator=random)
    return (rows + torch.randn(MEASURED + FRESH, LENGTH, generator=random)).clamp_min(0.1)


@given(seed=st.integers(0, 2**31), gain=st.floats(-0.5, 0.9), noise=st.floats(0, 0.5))
@settings(deadline=None, max_examples=100)
def test_a_gain_on_all_rows_is_believed(seed: int, gain: float, noise: float) -> None:
    baseline = some_nats(seed)
    nats = baseline * (1 - gain) + noise * torch.randn(baseline.shape, generator=torch.Generator().manual_seed(seed))
    found = look(nats, baseline, SIZES, MEASURED)
    assert found is not None
    assert (found.rows, found.rejected) == (FRESH, False)


@pytest.mark.parametrize("carried", [16, 64, 256])
def test_a_gain_on_the_rows_of_the_verdict_alone_is_rejected(carried: int) -> None:
    baseline = some_nats(1)
    nats = baseline * 0.98
    nats[:carried] = 0.01
    found = look(nats, baseline, SIZES, MEASURED)
    assert found is not None
    assert found.rejected
    assert found.excess > found.most > 0


def test_too_few_fresh_rows_say_nothing_and_a_program_that_is_worse_there_only_is_believed() -> None:
    baseline = some_nats(2)
    few = MEASURED + LEAST_ROWS - 1
    assert look(baseline[:few] / 2, baseline[:few], SIZES[:few], MEASURED) is None
    nats = baseline.clone()
    nats[:MEASURED] += 1
    found = look(nats, baseline, SIZES, MEASURED)
    assert found is not None
    assert not found.rejected
