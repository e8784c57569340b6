"""The single checks of `autoresearch doctor`: what this machine and this repository offer a campaign.

Does not import what it checks: PyTorch is checked in a separate process. Prints nothing, and of a key it only tells
whether it is set.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pytest_autoresearch.core import mixture
from pytest_autoresearch.hardware import nvml
from pytest_autoresearch.hardware.gpu import Gpu, Visible
from pytest_autoresearch.ledger.git import version as git_version
from pytest_autoresearch.sandboxes.select import Sandbox

LEAST_PYTHON = (3, 11)
LEAST_GIT = (2, 31)  # the first with `git rev-parse --path-format=absolute`
LEAST_FREE_MB = 1024.0
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_TORCH_SECONDS = 120.0  # a first import from a cold network disk can be slow
# First PyTorch's libraries alone, which takes a tenth of the time of its modules and finds what they lack. Only where
# that gives no GPU, or an error, is PyTorch imported, which says why.
_ASK_TORCH = """
import ctypes, json, runpy
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

def libraries():
    folder = Path(find_spec("torch").origin).parent
    about = runpy.run_path(str(folder / "version.py"))
    if not any((folder / f"_C{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        raise ImportError("built for another Python")
    ctypes.CDLL(str(folder / "lib" / "libtorch.so"))
    said = {"version": about["__version__"], "cuda": about["cuda"], "usable": False}
    if about["cuda"]:
        count = ctypes.CDLL(str(folder / "lib" / "libc10_cuda.so"))["_ZN3c104cuda12device_countEv"]
        count.restype = ctypes.c_int8
        said["usable"] = count() > 0
        if not said["usable"]:
            raise OSError("no GPU")
    return said

try:
    said = libraries()
except Exception:
    try:
        import torch
        said = {"version": torch.__version__, "cuda": torch.version.cuda, "usable": torch.cuda.is_available()}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(said))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: What was checked.
        failed: Whether it prevents a campaign; None if a campaign can run without it.
        said: What was found.
        remedy: How to fix it, as a command if possible; empty if nothing is wrong.
    """

    name: str
    failed: bool | None
    said: str
    remedy: str = ""

    @property
    def status(self) -> str:
        """`ok`, `note` or `failed`."""
        return "note" if self.failed is None else "failed" if self.failed else "ok"


def told(name: str, failed: bool | None, sentence: str, remedy: str = "") -> Check:
    """A check with a sentence; a command quoted in the sentence is the remedy if there is no other."""
    typed = re.search(r"type `([^`]+)`", sentence)
    return Check(name, failed, sentence, remedy or (typed[1] if typed else ""))


def python() -> Check:
    """The interpreter that runs this."""
    version = platform.python_version()
    if sys.version_info < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        return Check("python", True, f"{version} is too old", f"install Python {least} or newer")
    return Check("python", False, f"{version}, {sys.executable}")


def git() -> tuple[Check, str]:
    """Git on PATH, and its version."""
    found = git_version()
    version = ".".join(map(str, found))
    if not found:
        return Check("git", True, "not installed, or not on PATH", "apt install git"), ""
    if found < LEAST_GIT:
        least = ".".join(map(str, LEAST_GIT))
        return Check("git", True, f"{version} is too old: {least} or newer is needed", "apt install git"), version
    return Check("git", False, version), version


def gpu(seen: Visible) -> Check:
    """The GPUs that a session may use; without one, experiments run on the CPU."""
    if not seen.gpus:
        return Check("gpu", None, f"none ({seen.why}): training runs on the CPU, with the profile cpu")
    first = seen.gpus[0]
    memory = "memory unknown" if first.memory_mb is None else f"{first.memory_mb:.0f} MB"
    more = f"; {len(seen.gpus)} in total" if len(seen.gpus) > 1 else ""
    return Check("gpu", False, f"{first.name}, {memory}, driver {first.driver}{more}")


def ask_torch(environment: Mapping[str, str]) -> dict[str, Any]:
    """PyTorch's `version`, the `cuda` version of its build, and whether CUDA is `usable`; or its `error`."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH],
            env=os.environ | dict(environment), capture_output=True, text=True, timeout=_TORCH_SECONDS, check=False,
        )  # fmt: skip
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"import took longer than {_TORCH_SECONDS:.0f} s"}
    except (IndexError, ValueError):
        return {"error": f"importing it ended Python with exit status {done.returncode}"}
    return said


