"""Batches: endless, shuffled by seed, each row once an epoch; the same ones where a thread has them ready, as for a
GPU. That thread runs here against the CPU, whose streams and events are always done."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from harness_data import CHECKOUT
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness import batching

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


CPU = torch.device("cpu")


def prefetched(rows: np.ndarray, batch_rows: int, seed: int) -> "Iterator[batching.Batch]":
    return batching._prefetched(rows, batching._orders(len(rows), batch_rows, seed), batch_rows, CPU)


def fetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "harness.batches"]


def test_batches_of_the_thread_are_those_of_no_thread() -> None:
    # Tokens above 32767 are negative on their way to the device.
    rows = np.random.default_rng(0).integers(0, 65_536, size=(50, SEQUENCE + 1), dtype=np.uint16)
    # All are taken before any is compared: a buffer that is used again must not change what was given before.
    given = list(islice(prefetched(rows, 7, seed=3), 30))
    expected = list(islice(harness.batches(rows, 7, "cpu", 3), 30))
    for one, other in zip(given, expected, strict=True):
        for part, same in zip(one, other, strict=True):
            assert part.dtype == torch.int64
            assert part.is_contiguous()
            assert torch.equal(part, same)


def test_the_thread_ends_with_its_iterator() -> None:
    before = len(fetching())
    batches = prefetched(numbered_rows(5), 2, seed=1)
    next(batches)
    assert len(fetching()) == before + 1
    del batches
    assert len(fetching()) == before


def test_an_error_in_the_thread_reaches_the_loop() -> None:
    def orders() -> Iterator[np.ndarray]:
        yield np.array([0, 1])
        raise OSError("the disk is gone")

    batches = batching._prefetched(numbered_rows(5), orders(), 2, CPU)
    inputs, _ = next(batches)
    assert (inputs[:, 0] // 10).tolist() == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert fetching() == []


def test_an_iterator_left_open_does_not_keep_the_interpreter_from_ending() -> None:
    program = (
        "import sys, numpy, torch\n"
        "from harness import batching\n"
        "rows = numpy.zeros((9, 5), numpy.uint16)\n"
        "batches = batching._prefetched(rows, batching._orders(9, 2, 1), 2, torch.device('cpu'))\n"
        "next(batches)\n"
        "sys.exit(3)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
