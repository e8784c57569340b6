"""GPUs as NVML shows them: the real binding on a real shared library, whose answers a text file holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nvml import H200, UUID, FakeNvml

from pytest_autoresearch.hardware import gpu_watch
from pytest_autoresearch.hardware.gpu import Gpu, variables, visible
from pytest_autoresearch.hardware.gpu_watch import GpuWatch

THREE = (
    "driver 570.1",
    *("0 name RTX A", "0 uuid GPU-aa111111-0000", "0 memory 24000 300 0"),
    *("1 name RTX B", "1 uuid GPU-bb222222-0000", "1 memory 24000 300 0"),
    *("2 name RTX C", "2 uuid GPU-bb333333-0000", "2 memory 24000 300 0"),
)
MIG = (
    *H200,
    *("1 name NVIDIA H200 MIG 1g.18gb", "1 uuid MIG-cc444444-0000", "1 memory 18000 0 0", "1 parent 0"),
    *("2 name NVIDIA H200 MIG 2g.35gb", "2 uuid MIG-dd555555-0000", "2 memory 35000 0 0", "2 parent 0"),
)
LISTS = ("Compute", "Graphics", "MPSCompute")
NOBODY = 4_999_999  # above every process number that Linux gives
FUNCTION_NOT_FOUND, GPU_IS_LOST, RM_MISMATCH = 13, 15, 18


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """One H200; every look is a full one, has time, and is in the driver's own pid namespace."""
    fake = FakeNvml(tmp_path)
    fake.use(monkeypatch)
    monkeypatch.setattr(gpu_watch, "FULL_SECONDS", 0.0)
    monkeypatch.setattr(gpu_watch, "PATIENCE_SECONDS", 30.0)
    monkeypatch.setattr(gpu_watch, "_FIRST_NAMESPACE", os.stat("/proc/self/ns/pid").st_ino)
    return fake


@pytest.fixture
def pids() -> Iterator[list[int]]:
    """Three processes that live."""
    sleepers = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    yield [sleeper.pid for sleeper in sleepers]
    for sleeper in sleepers:
        sleeper.kill()
        sleeper.wait()


def only() -> Gpu:
    (gpu,) = visible({}).gpus
    return gpu


def in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_watch, "_FIRST_NAMESPACE", 0)


# ------------------------------------------------------------------------------------------------------- which GPU


def test_a_gpu_is_known_by_name_and_uuid_and_is_given_by_its_uuid(nvml: FakeNvml) -> None:
    gpu = only()
    assert gpu == Gpu("NVIDIA H200", UUID, "580.159.04", 143771.0)
    assert gpu.key == "NVIDIA H200, GPU-1a2b3c4d"
    assert variables([gpu]) == {"CUDA_VISIBLE_DEVICES": UUID, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (None, "ABC"),
        ("1", "B"),
        (" 2, 0", "CA"),
        ("0,2,-1,1", "AC"),
        ("GPU-bb2", "B"),
        ("GPU-bb333333-0000,0", "CA"),
        ("0,GPU-bb", "A"),  # two begin like that
        ("", ""),
        ("-1", ""),
        ("NoDevFiles", ""),
        ("9", ""),
        ("1,1", ""),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(nvml: FakeNvml, wanted: str | None, names: str) -> None:
    nvml.set(*THREE)
    found = visible({} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted})
    assert "".join(gpu.name[-1] for gpu in found.gpus) == names
    assert found.why == ("" if names else f"CUDA_VISIBLE_DEVICES={wanted} names no GPU")


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (None, ["MIG-cc444444-0000", "MIG-dd555555-0000"]),
        ("0", ["MIG-cc444444-0000"]),
        ("GPU-1a2b3c4d", ["MIG-cc444444-0000"]),
        ("MIG-dd555555-0000", ["MIG-dd555555-0000"]),
    ],
)
def test_a_gpu_in_mig_mode_is_used_by_its_instances(nvml: FakeNvml, wanted: str | None, ids: list[str]) -> None:
    nvml.set(*MIG)
    found = visible({} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}).gpus
    assert [variables([gpu])["CUDA_VISIBLE_DEVICES"] for gpu in found] == ids
    assert found[-1].key.startswith("NVIDIA H200 MIG ")


