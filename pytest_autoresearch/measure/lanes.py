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

_OPTION = "--autoresearch-lanes"


@dataclass(frozen=True, slots=True)
class Taken:
    """The lanes of a session.

    Attributes:
        lanes: In the order of their numbers.
        left: The GPUs or nodes that were not taken, each with the reason.
        words: Where the lanes are, in words, if they are not on this machine; else empty.
    """

    lanes: tuple[Lane, ...]
    left: tuple[str, ...] = ()
    _leases: tuple[Lease | Cluster, ...] = ()
    words: str = ""

    def release(self) -> None:
        """Let other sessions have the devices."""
        for lease in self._leases:
            lease.release()

    @property
    def threads(self) -> dict[str, str]:
        """The variable that limits the threads of a run to its lane's cores; none if a lane has all cores."""
        if not self.lanes[0].cores:
            return {}
        given, cores = os.environ.get(THREADS, ""), len(self.lanes[0].cores)
        return {THREADS: str(min(int(given), cores) if given.isdecimal() and int(given) else cores)}


def on_cpu(asked: Lanes) -> Taken:
    """Lanes that share the cores of this machine.

    Raises:
        UserError: There are fewer cores.
    """
    if asked in (1, AUTO):
        return Taken((Lane(),))
    cores = usable_cores()
    if asked > len(cores):
        raise UserError(f"{_OPTION} {asked}: this machine has {len(cores)} cores for lanes and no GPU: ask for fewer")
    return Taken(tuple(shares(cores, asked)))


def on_gpus(asked: Lanes, gpus: Sequence[Gpu]) -> Taken:
    """Lanes with one GPU each, leased for this process.

    A single lane gets the first GPU, as every program does. Several lanes get the first idle ones, `auto` all of them.

    Raises:
        UserError: There are fewer idle GPUs, or they are of several kinds.
    """
    if asked != AUTO and asked > len(gpus):
        raise UserError(f"{_OPTION} {asked}: only {_count(len(gpus))} visible here: ask for fewer lanes")
    if asked == 1:
        gpus = gpus[:1]
    taken: list[tuple[Gpu, Lease]] = []
    left: list[str] = []
    for gpu in gpus:
        if asked != AUTO and len(taken) == asked:
            break
        lease = _lease(gpu, alone=asked != 1)
        if isinstance(lease, Lease):
            taken.append((gpu, lease))
        else:
            left.append(f"{gpu.key} is used by {lease}")
    found = Taken(tuple(Lane(gpu) for gpu, _ in taken), tuple(left), tuple(lease for _, lease in taken))
    if why := _unfit(asked, [gpu for gpu, _ in taken], left):
        found.release()
        raise UserError(why)
    return found


def _unfit(asked: Lanes, taken: Sequence[Gpu], left: Iterable[str]) -> str:
    """Why these GPUs cannot be the lanes; empty if they can."""
    said = "; ".join(left)
    if asked == 1 and not taken:
        return f"{said}: wait for its end, or choose another GPU with CUDA_VISIBLE_DEVICES"
    if not taken or (asked != AUTO and len(taken) < asked):
        fewer = f", or type {_OPTION} {len(taken) if len(taken) > 1 else AUTO}" if taken else ""
        return f"{_OPTION} {asked}: {said}: wait for its end{fewer}"
    if len(kinds := sorted({gpu.name for gpu in taken})) > 1:
        return f"{_OPTION} {asked}: {' and '.join(kinds)} cannot be compared: choose one kind with CUDA_VISIBLE_DEVICES"
    return ""


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
