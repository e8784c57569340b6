"""Batches: endless, shuffled by seed, each row once an epoch."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

SEQUENCE = 4


def numbered_rows(count: int) -> np.ndarray:
    """Rows whose first token is the row's number."""
    rows = np.arange(count, dtype=np.uint16)[:, None] * 10 + np.arange(SEQUENCE + 1, dtype=np.uint16)
    rows.flags.writeable = False
    return rows


def first_rows(count: int, batch_rows: int, seed: int, batches: int) -> list[int]:
    taken = islice(harness.batches(numbered_rows(count), batch_rows, "cpu", seed), batches)
    return [number for inputs, _ in taken for number in (inputs[:, 0] // 10).tolist()]


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_each_epoch_has_every_row_once(count: int, batch_rows: int, seed: int) -> None:
    epochs = 3
    numbers = first_rows(count, batch_rows, seed, batches=-(-epochs * count // batch_rows))
    for epoch in range(epochs):
        assert sorted(numbers[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_targets_are_the_inputs_one_token_later() -> None:
    inputs, targets = next(harness.batches(numbered_rows(5), 3, torch.device("cpu"), 1))
    assert inputs.shape == targets.shape == (3, SEQUENCE)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs + 1, targets)
    assert inputs.is_contiguous()
    assert targets.is_contiguous()


def test_the_seed_alone_decides_the_order() -> None:
    assert first_rows(50, 7, 1, 20) == first_rows(50, 7, 1, 20)
    assert first_rows(50, 7, 1, 20) != first_rows(50, 7, 2, 20)


def test_epochs_are_shuffled_differently() -> None:
    numbers = first_rows(50, 50, 1, 2)
    assert numbers[:50] != numbers[50:]


def test_a_batch_of_nothing_is_refused_at_once() -> None:
    with pytest.raises(harness.HarnessError, match="at least 1"):
        harness.batches(numbered_rows(5), 0, "cpu", 1)
