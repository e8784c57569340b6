"""Lanes: their devices, the leases that keep two sessions apart, and the sentence if a device cannot be had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nvml import FakeNvml
from repo import CONFIG, Repo

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.hardware import leases
from pytest_autoresearch.hardware.lanes import Lane, shares, usable_cores
from pytest_autoresearch.hardware.leases import Holder, Lease, lease
from pytest_autoresearch.measure import lanes as measure_lanes
from pytest_autoresearch.measure.lanes import on_cpu

SEEN = "do:print('sees', os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.5); raise SystemExit({})"
HOLD = """do:print('sees', os.environ['CUDA_VISIBLE_DEVICES'])
with open(os.environ["NVIDIA_FAKE_NVML"], "a") as state:
    state.write(f"0 compute {{os.getpid()}} {}\\n1 compute {{os.getpid()}} {}\\n")
time.sleep(0.6)
block(0.9)
"""
SCORED = """
import os, socket, time

ACTION = "0"
with socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"])) as parent:
    parent.sendall(b"begin\\n")
    parent.recv(16)
time.sleep(0.5)
open(os.environ["AUTORESEARCH_OUT"] + "/model.pt", "w").close()
"""
HOLDER = """
import sys, time
from pathlib import Path
from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.hardware import leases
leases.FOLDER = Path(sys.argv[1])
held = leases.lease(sys.argv[2])
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


class Cards:
    """A machine with three GPUs of one model; no other test has their names."""

    def __init__(self, fake: FakeNvml) -> None:
        self.fake = fake
        self.uuids = [f"GPU-{uuid.uuid4()}" for _ in range(3)]
        facts = [(f"{n} name NVIDIA H200", f"{n} uuid {self.uuids[n]}", f"{n} memory 143771 600 0") for n in range(3)]
        fake.set("driver 580.159.04", *(fact for card in facts for fact in card))

    def short(self, card: int) -> str:
        return self.uuids[card][:12]


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cards:
    fake = FakeNvml(tmp_path)
    fake.use(monkeypatch)
    return Cards(fake)


