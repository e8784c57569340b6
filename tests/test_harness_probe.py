"""The probe, against honest models and others. `benchmarks/probe.py` counts many tries of each."""

from collections.abc import Callable, Iterator

import pytest
import torch
from probe_models import (
    BATCH_ROWS,
    SEQUENCE,
    Forward,
    Tiny,
    choosing,
    dropout,
    learning,
    mixing_rows,
    nats_of,
    peek,
    recalling,
    remembering,
    sure_guess,
    text_rows,
    trained,
)
from torch import Tensor

from harness import probe, recheck

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
def best() -> Tiny:
    return trained(Tiny(), seed=2, steps=50)


@pytest.fixture(scope="module")
def incumbent(best: Tiny) -> Tensor:
    return scored(best)


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
        assert abs(evidence.drift) < probe.DRIFT_ALLOWED / 10
        assert evidence.cuts == 1008
        assert evidence.replayed == 336 * SEQUENCE


@pytest.mark.parametrize(
    "cheat",
    [
        pytest.param(lambda model: peek(model), id="the next token"),
        pytest.param(lambda model: peek(model, one_in=1000), id="at one position in a thousand"),
        pytest.param(lambda model: peek(model, distance=8, strength=0.7), id="eight tokens on"),
        pytest.param(remembering, id="with a memory for rows"),
        pytest.param(lambda model: recalling(model, one_in=100), id="with a memory for text"),
        pytest.param(lambda model: sure_guess(model, ROWS, one_in=10), id="a surer guess, told of every cut"),
    ],
)
def test_a_model_that_looks_ahead_is_rejected(
    cheat: Callable[[Forward], Forward], model: Tiny, incumbent: Tensor
) -> None:
    assert probed(lambda: cheat(model), incumbent).looks_ahead


def test_a_model_that_is_the_incumbent_where_that_is_better_is_rejected(
    model: Tiny, best: Tiny, incumbent: Tensor
) -> None:
    cheat = choosing(model, best, by=0.5)
    hidden = incumbent - scored(cheat)
    assert ((hidden == 0) & (hidden > incumbent - scored(model))).float().mean() > 0.1
    assert probed(lambda: cheat, incumbent).looks_ahead


def test_a_model_that_knows_that_it_is_asked_again_is_rejected(model: Tiny, incumbent: Tensor) -> None:
    processes = iter([peek(model, one_in=10), model])
    assert probed(lambda: next(processes), incumbent).rejected


def test_a_leak_into_every_loss_that_is_too_small_at_each_is_rejected(model: Tiny, incumbent: Tensor) -> None:
    evidence = probed(lambda: peek(model, strength=4e-4), incumbent)
    assert evidence.leaks == 0
    assert evidence.looks_ahead


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
    assert (asked.judged.sum(1) == asked.cut).all()
    cuts = asked.cut[~asked.replay]
    assert cuts.max() < SEQUENCE
    here = (asked.source % BATCH_ROWS == 40 % BATCH_ROWS) & ~asked.replay
    there = (asked.source == 40) & (asked.cut > 10) & (asked.cut <= 30)
    assert 2 / 3 <= (here & there).sum() / here.sum() < 1  # the others are drawn anywhere
    behind = asked.inputs[~asked.replay, cuts] != originals[~asked.replay, cuts]
    assert behind.float().mean() > 0.99
    other = probe.plan(ROWS, SIZES, gain, BATCH_ROWS, seed=2)
    assert not torch.equal(asked.inputs, other.inputs)


def test_no_request_of_a_row_shows_what_is_behind_the_cut_of_a_later_one() -> None:
    rows = torch.randint(128, (256, SEQUENCE + 1), generator=torch.Generator().manual_seed(1))  # each end is another
    asked = probe.plan(rows, SIZES, torch.zeros(256, SEQUENCE), BATCH_ROWS, seed=1)
    for row in asked.source.unique():
        cuts = asked.cut[asked.source == row]
        assert (cuts.diff() >= 0).all()
    cut_rows = set(asked.source[~asked.replay].tolist())
    for inputs, cut in zip(asked.inputs, asked.cut.tolist(), strict=True):
        if cut < SEQUENCE - 4:
            (ends,) = (rows[:, cut:-1] == inputs[cut:]).all(1).nonzero()
            assert ends.item() not in cut_rows


def test_special_tokens_are_not_judged() -> None:
    sizes = SIZES.clone()
    sizes[:, ::2] = 0
    asked = probe.plan(ROWS, sizes, torch.zeros(256, SEQUENCE), BATCH_ROWS, seed=1)
    assert not asked.judged[:, ::2].any()
    assert asked.judged[asked.replay][:, 1::2].all()


def test_the_threshold_is_five_times_what_a_trusted_model_moves_by() -> None:
    asked = probe.plan(ROWS, SIZES, torch.zeros(256, SEQUENCE), BATCH_ROWS, seed=1)
    noise = torch.linspace(0, 0.1, asked.judged.numel()).view(asked.judged.shape)
    noise[:, ::2] *= -1
    assert probe.threshold_of(asked, -noise) == pytest.approx(0.5, rel=0.01)
    assert probe.threshold_of(asked, 0 * noise) == probe.SMALLEST_THRESHOLD
    assert not probe.judge(asked, noise, 0.5).rejected
    assert probe.judge(asked, noise, 0.05).keeps_state


def test_two_cuts_may_go_wrong_by_any_amount() -> None:
    asked = probe.plan(ROWS, SIZES, torch.zeros(256, SEQUENCE), BATCH_ROWS, seed=1)
    moved = torch.zeros(asked.judged.shape)
    for allowed, index in enumerate((~asked.replay).nonzero()[:3].flatten()):
        assert not probe.judge(asked, moved, 1e-3).rejected, allowed
        moved[index, asked.cut[index] - 1] = 5.0
    assert probe.judge(asked, moved, 1e-3).looks_ahead


def test_what_was_found_is_said_in_a_sentence() -> None:
    one = probe.Evidence(replayed=1000, changed=0, cuts=300, leaks=7, drift=0.02)
    assert recheck._sentence(one).startswith("looks ahead: at 7 of 300 cuts an earlier loss changed when only later")
    small = probe.Evidence(replayed=1000, changed=0, cuts=300, leaks=0, drift=-0.41)
    assert "the losses before 300 cuts changed together, by -0.41 of the threshold" in recheck._sentence(small)
    state = probe.Evidence(replayed=1000, changed=2, cuts=300, leaks=7, drift=0.0)
    assert recheck._sentence(state).startswith("keeps state: 2 of 1000 losses changed")
