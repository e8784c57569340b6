"""Throughput of the runner for a process with huge output, in MB/s.

Compared with the same process into /dev/null and into a loop that only reads a pipe.

    python benchmarks/output.py [--gb N]

Peak memory is the reader's increase; log is the size of the log on disk. Linux only.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_autoresearch.core.run import Limits
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.runners.supervised import PIPE_BYTES
from pytest_autoresearch.runners.watch import READ_BYTES

MB = 1_000_000
KINDS = {
    "long lines": b"x" * 999 + b"\n",
    "short lines": b"12345 abc\n",
    "no line ends": b"x" * 1000,
    "carriage returns": b"\rstep 00012 (3.0%) | loss: 3.141593 | tok/sec: 1,234,567",
    "colours": b"\x1b[32mstep 12\x1b[0m | \x1b[1mloss: 3.1\x1b[0m\n",
    "the metric's name": b"epoch 3 | val_bpb so far 3.141593 | best val_bpb 3.1\n",
    "the metric": b"val_bpb: 3.141593\n",
}
PRINTER = """
import os, sys
line, left = bytes.fromhex(sys.argv[1]), int(sys.argv[2])
block = line * (1_000_000 // len(line))
while left > 0:
    left -= os.write(1, block[:left])
os.write(1, b"\\n---\\nval_bpb: 0.5\\n")
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What the runner takes of a process that prints without end.")
    parser.add_argument("--gb", type=float, default=10.0, help="how much each process prints (10)")
    given = parser.parse_args()
    print(f"{given.gb:g} GB each, MB/s\n")
    print(f"{'':20}{'/dev/null':>10}{'a pipe':>10}{'runner':>10}{'of the pipe':>13}{'peak memory':>14}{'log':>10}")
    for kind, line in KINDS.items():
        command = (sys.executable, "-S", "-c", PRINTER, line.hex(), str(int(given.gb * 1000 * MB)))
        rates = [given.gb * 1000 / seconds for seconds in (_into_nothing(command), _into_a_loop(command))]
        seconds, memory_mb, log_kb = _into_the_runner(command)
        rates.append(given.gb * 1000 / seconds)
        numbers = "".join(f"{rate:10,.0f}" for rate in rates)
        print(f"{kind:20}{numbers}{rates[2] / rates[1]:13.2f}{memory_mb:11.1f} MB{log_kb:7,.0f} KB", flush=True)


def _into_nothing(command: tuple[str, ...]) -> float:
    begun = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begun


def _into_a_loop(command: tuple[str, ...]) -> float:
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        while os.read(process.stdout.fileno(), READ_BYTES):
            pass
    return time.monotonic() - begun


def _into_the_runner(command: tuple[str, ...]) -> tuple[float, float, float]:
    """Seconds, increase of memory in MB, size of the log in KB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        limits = Limits(budget_seconds=3600.0, startup_seconds=3600.0, deadline_seconds=3600.0)
        job = Job(command, folder, folder, folder / "run.log", 0, 0, limits, "val_bpb", None, folder)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _status("VmRSS")
        run = LocalRunner().run(job, lambda progress: None)
        assert run.metric == 0.5, run
        return run.total_seconds, (_status("VmHWM") - before) / 1000, job.log.stat().st_size / 1000


def _status(field: str) -> float:
    """A memory field of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
