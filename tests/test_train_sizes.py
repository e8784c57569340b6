"""The sizes of `train.py` in every profile: what a step takes, how it is cut for the device, and how far a search can
move them."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from harness_data import CHECKOUT

import train
from harness import profiles
from pytest_autoresearch.runners.crashes import exit_crash
from pytest_autoresearch.source import ranges

pytestmark = pytest.mark.training

SCALES = ("DEPTH_SCALE", "WIDTH_SCALE", "BATCH_SCALE")


@pytest.fixture(autouse=True)
def _nothing_of_the_session_around_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROFILE", "SEQ_LEN", "DEVICE_BATCH", "HALVE_BATCH"):
        monkeypatch.delenv(f"AUTORESEARCH_{name}", raising=False)


@pytest.mark.parametrize("name", profiles.names())
def test_the_table_holds_as_it_stands(name: str) -> None:
    profile = profiles.named(name, None)
    depth, width, head_size, tokens_at_once, tokens_per_step = train.SIZES[name]
    shape, at_once, rows = train.sizes_of(profile)
    assert (shape.depth, shape.width, shape.head_size) == (depth, width, head_size)
    assert (at_once * profile.sequence_length, rows * profile.sequence_length) == (tokens_at_once, tokens_per_step)
    assert width % head_size == 0
    assert head_size % 2 == 0
    with torch.device("meta"):
        model = train.GPT(shape, "meta")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if name == "cpu":
        assert 0.5e6 < parameters < 2e6
    if profile.sequence_length == 2048:
        assert (depth, width, tokens_per_step) == (9, 512, 262_144)
        assert 45e6 < parameters < 65e6
        assert 200e6 < model.flops_per_token() < 280e6


def test_the_document_s_tables_are_the_code_s() -> None:
    found: dict[str, list[list[str]]] = {name: [] for name in profiles.names()}
    for line in (CHECKOUT / "docs" / "hardware.md").read_text(encoding="utf-8").splitlines():
        first, *cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if first in found:
            found[first].append(cells)
    for name, (class_of, model_of) in found.items():
        profile = profiles.named(name, None)
        shape, at_once, rows = train.sizes_of(profile)
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in train.GPT(shape, "meta").parameters())
        limit = f"{profile.memory_limit_mb // 1024} GB"
        assert class_of[1:] == [f"{profile.sequence_length}", f"{profile.evaluation_tokens:,}", limit]
        expected = [f"{shape.depth}", f"{shape.width}", f"{shape.width // shape.head_size}", f"{parameters / 1e6:.1f}M"]
        expected += [f"{at_once}", f"{rows}", f"{rows * profile.sequence_length:,}"]
        assert model_of[:-2] == expected
        assert (profile.vocab_size, profile.budget_seconds) == ((2048, 15) if name == "cpu" else (8192, 300))


@pytest.mark.parametrize("name", profiles.names())
@pytest.mark.parametrize("length", [8, 333, 1000, 4096, 65_536])
def test_a_step_has_the_same_tokens_however_it_is_cut(name: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profiles.named(name, length)
    _, _, _, tokens_at_once, tokens_per_step = train.SIZES[name]
    shape, at_once, rows = train.sizes_of(profile)
    assert at_once == 1 or at_once * length <= tokens_at_once
    assert rows == 1 or 7 / 8 * tokens_per_step < (rows + 1) * length
    assert rows == 1 or rows * length <= tokens_per_step
    for batch, halve, most in (
        (None, "1", max(1, at_once // 2)),
        ("7", None, 7),
        ("7", "1", 3),
        ("1", "1", 1),
        ("1000000", None, rows),
        ("1000000", "1", max(1, rows // 2)),
    ):
        monkeypatch.setenv("AUTORESEARCH_DEVICE_BATCH", batch or "")
        monkeypatch.setenv("AUTORESEARCH_HALVE_BATCH", halve or "")
        cut_shape, cut, cut_rows = train.sizes_of(profile)
        assert (cut_shape, cut_rows) == (shape, rows)
        assert rows % cut == 0
        # Not far below what was allowed: a step of many tiny batches would take for ever.
        assert min(most, rows) / 3 <= cut <= most


@pytest.mark.parametrize("name", profiles.names())
def test_every_scale_that_a_search_tries_is_another_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profiles.named(name, None)
    shape, _, rows = train.sizes_of(profile)
    reached = set()
    for constant in SCALES:
        for value in ranges.candidates(constant, 1.0):
            with monkeypatch.context() as patch:
                patch.setattr(train, constant, value)
                other, at_once, other_rows = train.sizes_of(profile)
            sizes = other.depth / shape.depth, other.width / shape.width, other_rows / rows
            reached.add(sizes)
            for scale, size in zip(SCALES, sizes, strict=True):
                assert (size > 1, size < 1) == ((value > 1, value < 1) if scale == constant else (False, False))
            assert other.width % shape.head_size == 0
            assert other_rows % at_once == 0
    # The largest gain that was seen on a GPU.
    assert (1, 1, 0.5) in reached


@pytest.mark.parametrize("constant", SCALES)
@pytest.mark.parametrize("value", [0.0, -1.0, 0.001, math.nan, math.inf])
def test_a_scale_that_leaves_nothing_is_a_sentence(
    constant: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, constant, value)
    with pytest.raises(ValueError, match=rf"a scale of {value} leaves none of \d+ (blocks|heads|parts of a step)"):
        train.sizes_of(profiles.named("h200", None))


@pytest.mark.parametrize("name", ["h200", "a100-40", "gtx-6"])
def test_a_step_fits_its_profile_even_uncompiled_and_in_float32(name: str) -> None:
    path = CHECKOUT / "benchmarks" / "memory.py"
    spec = importlib.util.spec_from_file_location("memory_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    memory = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(memory)
    limit = profiles.named(name, None).memory_limit_mb / 1024
    assert 0.2 * limit < memory.step_gib(name, torch.float32) < 0.85 * limit


def test_an_out_of_memory_crash_says_what_to_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(trainer: train.Trainer, steps: int) -> float:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 5.79 GiB of which 1.10 GiB "
            "is free. Including non-PyTorch memory, this process has 4.60 GiB memory in use."
        )

    monkeypatch.setattr(train.Trainer, "warm_up", too_much)
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_OUT", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        train.main()
    # What Python does with such an exit: the sentence goes to standard error, and the status is 1.
    crash = exit_crash(1, str(ended.value.code).splitlines())
    assert crash.reason == "oom"
    assert crash.message.startswith(
        "train.py: CUDA out of memory; lower AUTORESEARCH_DEVICE_BATCH (now 4 rows) or choose a smaller "
        "AUTORESEARCH_PROFILE. PyTorch: CUDA out of memory. Tried to allocate 2.00 GiB."
    )
