"""bits per byte, against its definition."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.metric import MetricError, bits_per_byte, evaluate, sum_losses, token_nats

VOCAB = 11
# BOS is 0 and has no bytes; 7 stands for a token that was never learned.
TOKEN_BYTES = torch.tensor([0, 1, 1, 2, 3, 4, 5, 0, 2, 1, 9])

seeds = st.integers(0, 2**31)


def some_rows(seed: int, rows: int = 6, sequence: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCAB, (rows, sequence + 1), generator=generator)
    tokens[tokens == 7] = 0
    tokens[:, 0] = 0
    tokens[0, 1] = 3
    return tokens


def random_model(seed: int) -> torch.nn.Embedding:
    torch.manual_seed(seed)
    return torch.nn.Embedding(VOCAB, VOCAB)


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_uniform_logits_cost_log2_of_the_vocabulary_for_each_target_with_bytes(seed: int) -> None:
    rows = some_rows(seed)
    sizes = TOKEN_BYTES[rows[:, 1:]]
    expected = math.log2(VOCAB) * int((sizes > 0).sum()) / int(sizes.sum())
    bpb = evaluate(lambda tokens: torch.zeros(*tokens.shape, VOCAB), rows, TOKEN_BYTES, batch_rows=2)
    assert bpb == pytest.approx(expected, rel=1e-6)


@given(seeds, st.integers(1, 7), st.integers(1, 7))
@settings(deadline=None, max_examples=30)
def test_how_rows_are_batched_does_not_change_the_metric(seed: int, one: int, other: int) -> None:
    rows, model = some_rows(seed), random_model(seed)
    with torch.inference_mode():
        assert evaluate(model, rows, TOKEN_BYTES, one) == pytest.approx(
            evaluate(model, rows, TOKEN_BYTES, other), rel=1e-6
        )


@given(seeds)
@settings(deadline=None, max_examples=30)
def test_the_metric_is_the_sum_over_targets_taken_one_by_one(seed: int) -> None:
    rows, model = some_rows(seed), random_model(seed)
    table = model.weight.detach().double().log_softmax(-1)
    bits, text_bytes = 0.0, 0
    for row in rows.tolist():
        for before, target in pairwise(row):
            if TOKEN_BYTES[target]:
                bits -= float(table[before, target]) / math.log(2)
                text_bytes += int(TOKEN_BYTES[target])
    with torch.inference_mode():
        assert evaluate(model, rows, TOKEN_BYTES, 4) == pytest.approx(bits / text_bytes, rel=1e-6)


@given(seeds, st.floats(-50, 50))
@settings(deadline=None, max_examples=30)
def test_adding_a_constant_to_all_logits_changes_nothing(seed: int, constant: float) -> None:
    rows, model = some_rows(seed), random_model(seed)
    with torch.inference_mode():
        shifted = evaluate(lambda tokens: model(tokens) + constant, rows, TOKEN_BYTES, 3)
        assert shifted == pytest.approx(evaluate(model, rows, TOKEN_BYTES, 3), rel=1e-4)


def test_special_targets_count_neither_loss_nor_bytes() -> None:
    logits = torch.full((1, 3, VOCAB), 0.0)
    logits[..., 0] = -torch.inf
    targets = torch.tensor([[0, 3, 0]])
    nats, text_bytes = sum_losses(logits, targets, TOKEN_BYTES)
    assert (nats, text_bytes) == (pytest.approx(math.log(VOCAB - 1)), 2)


def test_losses_are_taken_in_float32_whatever_the_logits_are() -> None:
    logits = torch.randn(4, VOCAB).to(torch.bfloat16)
    targets = torch.tensor([1, 2, 3, 4])
    nats = token_nats(logits, targets)
    assert nats.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(nats.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_one_logit_that_is_no_number_spoils_the_metric(poison: float) -> None:
    rows = some_rows(1)

    def model(tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, VOCAB)
        logits[0, 0, 4] = poison
        return logits

    with pytest.raises(MetricError, match="loss of"):
        evaluate(model, rows, TOKEN_BYTES, 2)


def test_a_target_that_was_called_impossible_spoils_the_metric() -> None:
    def model(tokens: Tensor) -> Tensor:
        logits = torch.zeros(*tokens.shape, VOCAB)
        logits[..., 3] = -torch.inf
        return logits

    with pytest.raises(MetricError, match="loss of inf"):
        evaluate(model, some_rows(1), TOKEN_BYTES, 2)


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (torch.zeros(2, 5, VOCAB + 1), r"shape \[2, 5, 12\] and not \[2, 5, 11\]"),
        (torch.zeros(2, VOCAB), "shape"),
        (torch.zeros(2, 5, VOCAB, dtype=torch.int64), "int64"),
        ((torch.zeros(2, 5, VOCAB), None), "tuple"),
    ],
)
def test_what_is_not_logits_is_named(logits: Tensor, words: str) -> None:
    with pytest.raises(MetricError, match=words):
        evaluate(lambda tokens: logits, some_rows(1, rows=2), TOKEN_BYTES, 2)


def test_a_model_cannot_reach_the_targets_through_the_inputs() -> None:
    rows = some_rows(5)

    def model(tokens: Tensor) -> Tensor:
        assert tokens._base is None
        assert tokens.untyped_storage().nbytes() == tokens.numel() * 8
        return torch.zeros(*tokens.shape, VOCAB)

    evaluate(model, rows, TOKEN_BYTES, 2)


def test_targets_without_text_have_no_metric() -> None:
    with pytest.raises(MetricError, match="no text"):
        bits_per_byte(1.0, 0)
