"""The lanes of a session: which devices it takes, and the sentence if it cannot have them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.hardware import leases
from pytest_autoresearch.hardware.gpu import Gpu
from pytest_autoresearch.hardware.gpu_watch import users
from pytest_autoresearch.hardware.lanes import THREADS, Lane, shares, usable_cores
from pytest_autoresearch.hardware.leases import Holder, Lease
from pytest_autoresearch.runners.ray import Cluster
from pytest_autoresearch.settings import AUTO, Lanes

_OPTION, _WIDE = "--autoresearch-lanes", "--autoresearch-gpus"


@dataclass(frozen=True, slots=True)
class Taken:
    """The lanes of a session.

    Attributes:
        lanes: In the order of their numbers.
        left: The GPUs or nodes that were not taken, each with the reason.
        words: Where the lanes are, in words, if they are not on this machine; else empty.
        wide: How many processes train together in a lane: one for each of its GPUs.
    """

    lanes: tuple[Lane, ...]
    left: tuple[str, ...] = ()
    _leases: tuple[Lease | Cluster, ...] = ()
    words: str = ""
    wide: int = 1

    def release(self) -> None:
        """Let other sessions have the devices."""
        for lease in self._leases:
            lease.release()

    @property
    def threads(self) -> dict[str, str]:
        """The variable that limits the threads of a run to its lane's cores; none if a lane has all cores."""
        if not self.lanes[0].cores:
            return {}
        given, cores = os.environ.get(THREADS, ""), max(1, len(self.lanes[0].cores) // self.wide)
        return {THREADS: str(min(int(given), cores) if given.isdecimal() and int(given) else cores)}


def on_cpu(asked: Lanes, wide: int = 1) -> Taken:
    """Lanes that share the cores of this machine.

    Args:
        wide: How many processes train together in a lane; each has one core or more.

    Raises:
        UserError: There are fewer cores.
    """
    cores, lanes = usable_cores(), 1 if asked == AUTO else asked
    if lanes == wide == 1:
        return Taken((Lane(),))
    if lanes * wide > len(cores):
        said = _named(asked, wide)
        raise UserError(f"{said}: this machine has {len(cores)} cores for lanes and no GPU: ask for fewer")
    return Taken(tuple(shares(cores, lanes)), wide=wide)


def on_gpus(asked: Lanes, gpus: Sequence[Gpu], wide: int = 1) -> Taken:
    """Lanes with equally many GPUs each, leased for this process: those of a lane together, or none of them.

    A single lane gets the first GPUs, as every program does. Several lanes get the first idle ones, `auto` all of them.

    Args:
        wide: The GPUs of a lane.

    Raises:
        UserError: There are fewer idle GPUs, or they are of several kinds.
    """
    lanes = 1 if asked == AUTO else asked
    if wide > 1 and any(gpu.card for gpu in gpus):
        raise UserError(f"{_named(asked, wide)}: a process can use one MIG instance, so leave {_WIDE} out")
    if lanes * wide > len(gpus):
        fewer = "ask for fewer lanes" if wide == 1 else f"{lanes * wide} are needed, so ask for fewer"
        raise UserError(f"{_named(asked, wide)}: only {_count(len(gpus))} visible here: {fewer}")
    if asked == 1:
        gpus = gpus[:wide]
    taken: list[tuple[Gpu, Lease]] = []
    left: list[str] = []
    for gpu in gpus:
        if asked != AUTO and len(taken) == asked * wide:
            break
        lease = _lease(gpu, alone=asked != 1)
        if isinstance(lease, Lease):
            taken.append((gpu, lease))
        else:
            left.append(f"{gpu.key} is used by {lease}")
    lanes = len(taken) // wide
    why = _unfit(asked, wide, [gpu for gpu, _ in taken], left)
    for gpu, lease in taken if why else taken[lanes * wide :]:
        lease.release()
        left.append(f"{gpu.key} is left over from lanes of {wide}")
    if why:
        raise UserError(why)
    places = [taken[lane * wide : (lane + 1) * wide] for lane in range(lanes)]
    return Taken(
        tuple(Lane(tuple(gpu for gpu, _ in place)) for place in places),
        tuple(left),
        tuple(lease for place in places for _, lease in place),
        wide=wide,
    )


def _unfit(asked: Lanes, wide: int, taken: Sequence[Gpu], left: Iterable[str]) -> str:
    """Why these GPUs cannot be the lanes; empty if they can."""
    said, lanes = "; ".join(left), len(taken) // wide
    if asked == 1 and not lanes:
        which = "another GPU" if wide == 1 else "other GPUs"
        return f"{said}: wait for its end, or choose {which} with CUDA_VISIBLE_DEVICES"
    if not lanes or (asked != AUTO and lanes < asked):
        fewer = f", or type {_OPTION} {lanes if lanes > 1 else AUTO}" if lanes else ""
        return f"{_named(asked, wide)}: {said}: wait for its end{fewer}"
    if len(kinds := sorted({gpu.name for gpu in taken})) > 1:
        kind = " and ".join(kinds)
        return f"{_named(asked, wide)}: {kind} cannot be compared: choose one kind with CUDA_VISIBLE_DEVICES"
    return ""


def _named(asked: Lanes, wide: int) -> str:
    """The options that ask for these lanes."""
    if wide == 1:
        return f"{_OPTION} {asked}"
    return f"{_WIDE} {wide}" if asked == 1 else f"{_OPTION} {asked} with {_WIDE} {wide}"


def _lease(gpu: Gpu, *, alone: bool) -> Lease | Holder | str:
    """The lease of a GPU, or who uses it.

    Args:
        alone: Whether a GPU that a program uses without a lease is in use, too.
    """
    try:
        lease = leases.lease(gpu.uuid)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}: sessions keep the locks of GPUs there, so make the folder writable"
        raise UserError(why) from None
    if alone and isinstance(lease, Lease) and (others := users(gpu)):
        lease.release()
        return ", ".join(others)
    return lease


def _count(gpus: int) -> str:
    return "1 GPU is" if gpus == 1 else f"{gpus} GPUs are"
