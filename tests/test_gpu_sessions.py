"""Whole campaigns on a machine with a GPU, as far as a session sees one: through NVML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_nvml import UUID, FakeNvml
from repo import CONFIG, Repo

HOLD = """do:
with open(os.environ["NVIDIA_FAKE_NVML"], "a") as state: state.write(f"0 compute {{os.getpid()}} {}\\n")
time.sleep({})
block({})
"""


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml(tmp_path)
    fake.use(monkeypatch)
    return fake


def test_device_memory_is_measured_from_outside_and_its_limit_enforced(repo: Repo, gpu: FakeNvml) -> None:
    show = "do:print(os.environ['CUDA_VISIBLE_DEVICES']); raise SystemExit(1)"
    repo.plan(HOLD.format(5000, 0.6, 0.9), HOLD.format(90_000, 30, 0.1), show)
    result = repo.run("--max", "3", "--autoresearch-vram", "80", "--autoresearch-lanes", "1")
    result.stdout.fnmatch_lines(["*device: * NVIDIA H200, GPU-1a2b3c4d, driver 580.159.04"])
    records = {record.number: record for record in repo.records()}
    assert repo.reasons() == {0: "baseline", 1: "improved", 2: "over-memory", 3: "exit 1"}
    run = records[1].runs[0]
    assert (run.peak_memory_mb, run.memory_from, run.device) == (5000.0, "by process", UUID)
    assert 1.0 < run.resident_mb < 1000.0
    assert records[2].runs[0].crash is not None
    assert "used 90,000 MiB of device memory; the limit is 81,920 MiB" in records[2].runs[0].crash.message
    assert records[3].runs[0].log.strip() == UUID, "training sees the one GPU that is looked at"
    assert records[0].runs[0].memory_from == "resident", "what holds no device memory is not measured by it"
    assert {record.setting.hardware_key for record in records.values()} == {"NVIDIA H200, GPU-1a2b3c4d"}
    assert {record.setting.driver for record in records.values()} == {"580.159.04"}


def test_another_gpu_needs_another_tag_and_another_driver_is_said(repo: Repo, gpu: FakeNvml) -> None:
    assert repo.run("--max", "0", "-k", "0000").ret == 0
    gpu.add("driver 590.1")
    repo.plan(1.5)
    result = repo.run("--max", "1")
    result.stdout.fnmatch_lines(["  note:     driver changed since this campaign began, *: 580.159.04 -> 590.1"])
    assert [record.setting.driver for record in repo.records()] == ["580.159.04", "590.1"]
    assert '"driver changed at 0001"' in (repo.path / "report.html").read_text()
    gpu.add(f"0 uuid {UUID.replace('1a2b', '9a9b')}")
    result = repo.run("--max", "1")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*campaign t began with other hardware (*1a2b3c4d, now *9a9b3c4d)*--autoresearch-tag"])


def test_a_harness_that_does_without_the_gpu_is_not_held_to_it(repo: Repo, gpu: FakeNvml) -> None:
    repo.write("description", json.dumps({"device": "cpu", "hardware_key": "a processor"}))
    repo.write("pytest.ini", CONFIG + "autoresearch_describe = cat description\n")
    repo.commit()
    repo.plan("do:print(os.environ.get('CUDA_VISIBLE_DEVICES')); raise SystemExit(1)")
    repo.run("--max", "1")
    record = repo.records()[1]
    assert (record.setting.hardware_key, record.runs[0].device) == ("a processor", "")
    assert record.runs[0].log.strip() == "None"
