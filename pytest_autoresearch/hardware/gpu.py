"""The GPUs that a session may use, through NVML: which one a lane gets, and what it is.

May not know of CUDA, runners, git or pytest. Nothing here raises on account of a GPU: no library, no driver and a
driver that says no all come to "no GPU", with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
        memory_mb: All of its memory, in MiB; None where the driver does not say (it is shared with the CPU).
    """

    name: str
    uuid: str
    driver: str
    memory_mb: float | None

    @property
    def key(self) -> str:
        """What must be equal for two results to be compared: `NVIDIA H200, GPU-1a2b3c4d, driver 580.159.04`."""
        short = re.sub(r"(-[0-9a-f]{8})[0-9a-f-]*", r"\1", self.uuid)
        return f"{self.name}, {short}, driver {self.driver}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make this the one GPU that a process sees.

        By its UUID, since CUDA counts from the fastest on and NVML along the bus.
        """
        return {"CUDA_VISIBLE_DEVICES": self.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@dataclass(frozen=True, slots=True)
class Visible:
    """The GPUs that a process may use.

    Attributes:
        gpus: In the order of CUDA_VISIBLE_DEVICES where that is set, else of the bus; lane 0 gets the first.
        why: Where there are none, why.
    """

    gpus: tuple[Gpu, ...]
    why: str = ""


def visible(environment: Mapping[str, str]) -> Visible:
    """The GPUs that a process with these variables may use; one in MIG mode is as many as it has instances.

    CUDA_VISIBLE_DEVICES is read as CUDA reads it: numbers as nvidia-smi shows them, UUIDs or unambiguous beginnings of
    UUIDs; the list ends at the first that names nothing (`-1`), and a list with a device twice names none. A number
    or a GPU's UUID stands for the first instance where that GPU is in MIG mode.
    """
    why = nvml.start()
    if why:
        return Visible((), why)
    cards = [_card(index) for index in range(nvml.ask("nvmlDeviceGetCount") or 0)]
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        gpus = [gpu for card in cards for gpu in card.gpus]
        return Visible(tuple(gpus), "" if gpus else "NVML lists none that answers")
    gpus = []
    for word in wanted.split(","):
        gpu = _named(word.strip(), cards)
        if gpu is None:
            break
        gpus.append(gpu)
    if not gpus or len(set(gpus)) < len(gpus):
        return Visible((), f"CUDA_VISIBLE_DEVICES={wanted} names none")
    return Visible(tuple(gpus))


@dataclass(frozen=True, slots=True)
class _Card:
    """What is in one slot.

    Attributes:
        uuid: The GPU's; empty where it does not answer.
        gpus: What can be used of it: itself, or its MIG instances.
    """

    uuid: str
    gpus: tuple[Gpu, ...]


def _card(index: int) -> _Card:
    handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
    whole = _gpu(handle)
    if whole is None:
        return _Card("", ())
    mode = nvml.ask("nvmlDeviceGetMigMode", handle)  # now, and after the next reset
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
    return Gpu(name, uuid, driver, None if memory is None else memory.total / MIB)


def _named(word: str, cards: list[_Card]) -> Gpu | None:
    """What one word of CUDA_VISIBLE_DEVICES names, if anything."""
    if word.isdecimal():
        return next(iter(cards[int(word)].gpus), None) if int(word) < len(cards) else None
    if not word.startswith(("GPU-", "MIG-")):
        return None
    found = {card.gpus[0] for card in cards if card.gpus and card.uuid.startswith(word)}
    found |= {gpu for card in cards for gpu in card.gpus if gpu.uuid.startswith(word)}
    if not found and word.startswith("MIG-"):  # it has an older form, too, which NVML understands and does not show
        gpu = _gpu(nvml.ask("nvmlDeviceGetHandleByUUID", word))
        return gpu and replace(gpu, uuid=word)
    return found.pop() if len(found) == 1 else None
