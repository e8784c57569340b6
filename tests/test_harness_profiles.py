"""Profiles: the table, the choice, and what a wrong name gets."""

import os
import subprocess
import sys

import pytest
from harness_data import CHECKOUT

from harness import profiles, scorer
from harness.errors import HarnessError
from harness.profiles import Device


@pytest.fixture(autouse=True)
def _no_profile_of_the_session_around_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTORESEARCH_PROFILE", raising=False)
    monkeypatch.delenv("AUTORESEARCH_SEQ_LEN", raising=False)


@pytest.mark.parametrize(
    ("name", "sequence", "vocab", "tokens", "budget", "limit_gb"),
    [
        ("h100", 2048, 8192, 20_971_520, 300, 80),
        ("h200", 2048, 8192, 20_971_520, 300, 80),
        ("a100-80", 2048, 8192, 20_971_520, 300, 80),
        ("a100-40", 1024, 8192, 10_485_760, 300, 40),
        ("rtx-24", 512, 8192, 5_242_880, 300, 24),
        ("rtx-12", 256, 8192, 2_097_152, 300, 12),
        ("gtx-6", 256, 8192, 2_097_152, 300, 6),
        ("cpu", 256, 2048, 65_536, 15, 4),
    ],
)
def test_the_table_is_the_design_s(
    name: str, sequence: int, vocab: int, tokens: int, budget: int, limit_gb: int
) -> None:
    profile = profiles.named(name, None)
    assert profile.sequence_length == sequence
    assert profile.vocab_size == vocab
    assert profile.evaluation_tokens == tokens
    assert profile.budget_seconds == budget
    assert profile.memory_limit_mb == limit_gb * 1024
    assert profile.device == ("cpu" if name == "cpu" else "cuda")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (Device("cuda", "NVIDIA H200", 139.8), "h200"),
        (Device("cuda", "NVIDIA H100 80GB HBM3", 79.1), "h100"),
        (Device("cuda", "NVIDIA A100-SXM4-80GB", 79.3), "a100-80"),
        (Device("cuda", "NVIDIA A100-SXM4-40GB", 39.4), "a100-40"),
        (Device("cuda", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4.8), "cpu"),
        (Device("cuda", "NVIDIA GeForce RTX 3090", 23.7), "rtx-24"),
        (Device("cuda", "NVIDIA L4", 22.0), "rtx-24"),
        (Device("cuda", "NVIDIA GeForce RTX 3060", 11.8), "rtx-12"),
        (Device("cuda", "NVIDIA GeForce RTX 4090", 23.5), "rtx-24"),
        (Device("cuda", "NVIDIA RTX A6000", 47.5), "a100-40"),
        (Device("cuda", "Tesla T4", 14.6), "rtx-12"),
        (Device("cuda", "NVIDIA GeForce RTX 3070", 7.8), "gtx-6"),
        (Device("cuda", "NVIDIA GeForce GTX 1660", 5.8), "gtx-6"),
        (Device("cuda", "NVIDIA GeForce GTX 1650", 3.8), "cpu"),
        (Device("cpu", "some processor", 64.0), "cpu"),
    ],
)
def test_a_device_gets_the_profile_that_its_memory_allows(device: Device, name: str) -> None:
    assert profiles.fitting(device) == name


BUILT = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "compute_120"]


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (BUILT, (6, 1), False),  # GTX 1060
        (BUILT, (7, 0), False),  # V100
        (BUILT, (7, 5), True),  # GTX 1660, T4
        (BUILT, (8, 9), True),  # 4090: code for 8.6 runs on it
        (BUILT, (9, 0), True),
        (BUILT, (11, 0), False),
        (BUILT, (12, 1), True),  # from the intermediate code
        (["sm_60", "sm_70"], (6, 1), True),
        ([], (6, 1), True),
        (["gfx942"], (9, 4), True),
    ],
)
def test_a_build_without_code_for_a_gpu_is_known(
    architectures: list[str], capability: tuple[int, int], runs: bool
) -> None:
    assert profiles.runs_on(architectures, *capability) == runs


def test_the_scorer_s_logits_are_a_small_part_of_every_profile_s_memory() -> None:
    for name in profiles.names():
        profile = profiles.named(name, None)
        assert 2**22 <= scorer._logits_at_once(profile) <= profile.memory_limit_mb * 2**20 / 4 / 20
    assert scorer._logits_at_once(profiles.named("h200", None)) == 2**28


def test_the_environment_chooses_profile_and_sequence_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_SEQ_LEN", "100")
    profile = profiles.profile()
    assert (profile.name, profile.sequence_length) == ("cpu", 100)
    assert profile.evaluation_tokens == 65_500
    assert profile.device_name
    assert profile.memory_gb > 0


def test_an_unknown_profile_is_one_sentence_with_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "h1000")
    with pytest.raises(HarnessError, match=r"no profile 'h1000'; choose one of h100, .*, cpu\.$"):
        profiles.profile()


@pytest.mark.parametrize("length", ["0", "-3", "7", "many", "2.5", "1000000"])
def test_a_sequence_length_that_does_not_work_is_one_sentence(monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "cpu")
    monkeypatch.setenv("AUTORESEARCH_SEQ_LEN", length)
    with pytest.raises(HarnessError, match=r"256|from 8 to 65536"):
        profiles.profile()


def test_a_gpu_profile_without_a_gpu_is_a_sentence_for_training_and_fine_for_preparing() -> None:
    program = "from harness import profiles; print(profiles.named(None, None).device); profiles.profile()"
    hidden = {"AUTORESEARCH_PROFILE": "rtx-24", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, env=os.environ | hidden, capture_output=True, text=True
    )
    assert done.stdout == "cuda\n"
    assert "needs a CUDA GPU" in done.stderr
    assert "AUTORESEARCH_PROFILE=cpu" in done.stderr
