"""A GPU for machines that have none: a real shared library, compiled from `fake_nvml.c`, that the real binding loads.

What it answers stands in a text file, one fact a line, a later line before an earlier one:

    driver 580.159.04
    0 name NVIDIA H200
    0 uuid GPU-1a2b3c4d-0000-0000-0000-000000000000
    0 memory 143771 600 0         MiB: all, the driver's own share, and what nobody in a list holds
    0 compute 4711 5000           a process and its MiB; `-` for no figure. Also `graphics` and `mps`
    0 compute 4712 5000 foreign   listed though no such process lives here; others vanish with their process
    0 busy 80                     the percentage of the last moments in which a kernel was at work
    0 reasons 0x4                 what holds the clocks down, as NVML's bits
    0 lost                        it has fallen off the bus
    1 parent 0 3 1                device 1 is a MIG instance of device 0: GPU instance 3, compute instance 1
    fail nvmlDeviceGetName 15     what a function of the library answers; `*` is every function
    hang nvmlDeviceGetName        a function that does not return while the line is there

So a training script takes device memory by adding a line:

    with open(os.environ["NVIDIA_FAKE_NVML"], "a") as state:
        state.write(f"0 compute {os.getpid()} 5000\\n")
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from pytest_autoresearch.hardware import leases

UUID = "GPU-1a2b3c4d-0000-0000-0000-000000000000"
H200 = ("driver 580.159.04", "0 name NVIDIA H200", f"0 uuid {UUID}", "0 memory 143771 600 0")


@functools.cache
def library() -> Path:
    """The compiled library, made once in this process."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the fake NVML library needs a C compiler and there is no cc here")
    folder = Path(tempfile.mkdtemp(prefix="fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "libnvidia-ml.so.1"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", path, source], check=True)
    return path


class FakeNvml:
    """The library and its state: one H200, or what the lines say.

    Attributes:
        state: The file that the library reads.
    """

    def __init__(self, folder: Path, *lines: str) -> None:
        self._library = library()
        self.state = folder / "nvml.txt"
        self.set(*(lines or H200))

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a process sees this GPU. All of them reach training."""
        before = os.environ.get("LD_LIBRARY_PATH")
        folders = [str(self._library.parent), *([before] if before else [])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(folders), "NVIDIA_FAKE_NVML": str(self.state)}

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From here to the end of the test this process, and all that it starts, sees this GPU and no other."""
        import pynvml

        for name, text in self.environment.items():
            monkeypatch.setenv(name, text)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(self._library)))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        # Tests that run beside this one have GPUs of the same names.
        monkeypatch.setattr(leases, "FOLDER", self.state.parent / "devices")

    def set(self, *lines: str) -> None:
        """These lines and no others, from one moment to the next."""
        new = self.state.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self.state)

    def add(self, *lines: str) -> None:
        """These lines, too."""
        with self.state.open("a") as state:
            state.write("".join(f"{line}\n" for line in lines))
