"""What watching a run costs: the looks at its processes, memory, open files and folder, and stopping it.

    python benchmarks/looks.py

A tree of processes is watched as a run is: with what honest runs have, and with almost the most that is allowed. A run
is looked at ten times a second by a thread that waits in between, so the price in seconds is what the looks of a budget
take together. The clock does not wait for a look. Run it with nothing else on the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_autoresearch.runners.memory import Resident
from pytest_autoresearch.runners.open_files import count_open_files
from pytest_autoresearch.runners.supervisor import Descendants, kill_all, stop_all
from pytest_autoresearch.runners.watch import LOOK_SECONDS
from pytest_autoresearch.sandboxes.disk import Written

BUDGET_SECONDS = 300
ROUNDS = 50
CASES = (
    ("one process", 1, 40, 400, 4),
    ("with loaders", 8, 300, 64, 20),
    ("the most", 300, 150, 1, 9000),
)  # processes, open files, MiB, files in the folder
TREE = """
import os, sys, time
processes, files, megabytes = map(int, sys.argv[1:])
for _ in range(processes):
    if os.fork() == 0:
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(files)]
        memory = b"x" * (megabytes * 2**20)
        os.write(1, b".")
        time.sleep(600)
time.sleep(600)
"""


def main() -> None:
    print("| | processes | open files | processes, memory, files | folder | share of a run | stopped in |")
    print("|---|---|---|---|---|---|---|")
    for name, processes, files, megabytes, written in CASES:
        with tempfile.TemporaryDirectory() as folder, tree(processes, files, megabytes) as pid:
            disk = Written(Path(folder), 1000)
            for number in range(written):
                Path(folder, str(number)).touch()
            descendants, memory = Descendants({os.getpid()}), Resident(float("inf"), sandboxed=True)

            def look(descendants: Descendants = descendants, memory: Resident = memory) -> None:
                found = descendants.find().values()
                count_open_files(found)
                memory.look(found)

            looked, measured = seconds_of(look), seconds_of(lambda disk=disk, pid=pid: disk.over([pid]))
            begun = time.perf_counter()
            stop_all(Descendants({os.getpid()}).find)
            stopped = time.perf_counter() - begun
            kill_all(Descendants({os.getpid()}).find)
        each = looked + measured
        share = each / max(LOOK_SECONDS, each)
        print(
            f"| {name} | {processes} | {processes * files:,} | {1000 * looked:.1f} ms | {1000 * measured:.1f} ms "
            f"| {share:.1%} of one core, {share * BUDGET_SECONDS:.1f} s of {BUDGET_SECONDS} | {1000 * stopped:.0f} ms |"
        )


@contextmanager
def tree(processes: int, files: int, megabytes: int) -> Iterator[int]:
    """A tree of processes that hold files and memory."""
    arguments = map(str, (processes, files, megabytes))
    with subprocess.Popen(
        [sys.executable, "-S", "-c", TREE, *arguments], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for _ in range(processes):
            process.stdout.read(1)
        yield process.pid


def seconds_of(what: Callable[[], object]) -> float:
    """The CPU seconds of one call, as the mean of many that are made as often as in a run."""
    begun = time.thread_time()
    for _ in range(ROUNDS):
        what()
        time.sleep(LOOK_SECONDS)
    return (time.thread_time() - begun) / ROUNDS


if __name__ == "__main__":
    main()
