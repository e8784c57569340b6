"""The probe, against honest models and others. `benchmarks/probe.py` counts many tries of each."""

from collections.abc import Callable, Iterator

import pytest
import torch
from probe_models import (
    BATCH_ROWS,
    SEQUENCE,
    Forward,
    Tiny,
    dropout,
    learning,
    mixing_rows,
    nats_of,
    peek,
    remembering,
    text_rows,
    trained,
)
from torch import Tensor

from harness import probe

ROWS = text_rows(256)
SIZES = torch.ones(256, SEQUENCE, dtype=torch.int64)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models so small are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> Tiny:
    return trained(Tiny(), seed=1, steps=60)


@pytest.fixture(scope="module")
def incumbent() -> Tensor:
    return scored(trained(Tiny(), seed=2, steps=50))


def scored(forward: Forward) -> Tensor:
    nats = nats_of(forward)
    return torch.cat([nats(block[:, :-1], block[:, 1:]) for block in torch.split(ROWS, BATCH_ROWS)])


def probed(make: Callable[[], Forward], incumbent: Tensor, seed: int = 1, count: int = 1344) -> probe.Evidence:
    """As the scorer does it: one model is scored, a second, fresh one is probed."""
    nats = scored(make())
    asked = probe.plan(ROWS, SIZES, incumbent - nats, BATCH_ROWS, seed, count)
    return probe.judge(asked, probe.differences(asked, nats_of(make()), ROWS, nats, BATCH_ROWS), 1e-3)


def test_honest_models_pass(model: Tiny, incumbent: Tensor) -> None:
    by_hand = Tiny(by_hand=True)
    by_hand.load_state_dict(model.state_dict())
    half = Tiny()
    half.load_state_dict(model.state_dict())
    half.bfloat16()
    for forward in (model, by_hand, half):
        evidence = probed(lambda forward=forward: forward, incumbent)
        assert (evidence.changed, evidence.leaks) == (0, 0)
        assert evidence.cuts == 1008
        assert evidence.replayed == 336 * SEQUENCE


@pytest.mark.parametrize(
    "cheat",
    [
        pytest.param(lambda model: peek(model), id="the next token"),
        pytest.param(lambda model: peek(model, one_in=1000), id="at one position in a thousand"),
        pytest.param(lambda model: peek(model, distance=8, strength=0.7), id="eight tokens on"),
        pytest.param(remembering, id="with a memory for rows"),
    ],
)
def test_a_model_that_looks_ahead_is_rejected(
    cheat: Callable[[Forward], Forward], model: Tiny, incumbent: Tensor
) -> None:
    assert probed(lambda: cheat(model), incumbent).looks_ahead


@pytest.mark.parametrize("leak", ["head", "block", "chunks", "filter"])
def test_a_layer_that_looks_ahead_is_rejected(leak: str, incumbent: Tensor) -> None:
    leaky = trained(Tiny(leak), seed=3, steps=10)
    evidence = probed(lambda: leaky, incumbent)
    assert evidence.looks_ahead
    assert not evidence.keeps_state


@pytest.mark.parametrize("cheat", [dropout, mixing_rows, learning])
def test_a_model_whose_losses_depend_on_more_than_the_row_is_rejected(
    cheat: Callable[[Forward], Forward], model: Tiny, incumbent: Tensor
) -> None:
    assert probed(lambda: cheat(model), incumbent).keeps_state


def test_a_plan_keeps_places_and_what_it_judges_and_is_secret() -> None:
    gain = torch.zeros(256, SEQUENCE)
    gain[40, 10:30] = 1.0  # the only places worth a look in their part of the batch
    asked = probe.plan(ROWS, SIZES, gain, BATCH_ROWS, seed=1)
    assert len(asked.source) == len(ROWS)
    assert (asked.source % BATCH_ROWS == torch.arange(len(ROWS)) % BATCH_ROWS).all()
    originals = ROWS[asked.source, :-1]
    assert (asked.inputs[asked.judged] == originals[asked.judged]).all()
    assert (asked.inputs[asked.replay] == originals[asked.replay]).all()
    assert asked.replay.sum() == len(ROWS) // 4
    cuts = asked.judged.sum(1)[~asked.replay]
    assert cuts.max() < SEQUENCE
    here = (asked.source % BATCH_ROWS == 40 % BATCH_ROWS) & ~asked.replay
    assert (asked.source[here] == 40).all()
    assert ((asked.judged.sum(1)[here] > 10) & (asked.judged.sum(1)[here] <= 30 + max(probe.LAGS))).all()
    behind = asked.inputs[~asked.replay, cuts] != originals[~asked.replay, cuts]
    assert behind.float().mean() > 0.99
    other = probe.plan(ROWS, SIZES, gain, BATCH_ROWS, seed=2)
    assert not torch.equal(asked.inputs, other.inputs)


def test_special_tokens_are_not_judged() -> None:
    sizes = SIZES.clone()
    sizes[:, ::2] = 0
    asked = probe.plan(ROWS, sizes, torch.zeros(256, SEQUENCE), BATCH_ROWS, seed=1)
    assert not asked.judged[:, ::2].any()
    assert asked.judged[asked.replay][:, 1::2].all()


def test_the_threshold_is_five_times_what_a_trusted_model_moves_by() -> None:
    asked = probe.plan(ROWS, SIZES, torch.zeros(256, SEQUENCE), BATCH_ROWS, seed=1)
    noise = torch.linspace(0, 0.1, asked.judged.numel()).view(asked.judged.shape)
    assert probe.threshold_of(asked, -noise) == pytest.approx(0.5, rel=0.01)
    assert probe.threshold_of(asked, 0 * noise) == probe.SMALLEST_THRESHOLD
    assert not probe.judge(asked, noise, 0.5).rejected
    assert probe.judge(asked, noise, 0.05).keeps_state