def test_a_gpu_that_fell_off_the_bus_hides_no_other(nvml: FakeNvml) -> None:
    nvml.set(*THREE, "1 lost")
    assert [gpu.name for gpu in visible({}).gpus] == ["RTX A", "RTX C"]
    assert visible({"CUDA_VISIBLE_DEVICES": "1"}).gpus == ()


def test_a_driver_that_says_no_is_no_gpu_and_says_why(nvml: FakeNvml) -> None:
    nvml.add(f"fail * {RM_MISMATCH}")
    assert visible({}).why == "NVML error: RM has detected an NVML/RM version mismatch."
    nvml.set("driver 580")
    assert visible({}).why == "NVML lists no working GPU"
    nvml.state.unlink()
    found = visible({})
    assert (found.gpus, found.why) == ((), "NVML error: Driver Not Loaded")


def python(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, text=True, capture_output=True, check=True
    )
    return done.stdout.strip()


def test_without_library_or_binding_there_is_no_gpu_and_nothing_is_imported_before_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    said = python(
        "import sys; from pytest_autoresearch.hardware.gpu import visible\n"
        "from pytest_autoresearch.hardware import gpu_watch\n"
        "print('pynvml' in sys.modules, visible({}).why); sys.modules['pynvml'] = None; print(visible({}).why)",
        LD_LIBRARY_PATH=str(tmp_path),
    )
    assert said == "False NVML error: NVML Shared Library Not Found\nthe package nvidia-ml-py is not installed"


def test_a_process_that_is_started_with_the_fake_sees_it(tmp_path: Path) -> None:
    code = "from pytest_autoresearch.hardware.gpu import visible; print(*(gpu.key for gpu in visible({}).gpus))"
    assert python(code, **FakeNvml(tmp_path).environment) == "NVIDIA H200, GPU-1a2b3c4d"


# --------------------------------------------------------------------------------------------------- during a run


def test_the_memory_of_a_run_is_the_sum_over_its_processes_each_counted_once(nvml: FakeNvml, pids: list[int]) -> None:
    one, two, stranger = pids
    nvml.add(f"0 compute {stranger} 9000")
    watch = GpuWatch(only())
    assert watch.look([one, two]) == 0.0
    nvml.add(f"0 compute {one} 5000", f"0 graphics {one} 5000", f"0 graphics {two} 200", f"0 mps {two} 700")
    assert watch.look([one, two]) == 5700.0
    nvml.add(f"0 compute {one} 100", f"0 graphics {one} 100")
    assert watch.look([one, two]) == 800.0
    assert watch.look([]) == 0.0
    seen = watch.seen()
    assert (seen.peak_mb, seen.how) == (5700.0, "by process")


