"""Looks at a process tree: the clock does not wait for one, and none of them misses memory or files."""

from __future__ import annotations

import math
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.runners.memory import MIB, MemoryUse, Resident
from pytest_autoresearch.runners.open_files import count_open_files
from pytest_autoresearch.runners.process_trees import TREE
from pytest_autoresearch.runners.supervisor import Process, look
from pytest_autoresearch.runners.time_limits import Fence, TimeLimit
from pytest_autoresearch.runners.unmapped_memory import _private
from pytest_autoresearch.runners.watch import Bounds, watch
from pytest_autoresearch.sandboxes.disk import Written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is looked at is in Linux's /proc")


class UntilStopped:
    """A look at memory that does not end until the tree is stopped, or gives up after a long time."""

    stopped = False

    def look(self, processes: Collection[Process]) -> float:
        until = time.monotonic() + 30
        while processes and not self.stopped and time.monotonic() < until:
            now = [look(process.pid) for process in processes]
            self.stopped = all(process is not None and process.stopped for process in now)
            time.sleep(0.005)
        return 0.0

    def over(self) -> str:
        return ""

    def usage(self) -> MemoryUse:
        return MemoryUse()


def test_the_tree_is_stopped_at_its_limit_though_a_look_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "import os, time; os.fork(); time.sleep(60)"]
    tree = TREE(command, tmp_path, {"PATH": os.environ["PATH"]})
    memory, crash = UntilStopped(), Crash(CrashClass.OVER_BUDGET, "over")
    bounds = Bounds(lambda: TimeLimit(0.3, crash), memory, 100)
    ended = watch(tree, bounds, feed=lambda data: None, tick=lambda seconds, memory_mb: None)
    assert memory.stopped
    assert ended.crash == crash


def test_training_passes_the_end_of_its_budget_only_without_a_model(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    assert fence.passes()
    (tmp_path / "model.pt").write_text("a model, changed at this moment")
    assert not fence.passes()


@contextmanager
def child(program: str) -> Iterator[Process]:
    """A process that has run this program, and waits."""
    script = f"{program}\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        seen = look(process.pid)
        assert seen is not None
        yield seen
        process.communicate()


HIDDEN = """
import mmap
memory = mmap.mmap(-1, 64 * 2**20)
for start in range(0, 64 * 2**20, 2**20):
    memory[start : start + 2**20] = b"x" * 2**20
    memory.madvise(mmap.MADV_DONTNEED, start, 2**20)
"""


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system has no such advice")
def test_shared_memory_that_is_in_no_page_table_counts_without_a_control_group_too() -> None:
    memory = Resident(math.inf, sandboxed=True)
    with child(HIDDEN) as process:
        assert process.resident_bytes < 40 * MIB
        assert memory.look([process]) > 64


def test_memory_that_the_kernel_counts_counts() -> None:
    memory = Resident(1.0, sandboxed=True, counted=lambda: 5 * MIB)
    memory.look([])
    assert "used 5 MiB" in memory.over()
    assert memory.usage().peak_mb == 5


def test_a_place_is_asked_for_its_device_and_its_size_by_one_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    # While a sandbox starts, a path leads to its own small file system at one moment and to a disk at the next.
    monkeypatch.setattr(os, "statvfs", lambda path: pytest.fail("asked by its path"))
    with child("") as process:
        assert _private([process]) == {}


def test_open_files_are_counted_up_to_a_limit() -> None:
    with child("import os\nfor _ in range(200): os.dup(0)") as process:
        assert 200 < count_open_files([process]) < 300
        assert count_open_files([process] * 1000, 500) < 800


def test_files_below_a_path_that_is_too_long_and_every_name_of_a_file_count(tmp_path: Path) -> None:
    written, names = Written(tmp_path, 4), Written(tmp_path, 4, most_files=50)
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=folder)
        inside = os.open("x" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inside
    assert written.over([]) == ""
    file = os.open("room", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.posix_fallocate(file, 0, 8 * MIB)
    assert "wrote 8 MiB" in written.over([])
    assert "wrote 8 MiB" in names.over([])
    for number in range(50):
        os.link("room", str(number), src_dir_fd=folder, dst_dir_fd=folder)
    assert names.over([]) == "left more than 50 files in its folder"
    os.close(file)
    os.close(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    written = Written(tmp_path, 4)
    (tmp_path / "closed").mkdir(mode=0)
    assert written.over([]) == "made a folder that cannot be read"
    (tmp_path / "closed").chmod(0o700)
