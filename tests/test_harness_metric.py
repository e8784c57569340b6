"""bits per byte, against its definition."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.metric import MetricError, bits_per_byte, of_text, target_nats

VOCAB = 11
# BOS is 0 and has no bytes; 7 stands for a token that was never learned.
TOKEN_BYTES = torch.tensor([0, 1, 1, 2, 3, 4, 5, 0, 2, 1, 9])

seeds = st.integers(0, 2**31)


def text_nats(logits: Tensor, targets: Tensor, sizes: Tensor) -> Tensor:
    return of_text(target_nats(logits, targets), sizes)


def some_tokens(seed: int, length: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCAB, (length,), generator=generator)
    tokens[tokens == 7] = 0
    tokens[1] = 3
    return tokens


def random_table(seed: int) -> Tensor:
    """Logits of each token that may follow each: float32 [vocab, vocab]."""
    return torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))


def bpb(table: Tensor, tokens: Tensor) -> float:
    sizes = TOKEN_BYTES[tokens[1:]]
    return bits_per_byte(text_nats(table[tokens[:-1]], tokens[1:], sizes), sizes)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_uniform_logits_cost_log2_of_the_vocabulary_for_each_target_with_bytes(seed: int) -> None:
    tokens = some_tokens(seed)
    sizes = TOKEN_BYTES[tokens[1:]]
    expected = math.log2(VOCAB) * int((sizes > 0).sum()) / int(sizes.sum())
    assert bpb(torch.zeros(VOCAB, VOCAB), tokens) == pytest.approx(expected, rel=1e-6)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_the_metric_is_the_sum_over_targets_taken_one_by_one(seed: int) -> None:
    tokens, table = some_tokens(seed), random_table(seed)
    log_probabilities = table.double().log_softmax(-1)
    bits, text_bytes = 0.0, 0
    for before, target in pairwise(tokens.tolist()):
        if TOKEN_BYTES[target]:
            bits -= float(log_probabilities[before, target]) / math.log(2)
            text_bytes += int(TOKEN_BYTES[target])
    assert bpb(table, tokens) == pytest.approx(bits / text_bytes, rel=1e-6)


@given(seeds, st.floats(-50, 50))
@settings(deadline=None, max_examples=30)
def test_adding_a_constant_to_all_logits_changes_nothing(seed: int, constant: float) -> None:
    tokens, table = some_tokens(seed), random_table(seed)
    assert bpb(table + constant, tokens) == pytest.approx(bpb(table, tokens), rel=1e-4)


def test_special_targets_count_neither_loss_nor_bytes() -> None:
    logits = torch.zeros(3, VOCAB)
    logits[:, 0] = -torch.inf
    targets = torch.tensor([0, 3, 0])
    nats = text_nats(logits, targets, TOKEN_BYTES[targets])
    assert nats.tolist() == [0, pytest.approx(math.log(VOCAB - 1)), 0]


def test_losses_are_taken_in_float32_and_summed_in_float64() -> None:
    logits = torch.randn(4, VOCAB).to(torch.bfloat16)
    targets = torch.tensor([1, 2, 3, 4])
    nats = text_nats(logits, targets, TOKEN_BYTES[targets])
    assert nats.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(nats.double(), expected, rtol=1e-5, atol=1e-6)

    count = 2**24 + 10  # more ones than float32 can count
    assert bits_per_byte(torch.ones(count), torch.ones(count)) == pytest.approx(1 / math.log(2), rel=1e-12)


@pytest.mark.parametrize("target", [0, 3])
@pytest.mark.parametrize("logits", [[math.nan], [math.inf], [-math.inf] * VOCAB])
def test_logits_that_are_no_numbers_spoil_the_metric_even_at_a_special_target(target: int, logits: list[float]) -> None:
    row = torch.zeros(1, VOCAB)
    row[0, : len(logits)] = torch.tensor(logits)
    targets = torch.tensor([target])
    sizes = TOKEN_BYTES[targets]
    with pytest.raises(MetricError, match="loss of nan"):
        bits_per_byte(text_nats(row, targets, sizes), sizes)


def test_a_target_that_was_called_impossible_spoils_the_metric() -> None:
    table = torch.zeros(VOCAB, VOCAB)
    table[:, 3] = -torch.inf
    with pytest.raises(MetricError, match="loss of inf"):
        bpb(table, some_tokens(1))


def test_targets_without_text_have_no_metric() -> None:
    with pytest.raises(MetricError, match="no text"):
        bits_per_byte(torch.tensor([1.0]), torch.tensor([0]))
