"""The training loop of `train.py`, in this process on a tiny model: what it launches, waits for, prints and saves."""

import gc
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import harness
import train

VOCAB, LENGTH = 64, 16
PROFILE = harness.Profile("cpu", "cpu", "test", 8.0, LENGTH, VOCAB, 1024, 15.0, 4096)


class Recorded(train.Trainer):
    """A trainer that remembers the loss of each step, and gives another for the last of a list.

    Attributes:
        losses: As they were returned, since the clock began.
        bad: What the step after two good ones returns in place of its loss; None for its own.
    """

    def __init__(self, ahead: int, bad: float | None = None) -> None:
        super().__init__(PROFILE, seed=1)
        self.ahead = ahead
        self.bad = bad
        self.losses: list[float] = []

    def step(self, batches: Sequence[train.Batch], progress: float) -> torch.Tensor:
        loss = super().step(batches, progress)
        if self.bad is not None and len(self.losses) == 2:
            loss = torch.tensor(self.bad)
        self.losses.append(loss.item())
        return loss

    def begin(self) -> "np.ndarray[tuple[int, int], np.dtype[np.uint16]]":
        """In place of `harness.begin`: forget the warm-up; some rows."""
        self.losses.clear()
        return np.random.default_rng(0).integers(VOCAB, size=(32, LENGTH + 1), dtype=np.uint16)


@pytest.fixture(autouse=True)
def _a_small_step_and_the_collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(train.SIZES, "cpu", (2, 16, 8, 4 * LENGTH, 8 * LENGTH))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("ahead", [0, 1])
def test_every_step_is_waited_for_and_printed_in_its_order(
    ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Recorded(ahead)
    monkeypatch.setattr(harness, "begin", trainer.begin)
    steps, _, _ = train.train(trainer, 0.6, tmp_path / "model.pt")
    printed = re.findall(r"step (\d{5}) \(([\d.]+)%\) \| loss: ([\d.]+) \|", capsys.readouterr().out)
    assert [int(number) for number, _, _ in printed] == list(range(1, steps + 1))
    assert [loss for _, _, loss in printed] == [f"{loss:.6f}" for loss in trainer.losses]
    assert float(printed[0][1]) < 20
    # The whole model, as the last step left it.
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    saved = torch.load(tmp_path / "model.pt", weights_only=True)["weights"]
    assert all(torch.equal(saved[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 100.5])
def test_a_loss_that_is_no_number_or_hopeless_ends_training_at_most_a_step_later(
    ahead: int, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Recorded(ahead, bad)
    monkeypatch.setattr(harness, "begin", trainer.begin)
    with pytest.raises(SystemExit) as ended:
        train.train(trainer, 60.0, tmp_path / "model.pt")
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1] == "FAIL"
    assert len(trainer.losses) == 3 + ahead
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_budget_too_short_for_anything_still_gives_a_model_of_one_step(
    ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Recorded(ahead)
    monkeypatch.setattr(harness, "begin", trainer.begin)
    steps, _, _ = train.train(trainer, 0.001, tmp_path / "model.pt")
    assert steps == len(trainer.losses) == 1
    assert (tmp_path / "model.pt").exists()