def torch(said: Mapping[str, Any], seen: Gpu | None, needed: bool) -> Check:
    """PyTorch, and whether it can use the GPU.

    Args:
        said: See `ask_torch`.
        needed: Whether the repository's harness needs it.
    """
    if error := said.get("error"):
        absent = str(error).startswith("ModuleNotFoundError")
        what = "not installed" if absent else str(error)
        return Check("pytorch", True if needed or not absent else None, what, "pip install torch")
    built = f"built for CUDA {said['cuda']}" if said["cuda"] else "built for CPUs"
    text = f"{said['version']}, {built}"
    if seen is None or said["usable"]:
        return Check("pytorch", False, text)
    if not said["cuda"]:
        return Check("pytorch", True, f"{text}, so it cannot use the GPU", "pip install --force-reinstall torch")
    driver = _driver_cuda()
    whose = f": the driver supports CUDA up to {driver}" if driver else ""
    remedy = "update the driver, or install a PyTorch for its CUDA (https://pytorch.org/get-started/locally)"
    return Check("pytorch", True, f"{text}, but it cannot use the GPU{whose}", remedy)


def session(root: Path) -> Check:
    """All that `pytest --autoresearch` checks before it touches anything, by running it as far as that."""
    command = [sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-check", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Check("session", False, "`pytest --autoresearch` can begin")
    said = [line.strip() for line in f"{done.stderr}\n{done.stdout}".splitlines() if line.strip()]
    errors = [line for mark in ("ERROR", "E ") for line in said if line.startswith(mark)]
    first = next(iter([*errors, *said[-1:]]), "it ended without a word")
    return Check("session", True, first.removeprefix("ERROR: "))


def disk(folder: Path) -> tuple[Check, float]:
    """Free space of the repository's and the cache's disk, in MiB: the smaller of the two."""
    free = {place: shutil.disk_usage(place).free / 2**20 for place in {folder, _existing(_cache())}}
    place = min(free, key=lambda one: free[one])
    said = f"{free[place] / 1024:.1f} GB free in {place}"
    if free[place] < LEAST_FREE_MB:
        return Check("disk", True, said, f"free some space: du -xh {place} | sort -h | tail"), free[place]
    return Check("disk", False, said), free[place]


def sandbox(found: Sandbox, policy: str) -> Check:
    """The sandbox of experiments, as found by trying it.

    Args:
        policy: One of the settings' SANDBOXES.
    """
    if policy == "off":
        return Check("sandbox", None, "switched off in the configuration: proposals run with your own rights")
    if not found.why:
        return Check("sandbox", False, f"{found.words}, tried: it works")
    installed = shutil.which("bwrap") is not None
    remedy = "docs/trust.md says what to do" if installed else "apt install bubblewrap"
    without = "" if policy == "require" else "; proposals run with your own rights" * (not found.confines)
    return Check("sandbox", True if policy == "require" else None, found.words + without, remedy)


def key(proposer: str) -> Check:
    """Whether a key for the Anthropic API is set; the key itself is not checked."""
    name = next((name for name in KEYS if os.environ.get(name)), None)
    if name:
        return Check("key", False, f"{name} is set")
    needed = any(part.proposer == "anthropic" for part in mixture.parts(proposer))
    said = "none, but the configured proposer needs one" if needed else "none: `search` or an agent proposes"
    return Check("key", True if needed else None, said, f"export {KEYS[0]}=...")


def ray() -> Check:
    """Whether Ray is installed, for clusters."""
    there = find_spec("ray") is not None
    return Check("ray", False if there else None, "installed" if there else "not installed: not needed on one machine")


def profile(seen: Gpu | None) -> str:
    """The hardware class by memory, for a repository whose harness does not name one; see docs/hardware.md."""
    gb = (seen.memory_mb or 0.0) / 1024 if seen else 0.0
    for name, least in (("a100-80", 80), ("a100-40", 40), ("rtx-24", 24), ("rtx-12", 12), ("gtx-6", 6)):
        if gb >= 0.9 * least:  # cards report slightly less memory than advertised
            known = next((kind for kind in ("h200", "h100") if seen and kind.upper() in seen.name.upper()), name)
            return known if name == "a100-80" else name
    return "cpu"


def _driver_cuda() -> str:
    """The newest CUDA version that the driver supports."""
    version = nvml.ask("nvmlSystemGetCudaDriverVersion")
    return f"{version // 1000}.{version % 1000 // 10}" if version else ""


def _cache() -> Path:
    base = os.environ.get("AUTORESEARCH_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute()


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())