@pytest.fixture
def holder(cards: Cards) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the first card, and has a child that outlives it."""
    command = [sys.executable, "-c", HOLDER, str(leases.FOLDER), cards.uuids[0]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(child, signal.SIGKILL)


def test_a_killed_holder_loses_its_lease_though_its_child_lives(cards: Cards, holder: subprocess.Popen[str]) -> None:
    assert lease(cards.uuids[0]) == Holder(holder.pid)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    again = lease(cards.uuids[0])
    assert isinstance(again, Lease)
    again.release()
    assert isinstance(lease(cards.uuids[0]), Lease)


def test_a_second_session_is_told_who_has_the_gpu(repo: Repo, cards: Cards, holder: subprocess.Popen[str]) -> None:
    result = repo.run("--max", "1")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            f"ERROR: NVIDIA H200, {cards.short(0)} is used by the session with pid {holder.pid}: wait for its end, or "
            "choose another GPU with CUDA_VISIBLE_DEVICES"
        ]
    )
    assert not repo.records()


def test_every_lane_sees_its_gpu_alone(repo: Repo, cards: Cards) -> None:
    repo.plan(*(SEEN.format(n) for n in range(1, 5)))
    result = repo.run("--max", "4", "--autoresearch-lanes", "2")
    result.stdout.fnmatch_lines(
        ["  device:   NVIDIA H200, any, *", f"  lanes:    0 on {cards.short(0)}, 1 on {cards.short(1)}"]
    )
    runs = [run for record in repo.records() for run in record.runs]
    assert {(run.lane, run.device) for run in runs} == {(0, cards.uuids[0]), (1, cards.uuids[1])}
    assert all(run.log.strip() == f"sees {run.device}" for run in runs[1:])
    for device in cards.uuids:  # the session gave them back
        assert isinstance(lease(device), Lease)


def test_auto_takes_every_idle_gpu(repo: Repo, cards: Cards, holder: subprocess.Popen[str]) -> None:
    cards.fake.add(f"1 compute {holder.pid} 5000 foreign")
    result = repo.run("--max", "1", "-k", "0000", "--autoresearch-lanes", "auto")
    result.stdout.fnmatch_lines(
        [
            f"  note:     NVIDIA H200, {cards.short(0)} is used by the session with pid {holder.pid}, so it is no lane",
            f"  note:     NVIDIA H200, {cards.short(1)} is used by *process {holder.pid}*, so it is no lane",
        ]
    )
    assert {run.device for record in repo.records() for run in record.runs} == {cards.uuids[2]}
    result = repo.run("--max", "1", "--autoresearch-lanes", "2")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: --autoresearch-lanes 2: *{cards.short(0)} is used by the session with pid *"])


def test_lanes_are_those_of_cuda_visible_devices(
    repo: Repo, cards: Cards, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"2,{cards.uuids[0]}")
    result = repo.run("--max", "1", "-k", "0000", "--autoresearch-lanes", "auto")
    result.stdout.fnmatch_lines([f"  lanes:    0 on {cards.short(2)}, 1 on {cards.short(0)}"])
    result = repo.run("--max", "1", "--autoresearch-lanes", "3")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --autoresearch-lanes 3: only 2 GPUs are visible here: ask for fewer lanes"])


def test_gpus_of_two_models_are_no_lanes_of_one_session(repo: Repo, cards: Cards) -> None:
    cards.fake.add("1 name NVIDIA A100")
    result = repo.run("--max", "1", "--autoresearch-lanes", "auto")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *NVIDIA A100 and NVIDIA H200 cannot be compared: *CUDA_VISIBLE_DEVICES"])
    assert isinstance(lease(cards.uuids[0]), Lease)


def test_a_lane_of_two_gpus_has_both_together(repo: Repo, cards: Cards) -> None:
    first, second, _ = cards.uuids
    repo.plan(HOLD.format(5000, 3000), HOLD.format(10, 90_000))
    result = repo.run(
        "--max", "2", "--autoresearch-gpus", "2", "--autoresearch-lanes", "auto", "--autoresearch-vram", "80"
    )
    result.stdout.fnmatch_lines(
        [
            "  device:   2 x NVIDIA H200, any, *",
            f"  note:     NVIDIA H200, {cards.short(2)} is left over from lanes of 2, so it is no lane",
        ]
    )
    assert repo.reasons()[2] == "over-memory"
    runs = [record.runs[0] for record in repo.records()]
    assert {run.device for run in runs} == {f"{first},{second}"}
    assert runs[2].log == f"sees {first},{second}"
    assert (runs[1].peak_memory_mb, runs[1].total_memory_mb, runs[1].memory_from) == (5000.0, 8000.0, "by process")
    assert runs[2].crash is not None
    assert runs[2].crash.message == "used 90,000 MiB of memory on one of its GPUs; the limit is 81,920 MiB"
    for device in cards.uuids:
        assert isinstance(lease(device), Lease)


def test_one_lane_of_two_gpus_is_another_campaign_than_one_of_one(repo: Repo, cards: Cards) -> None:
    result = repo.run("--max", "1", "-k", "0000", "--autoresearch-gpus", "2")
    result.stdout.fnmatch_lines([f"  device:   2 x NVIDIA H200, {cards.short(0)} and {cards.short(1)}, *"])
    result = repo.run("--max", "1")
    result.stderr.fnmatch_lines(
        [f"*began with other hardware (2 x NVIDIA H200, *, now NVIDIA H200, {cards.short(0)})*"]
    )


def test_the_gpus_of_a_lane_are_leased_together_or_not_at_all(
    repo: Repo, cards: Cards, holder: subprocess.Popen[str]
) -> None:
    result = repo.run("--max", "1", "--autoresearch-gpus", "2")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            f"ERROR: *{cards.short(0)} is used by the session with pid {holder.pid}: wait for its end, or choose other "
            "GPUs with CUDA_VISIBLE_DEVICES"
        ]
    )
    result = repo.run("--max", "1", "--autoresearch-gpus", "3", "--autoresearch-lanes", "auto")
    result.stderr.fnmatch_lines(["ERROR: --autoresearch-lanes auto with --autoresearch-gpus 3: *: wait for its end"])
    assert not repo.records()
    for device in cards.uuids[1:]:
        assert isinstance(lease(device), Lease)
    result = repo.run("--max", "1", "--autoresearch-gpus", "2", "--autoresearch-lanes", "2")
    result.stderr.fnmatch_lines(
        [
            "ERROR: --autoresearch-lanes 2 with --autoresearch-gpus 2: only 3 GPUs are visible here: 4 are needed, so "
            "ask for fewer"
        ]
    )


def test_each_mig_instance_is_a_lane_of_its_own(repo: Repo, cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [f"MIG-{uuid.uuid4()}" for _ in range(2)]
    for place, part in enumerate(parts, start=5):
        name, number = "NVIDIA H200 MIG 1g.18gb", place - 4
        cards.fake.add(f"{place} name {name}", f"{place} uuid {part}", f"{place} memory 18000 0 0")
        cards.fake.add(f"{place} parent 0 {number} 0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(parts))
    repo.plan(*(SEEN.format(n) for n in range(1, 4)))
    result = repo.run("--max", "3", "--autoresearch-lanes", "auto")
    result.stdout.fnmatch_lines(
        ["  device:   NVIDIA H200 MIG 1g.18gb, any, *", f"  lanes:    0 on {parts[0][:12]}, 1 on {parts[1][:12]}"]
    )
    runs = [record.runs[0] for record in repo.records()[1:]]
    assert {run.device for run in runs} == set(parts)
    assert all(run.log.strip() == f"sees {run.device}" for run in runs)
    result = repo.run("--max", "1", "--autoresearch-gpus", "2")
    result.stderr.fnmatch_lines(["ERROR: --autoresearch-gpus 2: a process can use one MIG instance, so leave *"])


def test_the_scorer_of_a_lane_uses_its_gpus(repo: Repo, cards: Cards) -> None:
    repo.write("score.py", "import os\nprint('scored on', os.environ['CUDA_VISIBLE_DEVICES'])\nprint('val_bpb: 1.0')\n")
    repo.write("train.py", SCORED)
    repo.write("description", json.dumps({"device": "cuda", "score": ["python", "score.py"]}))
    repo.write("pytest.ini", CONFIG + "autoresearch_describe = cat description\n")
    repo.commit()
    repo.plan(*"1234")
    repo.run("--max", "4", "--autoresearch-lanes", "2", "--autoresearch-confirm", "off")
    logs = {}
    for record in repo.records()[1:]:
        log = (repo.path / "experiments/runs/t" / f"{record.number:04d}" / "train.log").read_text()
        logs[record.runs[0].device] = log
        assert f"scored on {record.runs[0].device}" in log, log
    assert set(logs) == set(cards.uuids[:2])


def test_lanes_on_a_cpu_have_equal_shares_of_the_cores() -> None:
    assert shares(range(7), 3) == [Lane(cores=(0, 1)), Lane(cores=(2, 3)), Lane(cores=(4, 5))]


@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")
def test_runs_on_a_cpu_use_the_cores_of_their_lane_alone(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    show = "print('uses', sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
    repo.plan(*(f"do:{show}; time.sleep(0.5); raise SystemExit({n})" for n in range(1, 5)))
    result = repo.run("--max", "4", "--autoresearch-lanes", "2")
    each = len(usable_cores()) // 2
    result.stdout.fnmatch_lines([f"  lanes:    2 with {each} core*, so results vary more than on one"])
    runs = [record.runs[0] for record in repo.records()[1:]]
    assert {run.lane for run in runs} == {0, 1}
    for run in runs:
        cores = list(usable_cores())[run.lane * each : (run.lane + 1) * each]
        assert run.log.strip() == f"uses {cores} {each}"
    assert os.sched_getaffinity(0) == before
    result = repo.run("--max", "1", "--autoresearch-lanes", "1")
    result.stderr.fnmatch_lines(["*OMP_NUM_THREADS*"])


def test_more_lanes_than_cores_are_refused(repo: Repo) -> None:
    result = repo.run("--max", "1", "--autoresearch-lanes", "9999")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --autoresearch-lanes 9999: this machine has * cores for lanes and no GPU: *"])


# Every run but the first waits for another one that runs at the same time.
TOGETHER = """
import glob, os, time
if not os.path.exists("{git}/first"):
    open("{git}/first", "w").close()
