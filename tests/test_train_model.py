"""The model and the optimizers of `train.py`, in this process: what they compute, not how long a run takes."""

import ast
import dataclasses
import functools
import math
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from harness_data import CHECKOUT

import harness
import train
from pytest_autoresearch.source import constants, ranges

pytestmark = pytest.mark.training

VOCAB, LENGTH = 128, 32
PROFILE = harness.Profile("cpu", "cpu", "test", 8.0, LENGTH, VOCAB, 1024, 15.0, 4096)
SHAPE = train.Shape(VOCAB, LENGTH, depth=3, width=32, head_size=16)
SOURCE = (CHECKOUT / "train.py").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are not worth sharing out, and threads that wait for each other are slow beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def some_tokens(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))


def stirred_model(device: str = "cpu") -> train.GPT:
    """A model in which every parameter matters; a new one ignores most of its matrices."""
    torch.manual_seed(0)
    model = train.GPT(SHAPE, device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def corpus_batch() -> train.Batch:
    """The start of `train.py` itself, a byte a token."""
    text = torch.tensor(list(SOURCE.encode()[: 16 * (LENGTH + 1)])).view(16, LENGTH + 1) % VOCAB
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


def test_an_untrained_model_knows_nothing() -> None:
    inputs, targets = corpus_batch()
    loss = train.loss_of(train.Trainer(PROFILE, seed=1).model, inputs, targets)
    assert loss.item() == pytest.approx(math.log(VOCAB), abs=0.02)


@pytest.mark.training
def test_the_loss_of_a_fixed_batch_goes_to_near_zero() -> None:
    trainer = train.Trainer(PROFILE, seed=1)
    losses = [trainer.step([corpus_batch()], progress=step / 100).item() for step in range(100)]
    assert losses[0] > 4
    # Nothing tells how a row goes on after its first token, so some nats stay: rows begin alike.
    assert losses[-1] < 0.15


def test_a_token_is_predicted_from_nothing_after_it() -> None:
    model = stirred_model()
    first, other = some_tokens(2, seed=1), some_tokens(2, seed=2)
    for cut in (1, LENGTH // 2, LENGTH - 1):
        changed = torch.cat((first[:, :cut], other[:, cut:]), dim=1)
        before, after = model(first), model(changed)
        torch.testing.assert_close(before[:, :cut], after[:, :cut], rtol=0, atol=1e-5)
        assert (before[:, cut:] - after[:, cut:]).abs().max() > 0.1


def test_a_token_is_predicted_from_the_first_of_its_row() -> None:
    model = stirred_model()
    first = some_tokens(1)
    changed = first.clone()
    changed[0, 0] = (changed[0, 0] + 1) % VOCAB
    assert (model(first)[0, -1] - model(changed)[0, -1]).abs().max() > 1e-4


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model = stirred_model()
    rows = some_tokens(3)
    torch.testing.assert_close(model(rows)[1:2], model(rows[1:2]), rtol=0, atol=1e-5)


def test_logits_stay_within_the_cap() -> None:
    model = stirred_model()
    with torch.no_grad():
        model.unembedding.mul_(1000)
    logits = model(some_tokens(2))
    assert logits.shape == (2, LENGTH, VOCAB)
    assert logits.dtype == torch.float32
    assert 0.99 * train.LOGIT_CAP < logits.abs().max() <= train.LOGIT_CAP


def test_a_short_window_is_a_quarter_of_the_row_and_the_last_block_sees_all() -> None:
    shape = train.Shape(8192, 2048, depth=9, width=512, head_size=128)
    assert shape.windows == [512, 512, 512, 2048, 512, 512, 512, 2048, 2048]


@pytest.mark.parametrize(("window", "length"), [(4, 12), (5, 12), (12, 12), (32, 12), (1, 3)])
def test_a_token_sees_itself_and_the_earlier_tokens_of_its_window(window: int, length: int) -> None:
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, length, 3, 8, generator=random) for _ in range(3))
    at = torch.arange(length)
    visible = (at[:, None] >= at) & (at[:, None] // window == at // window)
    rows = [x.transpose(1, 2) for x in (query, key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(*rows, attn_mask=visible).transpose(1, 2)
    torch.testing.assert_close(train.attend(query, key, value, window), expected)


@pytest.mark.training
def test_the_compiled_path_computes_what_the_plain_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = stirred_model()
    monkeypatch.setattr(train, "is_fast", lambda device: True)
    fast = train.GPT(SHAPE, "cpu")
    fast.load_state_dict(plain.state_dict())
    assert fast.compute_type == torch.bfloat16
    # `fullgraph` fails where tracing would fall back to Python; generating kernels would take a compiler and minutes.
    compiled = torch.compile(train.loss_of, dynamic=False, fullgraph=True, backend="eager")
    inputs, targets = some_tokens(2, seed=1), some_tokens(2, seed=2)
    with torch.no_grad():
        expected = train.loss_of(plain, inputs, targets).item()
        assert compiled(fast, inputs, targets).item() == pytest.approx(expected, rel=5e-3)


def test_a_saved_model_gives_the_same_logits_when_loaded(tmp_path: Path) -> None:
    trainer = train.Trainer(PROFILE, seed=1)
    trainer.step([corpus_batch()], progress=0.0)
    trainer.save(tmp_path / "model.pt")
    loaded = train.load_model(tmp_path / "model.pt", "cpu")
    assert not loaded.training
    tokens = some_tokens(2)
    assert torch.equal(loaded(tokens), trainer.model(tokens))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("size", [(24, 24), (16, 48), (48, 16), (128, 512)], ids=["square", "wide", "tall", "large"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_orthogonalised_matrices_have_singular_values_near_one(size: tuple[int, int], kind: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(size, generator=random), full_matrices=False)
    rank = min(size)
    # From all directions alike to one that holds nearly everything, as the gradients of a young model do.
    spectra = [torch.logspace(0, -exponent / 2, rank) for exponent in range(4)]
    spectra += [torch.cat((torch.ones(1), torch.full((rank - 1,), rest))) for rest in (0.5, 0.1, 0.03)]
    # The scale of a gradient must not matter.
    made = torch.stack([1e-4 * left @ torch.diag(spectrum) @ right for spectrum in spectra])
    result = train.orthogonalise(made.to(kind)).float()
    assert result.shape == made.shape
    assert (torch.linalg.svdvals(result) - 1).abs().max() < 0.04
    assert (left.mT @ result @ right.mT).diagonal(dim1=-2, dim2=-1).min() > 0.9


@pytest.mark.parametrize("size", [(16, 64), (64, 16)], ids=["wide", "tall"])
def test_the_long_side_of_a_matrix_moves_evenly(size: tuple[int, int]) -> None:
    """Rows of a tall matrix, columns of a wide one; the whole change is as long as without."""
    random = torch.Generator().manual_seed(0)
    weights, gradient = torch.zeros(1, *size), torch.randn(1, *size, generator=random)
    gradient *= torch.linspace(0.01, 1, max(size)).view((1, -1, 1) if size[0] > size[1] else (1, 1, -1))
    plain = train.orthogonalise(gradient)
    state = torch.zeros_like(gradient), torch.zeros_like(gradient.mean(train.short_side(size), keepdim=True))
    numbers = torch.tensor(0.9), torch.tensor(0.0)
    change = train.muon_change(weights, gradient, *state, *numbers, torch.float32)
    lengths, before = (x[0].norm(dim=train.short_side(size)) for x in (change, plain))
    assert before.max() / before.min() > 2
    torch.testing.assert_close(lengths, torch.full_like(lengths, lengths.mean().item()), rtol=1e-3, atol=0)
    longer = math.sqrt(max(1.0, size[0] / size[1]))  # a tall matrix takes longer steps
    torch.testing.assert_close(change.norm(), longer * plain.norm())


def test_a_matrix_without_a_gradient_is_left_alone() -> None:
    assert not train.orthogonalise(torch.zeros(1, 8, 8)).any()


def test_updates_are_compiled_once_and_compute_what_they_do_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    def trained(fast: bool) -> list[torch.Tensor]:
        monkeypatch.setattr(train, "is_fast", lambda device: fast)
        random = torch.Generator().manual_seed(0)
        sizes = [(3, 16, 16), (16, 16), (64, 16), (16, 64)]
        matrices = [torch.randn(size, generator=random, requires_grad=True) for size in sizes]
        rest = [torch.randn(size, generator=random, requires_grad=True) for size in [(32, 16), (2,)]]
        muon = train.Muon(matrices, 0.04, torch.float32)
        adam = [train.AdamW([parameter], 0.5, 0.1) for parameter in rest]
        for step in range(20):
            for parameter in matrices + rest:
                parameter.grad = torch.randn(parameter.shape, generator=random)
            for group in adam:
                group.step(1 - step / 25)
            muon.step(1 - step / 25, 0.85 + step / 200, 0.2 * (1 - step / 20))
            # Three sizes of matrices, a table and a vector; no number of a schedule compiles anything again.
            assert len(compiled) == (5 if fast else 0)
        return matrices + rest

    plain = trained(fast=False)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend, fullgraph=True))
    for one, other in zip(plain, trained(fast=True), strict=True):
        torch.testing.assert_close(one, other)


def test_every_parameter_has_exactly_one_optimizer() -> None:
    trainer = train.Trainer(PROFILE, seed=1)
    by_muon = [parameter for group in trainer.muon.groups.values() for parameter in group]
    by_adam = [parameter for group in trainer.adam for parameter in group.parameters]
    trained = sorted(id(parameter) for parameter in by_muon + by_adam)
    assert trained == sorted(id(parameter) for parameter in trainer.model.parameters())
    assert all(parameter.ndim >= 2 for parameter in by_muon)


def test_every_parameter_moves_in_two_steps() -> None:
    trainer = train.Trainer(PROFILE, seed=1)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    for _ in range(2):
        trainer.step([corpus_batch()], progress=0.1)
    still = [name for name, parameter in trainer.model.named_parameters() if torch.equal(parameter, before[name])]
    assert still == []


def test_adam_takes_the_steps_of_pytorch() -> None:
    torch.manual_seed(0)
    ours = torch.randn(5, 3, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    adam = train.AdamW([ours], rate=0.1, decay=0.2)
    betas = (train.ADAM_BETA1, train.ADAM_BETA2)
    reference = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.2, betas=betas, eps=1e-10)
    for _ in range(5):
        gradient = torch.randn(5, 3)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        adam.step(1.0)
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_a_step_of_two_batches_is_a_step_of_both_at_once() -> None:
    apart, together = train.Trainer(PROFILE, seed=1), train.Trainer(PROFILE, seed=1)
    inputs, targets = corpus_batch()
    halves = [(inputs[:8], targets[:8]), (inputs[8:], targets[8:])]
    for _ in range(3):
        first = apart.step(halves, progress=0.5)
        second = together.step([(inputs, targets)], progress=0.5)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_equal_seeds_and_batches_give_equal_models_and_other_seeds_others() -> None:
    weights = []
    for seed in (1, 1, 2):
        trainer = train.Trainer(PROFILE, seed)
        for step in range(3):
            trainer.step([corpus_batch()], progress=step / 3)
        weights.append(torch.cat([parameter.flatten() for parameter in trainer.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_warming_up_teaches_nothing() -> None:
    warm, cold = train.Trainer(PROFILE, seed=1), train.Trainer(PROFILE, seed=1)
    assert warm.warm_up(steps=2) > 0
    for _ in range(2):
        for one, other in zip(warm.model.parameters(), cold.model.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one.grad is None
        # Momentum and the count of steps are what the parameters do not show; a real step does.
        assert warm.step([corpus_batch()], progress=0.0) == cold.step([corpus_batch()], progress=0.0)


def test_rates_are_full_then_fall_to_the_floor() -> None:
    rates = [train.rate_share_at(step / 100) for step in range(101)]
    assert rates[0] == 1
    assert rates[-1] == pytest.approx(train.LR_FLOOR)
    assert rates == sorted(rates, reverse=True)
    assert rates[round(100 * (1 - train.WARMDOWN_FRACTION)) - 1] == 1


NUMBERS = {
    *("DEPTH_SCALE", "WIDTH_SCALE", "BATCH_SCALE"),
    *("WINDOW_DIVISOR", "MLP_RATIO", "VALUE_EVERY", "ROPE_BASE", "LOGIT_CAP", "INIT_SCALE", "UNEMBEDDING_STD"),
    *("SKIP_INIT", "EMBEDDING_LR", "UNEMBEDDING_LR", "RESIDUAL_LR", "SKIP_LR", "ADAM_BETA1", "ADAM_BETA2"),
    *("VALUE_DECAY", "MATRIX_LR", "MATRIX_DECAY", "MATRIX_BETA2"),
    *("MOMENTUM", "MOMENTUM_START", "MOMENTUM_RAMP_FRACTION"),
    *("WARMUP_FRACTION", "WARMDOWN_FRACTION", "LR_FLOOR"),
}


def test_hyperparameters_are_literals_at_the_top() -> None:
    body = ast.parse(SOURCE).body
    code = next(number for number, node in enumerate(body) if isinstance(node, ast.ClassDef | ast.FunctionDef))
    settings = {}
    for number, node in enumerate(body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            settings[node.targets[0].id] = ast.literal_eval(node.value)
            assert number < code or node.targets[0].id.startswith("_"), f"{node.targets[0].id} is not at the top"
    assert {name for name, value in settings.items() if isinstance(value, int | float)} == NUMBERS
    assert {constant.name for constant in constants.find(SOURCE)} == NUMBERS


def variant(name: str, value: constants.Value) -> types.ModuleType:
    """`train.py` with one constant changed."""
    module = types.ModuleType("train_variant")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(constants.edit(SOURCE, {name: value}), "train.py", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("name", sorted(NUMBERS))
@pytest.mark.parametrize("pick", [min, max])
def test_a_search_may_change_any_number(name: str, pick: Callable[..., constants.Value]) -> None:
    """No value that a search would dare stops a run."""
    found = ranges.candidates(name, getattr(train, name))
    module = variant(name, pick(found) if found else 0.5)
    module.SIZES["cpu"] = (3, 16, 8, 128, 128)
    profile = dataclasses.replace(PROFILE, sequence_length=16)
    trainer = module.Trainer(profile, seed=1)
    tokens = some_tokens(8)[:, :17]
    for progress in (0.0, 0.5, 1.0):
        loss = trainer.step([(tokens[:, :-1], tokens[:, 1:])], progress)
    assert 0 < loss.item() < 10


def test_the_file_stays_readable() -> None:
    assert len(SOURCE.splitlines()) <= 650