def test_between_full_looks_memory_is_still_seen(
    nvml: FakeNvml, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = GpuWatch(only())
    watch.look(pids)
    monkeypatch.setattr(gpu_watch, "FULL_SECONDS", 1e6)
    nvml.add(f"0 graphics {pids[0]} 300", f"0 compute {pids[1]} 1000")
    assert watch.look(pids) == 1300.0
    nvml.add(f"0 compute {pids[1]} 40000", "0 reasons 0x4")
    assert watch.look(pids) == 40300.0
    assert watch.seen().throttling == {}


@pytest.mark.parametrize(
    "listed",
    [
        (),
        (f"0 compute {NOBODY} 5000 foreign",),  # the host's number for the run
        (
            "0 compute {pid} 0",
            "0 memory 143771 600 6000",
        ),  # our number, translated by the driver, which then finds no figure
        ("0 compute {pid} -", "0 memory 143771 600 6000"),
    ],
)
def test_where_no_process_has_a_figure_the_growth_of_the_device_counts(
    nvml: FakeNvml, pids: list[int], monkeypatch: pytest.MonkeyPatch, listed: tuple[str, ...]
) -> None:
    in_a_container(monkeypatch)
    nvml.add("0 memory 143771 600 1000")
    watch = GpuWatch(only())
    nvml.add(*(line.format(pid=pids[0]) for line in listed or ("0 memory 143771 600 6000",)))
    assert watch.look(pids) == 5000.0
    seen = watch.seen()
    assert (seen.peak_mb, seen.how) == (5000.0, "by device growth")


def test_memory_that_the_run_before_gives_back_is_no_credit(
    nvml: FakeNvml, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_container(monkeypatch)
    nvml.add("0 memory 143771 600 40000")
    watch = GpuWatch(only())
    nvml.add("0 memory 143771 600 500")
    assert watch.look(pids) == 0.0
    nvml.add("0 memory 143771 600 8500")
    assert watch.look(pids) == 8000.0
    nvml.add(f"fail nvmlDeviceGetMemoryInfo_v2 {GPU_IS_LOST}")  # the older function counts the driver's share, too
    assert watch.look(pids) == 0.0


def test_growth_counts_no_more_once_a_process_has_a_figure(
    nvml: FakeNvml, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_container(monkeypatch)
    watch = GpuWatch(only())
    nvml.add("0 memory 143771 600 50000")  # somebody else's
    assert watch.look(pids) == 50000.0
    nvml.add(f"0 compute {pids[0]} 5000")
    assert watch.look(pids) == 5000.0
    nvml.add(*(f"fail nvmlDeviceGet{kind}RunningProcesses_v{n} {GPU_IS_LOST}" for kind in LISTS for n in (2, 3)))
    assert watch.look(pids) == 0.0
    assert (watch.seen().peak_mb, watch.seen().how) == (5000.0, "by process")


def test_another_process_filling_the_device_is_not_charged_to_the_run(nvml: FakeNvml, pids: list[int]) -> None:
    run, stranger = pids[:1], pids[1]
    watch = GpuWatch(only())
    nvml.add(f"0 compute {stranger} 90000")
    assert watch.look(run) == 0.0
    assert watch.seen().how == "by process"


def test_others_are_named_when_two_looks_find_them(nvml: FakeNvml, pids: list[int]) -> None:
    run, young, stranger = pids
    watch = GpuWatch(only())
    watch.look([run])
    nvml.add(f"0 compute {young} 100", f"0 graphics {stranger} 100")
    watch.look([run])
    assert watch.seen().others == ()
    watch.look([run, young])
    assert watch.seen().others == (f"sleep (process {stranger}), drawing",)


def test_a_process_that_has_ended_is_no_other_though_the_device_still_lists_it(nvml: FakeNvml) -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        nvml.add(f"0 compute {ended.pid} 100 foreign", f"0 compute {NOBODY} 100 foreign")
        watch = GpuWatch(only())
        for _ in range(3):
            watch.look([])
        assert watch.seen().others == ()


def test_in_a_container_only_who_was_there_before_is_surely_another(
    nvml: FakeNvml, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_container(monkeypatch)
    nvml.add(f"0 compute {NOBODY} 3000 foreign")
    watch = GpuWatch(only())
    nvml.add(f"0 compute {NOBODY + 1} 5000 foreign")  # the run, under the host's number
    for _ in range(3):
        watch.look(pids)
    assert watch.seen().others == (f"process {NOBODY} of another pid namespace",)
    assert watch.seen().peak_mb == 5000.0


def test_throttling_is_told_by_cause_and_share_of_the_looks(nvml: FakeNvml, pids: list[int]) -> None:
    watch = GpuWatch(only())
    for reasons in ("0x1", "0x6", "0x6c", "0x8"):  # idle; power cap, chosen clocks; power cap, thermal; without a cause
        nvml.add(f"0 reasons {reasons}")
        watch.look(pids)
    assert watch.seen().throttling == {
        "power cap": 0.5, "thermal (software)": 0.25, "thermal (hardware)": 0.25, "hardware slowdown": 0.25,
    }  # fmt: skip


def test_a_busy_gpu_is_counted_but_not_beside_others_and_not_on_an_instance(nvml: FakeNvml, pids: list[int]) -> None:
    run, stranger = pids[:1], pids[1]
    nvml.add("0 busy 50", f"0 compute {run[0]} 100")
    watch = GpuWatch(only())
    began = time.monotonic()
    watch.look(run)
    assert watch.busy_seconds is not None
    while watch.busy_seconds < 0.2:
        time.sleep(0.01)
        watch.look(run)
    assert time.monotonic() - began >= 0.4
    nvml.add(f"0 compute {stranger} 100")
    watch.look(run)
    before = watch.busy_seconds
    time.sleep(0.05)
    watch.look(run)
    assert watch.busy_seconds == before
    nvml.set(*MIG, "2 busy 50")
    instance = GpuWatch(visible({"CUDA_VISIBLE_DEVICES": "MIG-dd555555-0000"}).gpus[0])
    instance.look(run)
    assert instance.busy_seconds is None


def test_an_older_driver_is_asked_by_older_names(nvml: FakeNvml, pids: list[int]) -> None:
    newer = [f"nvmlDeviceGet{kind}RunningProcesses_v3" for kind in LISTS]
    newer += ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons"]
    nvml.add(*(f"fail {name} {FUNCTION_NOT_FOUND}" for name in newer), "0 reasons 0x80")
    watch = GpuWatch(only())
    nvml.add(f"0 compute {pids[0]} 5000")
    assert watch.look(pids) == 5000.0
    seen = watch.seen()
    assert (seen.peak_mb, seen.how, seen.throttling) == (5000.0, "by process", {"power brake": 1.0})


def test_growth_is_measured_by_an_older_driver_too(nvml: FakeNvml, pids: list[int]) -> None:
    nvml.add(f"fail nvmlDeviceGetMemoryInfo_v2 {FUNCTION_NOT_FOUND}")
    watch = GpuWatch(only())
    nvml.add(f"0 compute {pids[0]} -", "0 memory 143771 600 6000")
    assert watch.look(pids) == 6000.0


def test_a_mig_instance_has_its_own_memory_and_the_clocks_of_the_whole_gpu(nvml: FakeNvml, pids: list[int]) -> None:
    nvml.set(*MIG, "0 reasons 0x40", f"0 compute {pids[1]} 70000")
    watch = GpuWatch(visible({"CUDA_VISIBLE_DEVICES": "MIG-dd555555-0000"}).gpus[0])
    nvml.add(f"2 compute {pids[0]} 5000")
    assert watch.look(pids) == 5000.0
    assert watch.seen().throttling == {"thermal (hardware)": 1.0}


def test_a_gpu_lost_in_mid_run_leaves_what_was_measured(nvml: FakeNvml, pids: list[int]) -> None:
    gpu = only()
    watch = GpuWatch(gpu)
    nvml.add(f"0 compute {pids[0]} 5000")
    watch.look(pids)
    nvml.add("0 lost")
    assert watch.look(pids) == 0.0
    assert (watch.seen().peak_mb, watch.seen().how) == (5000.0, "by process")
    following = GpuWatch(gpu)
    assert following.look(pids) == 0.0
    seen = following.seen()
    assert (seen.peak_mb, seen.how, seen.others, seen.throttling) == (0.0, "not measured", None, None)


def test_a_driver_that_does_not_answer_holds_nobody_up(
    nvml: FakeNvml, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = GpuWatch(only())
    nvml.add(f"0 compute {pids[0]} 5000")
    assert watch.look(pids) == 5000.0
    monkeypatch.setattr(gpu_watch, "PATIENCE_SECONDS", 0.01)
    nvml.add(f"0 compute {pids[0]} 6000", "hang nvmlDeviceGetComputeRunningProcesses_v3")
    assert [watch.look(pids) for _ in range(3)] == [5000.0] * 3  # returns at all, with what was known
    nvml.set(*H200, f"0 compute {pids[0]} 7000")
    end = time.monotonic() + 30
    while watch.look(pids) != 7000.0 and time.monotonic() < end:
        time.sleep(0.01)
    assert watch.seen().peak_mb == 7000.0
