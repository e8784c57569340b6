"""Hardware profiles: the sequence length, evaluation tokens and budget for each class of machine.

Detects the device and chooses the profile. Imports torch only if the machine seems to have a GPU, so that it is fast on
others. Knows nothing of data, training or scoring.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Profile:
    """The settings for this class of machine; fixed for the whole campaign.

    Attributes:
        name: A name from the table of profiles, such as `cpu` or `h100`.
        device: `cpu` or `cuda`.
        device_name: The name of the processor or GPU; empty for a GPU profile on a machine without a GPU.
        memory_gb: Memory of the device in GiB; on a CPU, the machine's memory.
        sequence_length: Tokens that the model sees at once; a packed row has one more.
        vocab_size: Size of the vocabulary, including BOS.
        evaluation_tokens: Targets for the metric, a whole number of rows.
        budget_seconds: Training seconds of one run.
        memory_limit_mb: Memory limit of one run, in MiB: device memory on a GPU, resident memory on a CPU.
    """

    name: str
    device: str
    device_name: str
    memory_gb: float
    sequence_length: int
    vocab_size: int
    evaluation_tokens: int
    budget_seconds: float
    memory_limit_mb: int


@dataclass(frozen=True, slots=True)
class _Class:
    """One row of the table: a class of hardware, with its nominal memory in GB."""

    memory_gb: int
    sequence_length: int
    evaluation_tokens: int
    budget_seconds: float
    vocab_size: int = 8192


# A CPU run needs well under 2 GB: PyTorch (about 300 MB) and a model of a few million parameters with its optimizer and
# activations. With 4 GB, a proposal can double everything, and other programs of an 8 GB machine are safe.
_CPU_MEMORY_GB = 4

_TABLE = {
    "h100": _Class(80, 2048, 20_971_520, 300.0),
    "h200": _Class(80, 2048, 20_971_520, 300.0),
    "a100-80": _Class(80, 2048, 20_971_520, 300.0),
    "a100-40": _Class(40, 1024, 10_485_760, 300.0),
    "rtx-24": _Class(24, 512, 5_242_880, 300.0),
    "rtx-12": _Class(12, 256, 2_097_152, 300.0),
    "gtx-6": _Class(6, 256, 2_097_152, 300.0),
    "cpu": _Class(_CPU_MEMORY_GB, 256, 65_536, 15.0, vocab_size=2048),
}

# GPUs report a little less than their nominal memory: error correction and the driver use some.
_USABLE = 0.9


@dataclass(frozen=True, slots=True)
class Device:
    """A detected device.

    Attributes:
        kind: `cpu` or `cuda`.
        name: The device's own name.
        memory_gb: Its memory in GiB.
    """

    kind: str
    name: str
    memory_gb: float


def profile() -> Profile:
    """The profile of this process: from AUTORESEARCH_PROFILE and AUTORESEARCH_SEQ_LEN if set, else by the device.

    Raises:
        HarnessError: An unknown profile, a bad sequence length, or a GPU profile on a machine without a GPU.
    """
    found = named(None, None)
    if not found.device_name:
        raise HarnessError(
            f"profile {found.name} needs a CUDA GPU and PyTorch finds none here; set AUTORESEARCH_PROFILE=cpu."
        )
    return found


def named(name: str | None, sequence_length: int | None) -> Profile:
    """The profile with this name and sequence length; None means from the environment, else by the device.

    Unlike `profile`, this works for a GPU profile without a GPU, so that data can be prepared on another machine.
    """
    name = name or os.environ.get("AUTORESEARCH_PROFILE") or None
    device = cpu() if name == "cpu" else find_device()
    if name is None:
        name = fitting(device)
    if name not in _TABLE:
        raise HarnessError(f"there is no profile {name!r}; choose one of {', '.join(_TABLE)}.")
    row = _TABLE[name]
    length = sequence_length
    if length is None:
        length = _sequence_length_of_environment(row.sequence_length)
    if not 8 <= length <= row.evaluation_tokens:
        raise HarnessError(
            f"a sequence length of {length} does not work for profile {name}; "
            f"choose one from 8 to {row.evaluation_tokens} (the default is {row.sequence_length})."
        )
    if name == "cpu":
        device = cpu()
    elif device.kind == "cpu":
        device = Device("cuda", "", float(row.memory_gb))
    return Profile(
        name=name,
        device=device.kind,
        device_name=device.name,
        memory_gb=device.memory_gb,
        sequence_length=length,
        vocab_size=row.vocab_size,
        evaluation_tokens=row.evaluation_tokens // length * length,
        budget_seconds=row.budget_seconds,
        memory_limit_mb=row.memory_gb * 1024,
    )


def names() -> tuple[str, ...]:
    """All profile names, largest hardware first."""
    return tuple(_TABLE)


def find_device() -> Device:
    """The first CUDA device that PyTorch may use, else the CPU.

    Raises:
        HarnessError: The installed PyTorch does not support this GPU.
    """
    if not _signs_of_a_gpu():
        return cpu()
    import torch

    if not torch.cuda.is_available():
        return cpu()
    properties = torch.cuda.get_device_properties(0)
    if not runs_on(torch.cuda.get_arch_list(), properties.major, properties.minor):
        raise HarnessError(
            f"PyTorch {torch.__version__} does not support the {properties.name} (compute capability "
            f"{properties.major}.{properties.minor}); install a build that does (for GPUs older than the RTX 20 "
            "series: the build for CUDA 12.6), or set AUTORESEARCH_PROFILE=cpu."
        )
    return Device("cuda", properties.name, round(properties.total_memory / _GIB, 1))


def runs_on(architectures: list[str], major: int, minor: int) -> bool:
    """Whether a build for these architectures has code for a device of that compute capability.

    Args:
        architectures: As PyTorch lists them: `sm_86` is code for 8.6 up to the next major version, `compute_90` for 9.0
            and everything after. Without any, as in a build for AMD, nothing is known against the device.
    """
    built = [name.partition("_") for name in architectures if name.startswith(("sm_", "compute_"))]
    versions = [(kind, divmod(int(number.rstrip("af")), 10)) for kind, _, number in built]
    return not versions or any(
        version <= (major, minor) and (version[0] == major or kind == "compute") for kind, version in versions
    )


def fitting(device: Device) -> str:
    """Name of the profile for a device; `cpu` for a GPU too small for any other."""
    if device.kind == "cpu":
        return "cpu"
    if device.memory_gb >= 80 * _USABLE:
        # The largest class has one row and several names, so that records tell the machines apart.
        return next((name for name in ("h200", "h100") if name.upper() in device.name.upper()), "a100-80")
    for name in ("a100-40", "rtx-24", "rtx-12", "gtx-6"):
        if device.memory_gb >= _TABLE[name].memory_gb * _USABLE:
            return name
    return "cpu"


def cpu() -> Device:
    """This machine's processor."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    return Device("cpu", _processor_name(), round(memory, 1))


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _signs_of_a_gpu() -> bool:
    """Whether there may be a GPU; if not, the slow import of PyTorch is skipped."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd"))


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown processor"


def _sequence_length_of_environment(default: int) -> int:
    text = os.environ.get("AUTORESEARCH_SEQ_LEN")
    if not text:
        return default
    if not text.isdecimal():
        raise HarnessError(f"AUTORESEARCH_SEQ_LEN={text!r} is not a number of tokens; set it to, say, 256.")
    return int(text)
