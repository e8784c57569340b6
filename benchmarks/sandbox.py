"""The time to start a sandbox, and to test it. `python benchmarks/sandbox.py [ROUNDS]`."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pytest_autoresearch.sandboxes.base import Backend, Unconfined, View
from pytest_autoresearch.sandboxes.bubblewrap import Made, installed
from pytest_autoresearch.sandboxes.selftest import try_out


def main(rounds: int) -> None:
    backend = installed()
    if backend is None:
        sys.exit("bubblewrap is not installed: apt install bubblewrap")
    view = View(Path("/"), {"PATH": os.environ["PATH"]})

    def start(kind: Backend) -> None:
        with kind.prepare(view) as prepared:
            command = [*prepared.argv_prefix, "true"]
            subprocess.run(command, env=dict(prepared.environment), pass_fds=prepared.pass_fds, check=True)

    bare = [backend.program, "--unshare-all", "--ro-bind", "/", "/", "true"]
    measured: dict[str, Callable[[], object]] = {
        "a process": lambda: start(Unconfined()),
        "bubblewrap itself": lambda: subprocess.run(bare, check=True),
        "the sandbox's options": lambda: backend.options(view, Made()),
        "the sandbox": lambda: start(backend),
        "trying it out": lambda: try_out(backend, view),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):  # alternating, so that a busy moment affects all
        for name, call in measured.items():
            begun = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begun)
    print("| | median, ms | fastest, ms |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {statistics.median(each) * 1000:.1f} | {min(each) * 1000:.1f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
