"""The memory of one step of `train.py` in each profile, computed without a GPU.

The step runs on tensors with a shape but no content, and every storage is counted while it lives.

    python benchmarks/memory.py

The step is not compiled; a compiled step uses less. Not counted: memory of CUDA itself (some hundred MB), memory that
the allocator cannot use, and the copy of the weights that the warm-up restores.
"""

import dataclasses
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train
from harness import profiles


class Live(TorchDispatchMode):
    """Counts the bytes of all live tensors.

    Attributes:
        now: Current bytes.
        peak: Largest number of bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        operation: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def step_gib(name: str, compute_type: torch.dtype) -> float:
    """The peak memory of an uncompiled step of the profile, in GiB."""
    # On the "CPU", whose attention saves the same tensors as the GPU's: neither keeps the scores.
    profile = dataclasses.replace(profiles.named(name, None), device="cpu")
    # Parameters without content cannot be moved, and are already in the right place.
    with FakeTensorMode(), Live() as live, patch.object(train.GPT, "to", lambda model, device: model):
        trainer = train.Trainer(profile, seed=1)
        trainer.model.compute_type = trainer.muon.compute_type = compute_type
        tokens = torch.zeros(trainer.batch_rows, profile.sequence_length, dtype=torch.int64)
        trainer.step([(tokens, tokens)] * min(2, trainer.batches_per_step), progress=0.5)
    peak: float = live.peak / 2**30
    return peak


def main() -> None:
    """Print a line for each profile, in GiB."""
    print(f"{'profile':8}  {'limit':>5}  {'bfloat16':>8}  {'float32':>8}")
    for name in profiles.names():
        limit = profiles.named(name, None).memory_limit_mb / 1024
        half, full = (step_gib(name, kind) for kind in (torch.bfloat16, torch.float32))
        print(f"{name:8}  {limit:5.0f}  {half:8.2f}  {full:8.2f}")


if __name__ == "__main__":
    main()
