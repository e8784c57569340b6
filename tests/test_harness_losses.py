"""The losses of a candidate's logits, in PyTorch and in the Triton kernel, against float64.

The kernel runs on the device if there is one, else in Triton's interpreter. A candidate may choose any logits.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.metric import target_nats

RELATIVE, ABSOLUTE = 1e-5, 1e-12
LARGEST = torch.finfo(torch.float32).max
CUDA = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

Losses = Callable[[Tensor, Tensor], Tensor]

_WHOLE = st.integers(-8, 8).map(float)
_NUMBERS = st.one_of(
    _WHOLE,
    st.floats(-30, 30),
    st.floats(width=32),  # with infinities, NaN and denormals
    st.sampled_from([0.0, -0.0, 1e-45, -1e-38, 65504.0, -65504.0, 3.4e38, -3.4e38, 2.0**30, -(2.0**30)]),
)
_OFFSETS = st.sampled_from([0.0, 1.0, -1e3, 2.0**20, -(2.0**24), 2.0**30, 1e30, -1e38])


@pytest.fixture(scope="module")
def kernel() -> Losses:
    """The kernel, for logits [tokens, vocab]."""
    pytest.importorskip("triton", reason="no triton: pip install triton")
    if not CUDA and not INTERPRETED:
        pytest.skip("no CUDA here, and no TRITON_INTERPRET=1")
    from harness import device_loss

    device = "cuda" if CUDA else "cpu"

    def losses(logits: Tensor, targets: Tensor) -> Tensor:
        return device_loss.losses(logits[None].to(device), targets[None].to(device))[0].cpu()

    return losses


@pytest.mark.timeout(600)
@pytest.mark.skipif(CUDA or INTERPRETED, reason="the tests below run the kernel itself")
def test_the_kernel_passes_these_tests_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="no triton: pip install triton")
    # In a process of its own, because Triton reads the variable when it is imported.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "kernel or constant", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def in_float64(logits: Tensor, targets: Tensor) -> list[float]:
    """The definition, one token at a time."""
    found = []
    for row, target in zip(logits.double().tolist(), targets.tolist(), strict=True):
        largest = max(row) if not any(math.isnan(logit) for logit in row) else math.nan
        if not math.isfinite(largest):
            found.append(math.nan)
            continue
        place = row.index(largest)
        others = math.fsum(math.exp(logit - largest) for at, logit in enumerate(row) if at != place)
        found.append((largest - row[target]) + math.log1p(others))
    return found


def check(losses: Losses, logits: Tensor, targets: Tensor) -> None:
    """Each loss is right, or is no finite number, which ends the scoring."""
    for found, right in zip(losses(logits, targets).tolist(), in_float64(logits, targets), strict=True):
        if math.isnan(right):
            assert math.isnan(found)
        elif found == math.inf:
            assert right > LARGEST * (1 - RELATIVE)
        else:
            assert found == pytest.approx(right, rel=RELATIVE, abs=ABSOLUTE)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits [tokens, vocab] of any type, and targets."""
    vocab = draw(st.integers(2, 40))
    dtype = draw(st.sampled_from(DTYPES))
    rows = draw(st.lists(st.lists(_NUMBERS, min_size=vocab, max_size=vocab), min_size=1, max_size=3))
    logits = (torch.tensor(rows, dtype=torch.float64) + draw(_OFFSETS)).to(torch.float32).to(dtype)
    targets = [draw(st.integers(0, vocab - 1)) for _ in rows]
    return logits, torch.tensor(targets)


at_2_30 = (torch.full((1, 8192), 2.0**30), torch.tensor([5]))
sure = (torch.tensor([[20.0, 0.0, 0.0], [0.0, 20.0, -30.0]]), torch.tensor([0, 1]))


@given(questions())
@example(at_2_30)
@example(sure)
@settings(deadline=None, max_examples=200)
def test_losses_in_pytorch_are_those_of_float64(asked: tuple[Tensor, Tensor]) -> None:
    check(target_nats, *asked)


@given(asked=questions())
@example(asked=at_2_30)
@example(asked=sure)
@settings(deadline=None, max_examples=60)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter, which computes with NumPy
def test_losses_of_the_kernel_are_those_of_float64(kernel: Losses, asked: tuple[Tensor, Tensor]) -> None:
    check(kernel, *asked)


def whole_vocabulary(vocab: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(vocab)
    logits = (4 * torch.randn(2, vocab, generator=random)).to(dtype)
    logits = torch.cat([logits, torch.full_like(logits[:1], 0.9), logits[:1] - 2.0**14])
    return logits, torch.randint(0, vocab, (len(logits),), generator=random)


VOCABULARIES = pytest.mark.parametrize("vocab", [2048, 8192, 50_257])


@VOCABULARIES
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_over_a_whole_vocabulary_in_pytorch_are_those_of_float64(vocab: int, dtype: torch.dtype) -> None:
    check(target_nats, *whole_vocabulary(vocab, dtype))


@VOCABULARIES
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_over_a_whole_vocabulary_in_the_kernel_are_those_of_float64(
    kernel: Losses, vocab: int, dtype: torch.dtype
) -> None:
    check(kernel, *whole_vocabulary(vocab, dtype))


@given(seed=st.integers(0, 2**31), constant=st.sampled_from([2.0**power for power in range(24)]), sign=st.booleans())
@settings(deadline=None, max_examples=20)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_constant_that_is_added_to_all_logits_changes_no_loss(
    kernel: Losses, seed: int, constant: float, sign: bool
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randint(-20, 20, (3, 50), generator=random).float()  # whole numbers, so that the sum is exact
    targets = torch.randint(0, 50, (3,), generator=random)
    shifted = logits + (constant if sign else -constant)
    for losses in (target_nats, kernel):
        assert losses(shifted, targets).tolist() == losses(logits, targets).tolist()
