"""What NVML shows of a GPU from outside, and what a query costs.

    python benchmarks/gpu_look.py [--gb 1 8 32]

A child process takes device memory with PyTorch; the table compares its own numbers with NVML's. Then: the milliseconds
of a query on an idle and on a busy GPU, a second process on the device, and the reasons for throttled clocks under
load. Without an NVIDIA GPU it says so and exits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from pytest_autoresearch.hardware import gpu_watch, nvml
from pytest_autoresearch.hardware.gpu import MIB, Gpu, visible
from pytest_autoresearch.hardware.gpu_watch import GpuWatch

CHILD = """
import json, sys, time
import torch

held = []
for line in sys.stdin:
    word, number = line.split()
    if word == "hold":  # GiB in total
        while len(held) < int(number):
            held.append(torch.ones(2**30, dtype=torch.uint8, device="cuda"))
    if word == "work":  # seconds
        one = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
        end = time.monotonic() + float(number)
        print(json.dumps("at work"), flush=True)
        while time.monotonic() < end:
            for _ in range(20):
                one @ one
            torch.cuda.synchronize()
        del one
        torch.cuda.empty_cache()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    print(json.dumps([torch.cuda.memory_reserved() / 2**20, (total - free) / 2**20]), flush=True)
"""


class Child:
    """A process with memory on the GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env={**os.environ, **gpu.environment},
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self._process.pid

    def tell(self, word: str, number: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word} {number}\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the child process has ended, as said above: is this PyTorch built for CUDA?")
        return json.loads(line)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def device_mb(gpu: Gpu) -> float:
    """Used memory of the whole device, from NVML, in MiB."""
    handle = nvml.ask("nvmlDeviceGetHandleByUUID", gpu.uuid)
    memory = nvml.ask("nvmlDeviceGetMemoryInfo", handle, nvml.value("nvmlMemory_v2"))
    return float("nan") if memory is None else memory.used / MIB


def memory(gpu: Gpu, child: Child, sizes: list[int]) -> None:
    print("\nmemory in MiB   inside: allocator   device   outside: by process   device growth   process less allocator")
    before, watch = device_mb(gpu), GpuWatch(gpu)
    for size in sizes:
        child.tell("hold", size)
        allocator, device = child.answer()
        outside, grown = watch.look([child.pid]), device_mb(gpu) - before
        how = "" if watch.seen().how == "by process" else f"   ({watch.seen().how})"
        print(
            f"{size:>5} GiB held   {allocator:>17,.0f}{device:>9,.0f}{outside:>22,.0f}{grown:>16,.0f}"
            f"{outside - allocator:>25,.0f}{how}"
        )


def cost(gpu: Gpu, child: Child, what: str) -> None:
    for kind, full_seconds in (("ordinary", 1e6), ("full", 0.0)):
        gpu_watch.FULL_SECONDS = full_seconds
        watch = GpuWatch(gpu)
        watch.look([child.pid])  # always a full query
        taken = []
        for _ in range(200):
            began = time.perf_counter()
            watch.look([child.pid])
            taken.append(1000 * (time.perf_counter() - began))
        taken.sort()
        print(f"{what:<12}{kind:<10}{statistics.median(taken):>9.2f}{taken[197]:>9.2f}{taken[-1]:>9.2f}")


def watched(watch: GpuWatch, pids: list[int], seconds: float) -> None:
    """Query ten times a second, as a runner does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.look(pids)
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=int, nargs="+", default=[1, 8, 32], help="how much to hold, in GiB (1 8 32)")
    sizes = sorted(parser.parse_args().gb)
    found = visible(os.environ)
    if not found.gpus:
        print(f"There is no NVIDIA GPU to look at here ({found.why}); nothing was measured.")
        return
    gpu = found.gpus[0]
    size = "unknown" if gpu.memory_mb is None else f"{gpu.memory_mb:,.0f} MiB"
    print(f"{gpu.key}; {gpu.uuid}; memory {size}; {len(found.gpus)} visible; {device_mb(gpu):,.0f} MiB held before")
    children = [Child(gpu)]
    try:
        first = children[0]
        memory(gpu, first, sizes)

        print("\none look, in ms        median      p99      max")
        usual = gpu_watch.PATIENCE_SECONDS, gpu_watch.FULL_SECONDS
        gpu_watch.PATIENCE_SECONDS = 10.0  # measures a query for which a session would not wait
        cost(gpu, first, "idle")
        first.tell("work", 8)
        first.answer()
        cost(gpu, first, "at work")
        first.answer()
        gpu_watch.PATIENCE_SECONDS, gpu_watch.FULL_SECONDS = usual

        watch = GpuWatch(gpu)
        children.append(Child(gpu))
        children[1].tell("hold", 1)
        children[1].answer()
        first.tell("work", 6)
        first.answer()
        watched(watch, [first.pid], 5.0)
        seen = watch.seen()
        print(f"\nthe second process is {children[1].pid}; others seen: {seen.others}")
        print(f"clocks held down under load, share of the looks: {seen.throttling}")
        print(f"peak of the first process: {seen.peak_mb:,.0f} MiB, {seen.how}")
    finally:
        for child in children:
            child.end()


if __name__ == "__main__":
    main()
