"""Lists the GPUs that a session may use, through NVML.

Knows nothing of CUDA, runners, git or pytest. GPU problems raise no exception: without the library or a working driver
there is no GPU, and `Visible.why` says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_autoresearch.hardware import nvml

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or one MIG instance of a GPU.

    Attributes:
        name: As the driver calls it, such as `NVIDIA H200`.
        uuid: `GPU-…` or `MIG-…`.
        driver: The driver's version.
        memory_mb: Its total memory, in MiB; None if the driver does not report it, because the CPU shares the memory.
        card: The UUID of the GPU that a MIG instance is part of; else empty.
        instances: The numbers of a MIG instance's GPU instance and compute instance; None if unknown.
    """

    name: str
    uuid: str
    driver: str
    memory_mb: float | None
    card: str = ""
    instances: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """Results are compared only if their keys are equal: `NVIDIA H200, GPU-1a2b3c4d`."""
        return f"{self.name}, {self.short}"

    @property
    def short(self) -> str:
        """The beginning of its UUID: `GPU-1a2b3c4d`."""
        return re.sub(r"(-[0-9a-f]{8})[0-9a-f-]*", r"\1", self.uuid)


def variables(gpus: Sequence[Gpu]) -> dict[str, str]:
    """Variables that make these the only GPUs that a process sees; none if there are none.

    They name UUIDs, because CUDA numbers GPUs by speed and NVML by bus position.
    """
    if not gpus:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@dataclass(frozen=True, slots=True)
class Visible:
    """The GPUs that a process may use.

    Attributes:
        gpus: In the order of CUDA_VISIBLE_DEVICES if set, else in bus order; lane 0 gets the first.
        why: Why there are none; else empty.
    """

    gpus: tuple[Gpu, ...]
    why: str = ""


def visible(environment: Mapping[str, str]) -> Visible:
    """The GPUs that a process with these variables may use. In MIG mode, each instance counts as a GPU.

    CUDA_VISIBLE_DEVICES is read as CUDA reads it. Entries are numbers as in nvidia-smi, UUIDs, or unambiguous
    beginnings of UUIDs. The list ends at the first entry that names no device (`-1`); a list that names a device twice
    is empty. For a GPU in MIG mode, its number or UUID means its first instance.
    """
    why = nvml.start()
    if why:
        return Visible((), why)
    cards = [_card(index) for index in range(nvml.ask("nvmlDeviceGetCount") or 0)]
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        gpus = [gpu for card in cards for gpu in card.gpus]
        return Visible(tuple(gpus), "" if gpus else "NVML lists no working GPU")
    gpus = []
    for word in wanted.split(","):
        gpu = _named(word.strip(), cards)
        if gpu is None:
            break
        gpus.append(gpu)
    if not gpus or len(set(gpus)) < len(gpus):
        return Visible((), f"CUDA_VISIBLE_DEVICES={wanted} names no GPU")
    return Visible(tuple(gpus))


@dataclass(frozen=True, slots=True)
class _Card:
    """One physical GPU.

    Attributes:
        uuid: Its UUID; empty if the GPU does not answer.
        gpus: The usable devices: the GPU itself, or its MIG instances.
    """

    uuid: str
    gpus: tuple[Gpu, ...]


def _card(index: int) -> _Card:
    handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
    whole = _gpu(handle)
    if whole is None:
        return _Card("", ())
    mode = nvml.ask("nvmlDeviceGetMigMode", handle)  # a pair: the mode now, and after the next reset
    if mode is None or not mode[0]:
        return _Card(whole.uuid, (whole,))
    places = range(nvml.ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0)
    instances = (_gpu(nvml.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, place)) for place in places)
    return _Card(whole.uuid, tuple(gpu for gpu in instances if gpu is not None))


def _gpu(handle: Any) -> Gpu | None:
    if handle is None:
        return None
    name, uuid = nvml.ask("nvmlDeviceGetName", handle), nvml.ask("nvmlDeviceGetUUID", handle)
    if name is None or uuid is None:
        return None
    memory = nvml.ask("nvmlDeviceGetMemoryInfo", handle)
    driver = nvml.ask("nvmlSystemGetDriverVersion") or "unknown"
    whole = Gpu(name, uuid, driver, None if memory is None else memory.total / MIB)
    card = nvml.ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
    if card is None:
        return whole
    instances = nvml.ask("nvmlDeviceGetGpuInstanceId", handle), nvml.ask("nvmlDeviceGetComputeInstanceId", handle)
    return replace(
        whole,
        card=nvml.ask("nvmlDeviceGetUUID", card) or "unknown",
        instances=None if None in instances else instances,
    )


def _named(word: str, cards: list[_Card]) -> Gpu | None:
    """The GPU that one entry of CUDA_VISIBLE_DEVICES names, or None."""
    if word.isdecimal():
        return next(iter(cards[int(word)].gpus), None) if int(word) < len(cards) else None
    if not word.startswith(("GPU-", "MIG-")):
        return None
    found = {card.gpus[0] for card in cards if card.gpus and card.uuid.startswith(word)}
    found |= {gpu for card in cards for gpu in card.gpus if gpu.uuid.startswith(word)}
    if not found and word.startswith("MIG-"):  # an older form of MIG names, which NVML accepts but does not list
        gpu = _gpu(nvml.ask("nvmlDeviceGetHandleByUUID", word))
        return gpu and replace(gpu, uuid=word)
    return found.pop() if len(found) == 1 else None