else:
    open("{git}/here-" + os.environ["AUTORESEARCH_SEED"], "w").close()
    while len(glob.glob("{git}/here-*")) < 2:
        time.sleep(0.02)
print("step 1 loss: 2.5")
print("---\\nval_bpb: 1.0" + os.environ["AUTORESEARCH_SEED"])
"""


@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")
def test_the_runs_of_the_baseline_are_spread_over_the_lanes(repo: Repo) -> None:
    repo.write("train.py", TOGETHER.format(git=repo.path / ".git"))
    repo.commit("Runs that wait for each other")
    repo.run("--max", "1", "-k", "0000", "--autoresearch-lanes", "2", "--autoresearch-confirm", "standard")
    (baseline,) = repo.records()
    assert len(baseline.runs) > 2
    assert {run.lane for run in baseline.runs[1:]} == {0, 1}
    assert len({run.seed for run in baseline.runs}) == len(baseline.runs)
    logs = {path.stem for path in (repo.path / "experiments/runs/t/0000").glob("*.log")}
    assert logs == {"train", *(f"baseline-{n}" for n in range(2, len(baseline.runs) + 1))}
    repo.check_ledger()


@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")
def test_a_crash_in_one_lane_ends_the_baseline(repo: Repo) -> None:
    crashing = TOGETHER.replace("while len", "raise SystemExit(3)\n    while len")
    repo.write("train.py", crashing.format(git=repo.path / ".git"))
    repo.commit("A program that crashes on its second seed")
    result = repo.run("--max", "1", "--autoresearch-lanes", "2", "--autoresearch-confirm", "standard")
    assert result.ret == 1
    assert not repo.records()
    assert repo.training() == []


def test_ranks_on_a_cpu_share_the_cores_of_their_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(measure_lanes, "usable_cores", lambda: tuple(range(9)))
    four, two, one = on_cpu(4), on_cpu(2, wide=2), on_cpu("auto", wide=4)
    assert [lane.cores for lane in four.lanes] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert [lane.cores for lane in two.lanes] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [taken.threads["OMP_NUM_THREADS"] for taken in (four, two, one)] == ["2", "2", "2"]
    with pytest.raises(
        UserError, match=r"^--autoresearch-lanes 3 with --autoresearch-gpus 4: this machine has 9 cores"
    ):
        on_cpu(3, wide=4)
