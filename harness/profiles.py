"""Hardware profiles: how long a sequence, how much evaluation and how much time a class of machine gets. Finds the
device and chooses the profile. May not know of data, training or scoring, and imports torch only when there are signs
of a GPU, so that a machine without one answers at once."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Profile:
    """What a campaign on this machine works with; fixed for the whole campaign.

    Attributes:
        name: A name from the table of profiles, such as `cpu` or `h100`.
        device: `cpu` or `cuda`.
        device_name: The processor's or the GPU's own name; empty for a GPU profile where no GPU was found.
        memory_gb: Memory of that device in GiB (the machine's own memory on a CPU).
        sequence_length: Tokens the model sees at once; a packed row holds one more.
        vocab_size: Entries of the tokenizer, BOS included.
        evaluation_tokens: Targets that the metric is taken over, a whole number of rows.
        budget_seconds: Training seconds of one run.
        memory_limit_mb: What one run may hold, in MiB: device memory on a GPU, resident memory on a CPU.
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
    """One row of the table: a class of hardware. Memory in GB as it is sold."""

    memory_gb: int
    sequence_length: int
    evaluation_tokens: int
    budget_seconds: float
    vocab_size: int = 8192


# A CPU run is PyTorch (near 300 MB resident), a model of a few million parameters and its optimizer state and
# activations, well under 2 GB together. 4 GB stops a runaway before it harms the other programs of an 8 GB laptop or CI
# machine, and leaves a proposal room to double everything.
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

# Cards report a little less than they are sold with: error correction and the driver keep some.
_USABLE = 0.9


@dataclass(frozen=True, slots=True)
class Device:
    """A device that was found.

    Attributes:
        kind: `cpu` or `cuda`.
        name: The device's own name.
        memory_gb: Its memory in GiB.
    """

    kind: str
    name: str
    memory_gb: float


def profile() -> Profile:
    """The profile of this process: AUTORESEARCH_PROFILE and AUTORESEARCH_SEQ_LEN where set, else the device's.

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
    """The profile of that name and sequence length, each from the environment or the device where None.

    Unlike `profile` it needs no GPU for a GPU profile, so data can be prepared on another machine than trains on it.
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
        HarnessError: The installed PyTorch was built without code for that device.
    """
    if not _signs_of_a_gpu():
        return cpu()
    import torch

    if not torch.cuda.is_available():
        return cpu()
    properties = torch.cuda.get_device_properties(0)
    if not runs_on(torch.cuda.get_arch_list(), properties.major, properties.minor):
        raise HarnessError(
            f"PyTorch {torch.__version__} was built without code for the {properties.name} (compute capability "
            f"{properties.major}.{properties.minor}); install a build that has it (for cards older than the RTX 20 "
            "series the one for CUDA 12.6), or set AUTORESEARCH_PROFILE=cpu."
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
    """Whether importing PyTorch to look for a CUDA device can be worth its seconds."""
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
