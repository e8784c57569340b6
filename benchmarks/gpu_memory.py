"""Whether a process can read what an ended process has left in the GPU's memory. `python benchmarks/gpu_memory.py`.

One process fills nearly all memory with a pattern and is killed; the next one allocates as much and looks for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

_PATTERN = 0xA5C3A5C3
_STEP, _READ = 2**28, 2**26  # of every 256 MiB, 64 MiB are read


def main() -> None:
    subprocess.run([sys.executable, __file__, "write"], check=False)
    subprocess.run([sys.executable, __file__, "read"], check=True)


def one(what: str) -> None:
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *given: object) -> None:
        if status := getattr(cuda, name)(*given):
            sys.exit(f"{name} returned {status}")

    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    size = int(0.95 * free.value) // _STEP * _STEP
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
    if what == "write":
        call("cuMemsetD32_v2", memory, ctypes.c_uint(_PATTERN), ctypes.c_size_t(size // 4))
        call("cuCtxSynchronize")
        print(f"wrote {size / 2**30:.0f} GiB", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    block, found = ctypes.create_string_buffer(_READ), 0
    for at in range(0, size, _STEP):
        call("cuMemcpyDtoH_v2", block, ctypes.c_uint64(memory.value + at), ctypes.c_size_t(_READ))
        found += _READ - block.raw.count(b"\0")
    print(f"read {size / _STEP * _READ / 2**30:.0f} of {size / 2**30:.0f} GiB: {found} bytes are not 0")


if __name__ == "__main__":
    one(sys.argv[1]) if len(sys.argv) > 1 else main()
