"""The scorer's view of a candidate's model: asks the model server for logits, and computes the losses here.

The server can write the shared logits at any time, so each logit is read only once: on a GPU by a kernel, on a CPU by a
copy of some rows. Logits that the server did not write are NaN. Knows nothing of the metric's sums, files or the probe.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from harness import device_buffer
from harness.exchange import LOGIT_BYTES, TOKEN, Job, Memory
from harness.metric import of_text, target_nats
from harness.profiles import Profile
from harness.server_process import NoAnswer, Reason, ServerProcess

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Logits in one private copy: on a CPU few enough for its cache, on a GPU enough to keep it busy.
_PRIVATE_LOGITS = {"cpu": 2**20, "cuda": 2**26}

Losses = Callable[[Tensor, Tensor], Tensor]
"""From logits [rows, sequence, vocab] and targets int64 [rows, sequence] to losses float32 [rows, sequence]."""


class IsolatedModel:
    """A model in a server process. The constructor waits until the server is ready; `close` ends the server.

    Args:
        process: The server process.
        token_bytes: int64 [vocab], 0 for special tokens.
        batch_rows: Rows in every batch that the server sees.

    Attributes:
        transport: How logits are transferred. On a CPU: `memory`, the host's shared memory. On a GPU: `cuda-ipc`, a
            buffer on the device that both processes use; without that, `pinned-memory` or `memory`.

    Raises:
        NotReady: The server could not load or call the model.
        NoAnswer: The server did not become ready for another reason.
    """

    def __init__(
        self,
        process: ServerProcess,
        train_path: Path,
        model_path: Path,
        profile: Profile,
        token_bytes: Tensor,
        batch_rows: int,
    ) -> None:
        self._process = process
        self._token_bytes = token_bytes.to(profile.device)
        length, vocab = profile.sequence_length, profile.vocab_size
        size = batch_rows * length * vocab * LOGIT_BYTES["float32"]
        self._token_memory = Memory(batch_rows * length * TOKEN.itemsize, read_only_elsewhere=True)
        self._logit_memory = Memory(size, read_only_elsewhere=False)
        self._buffer = device_buffer.allocate(size) if profile.device == "cuda" else None
        handle = self._buffer.handle if self._buffer else ""
        job = Job(str(train_path), str(model_path), profile.device, batch_rows, length, vocab, handle)
        try:
            ready = process.begin(job, self._token_memory, self._logit_memory)
        except BaseException:
            self.close()
            raise
        shared = torch.from_numpy(self._logit_memory.array)
        if ready.on_device and self._buffer:
            shared, self.transport = self._buffer.tensor(), "cuda-ipc"
        elif profile.device == "cuda" and device_buffer.pin(shared):
            self.transport = "pinned-memory"
        else:
            self.transport = "memory"
        self._tokens = torch.from_numpy(self._token_memory.array.view(TOKEN)).view(batch_rows, length)
        self._logits = shared.view(_TYPES[ready.logit_type])[: job.logits].view(batch_rows, length, vocab)
        self._losses = (_read_once(self._logits) if self._logits.is_cuda else None) or self._copied
        self._part = min(batch_rows, max(1, _PRIVATE_LOGITS[profile.device] // (length * vocab)))
        self._private = torch.empty(0, device=profile.device)

    def nats(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each target, 0 for special tokens: float32 [rows, sequence] on the CPU, finite.

        Args:
            inputs: int64 [rows, sequence], at most `batch_rows`; the last row is repeated to fill the batch.
            targets: int64 [rows, sequence].

        Raises:
            NoAnswer: The server gave no logits, or logits without finite losses.
        """
        rows = len(inputs)
        self._tokens[:rows] = inputs
        self._tokens[rows:] = inputs[-1]
        # One NaN for each token is enough: its loss is NaN until the server overwrites that logit.
        self._logits[..., 0] = float("nan")
        if self._logits.is_cuda:
            torch.cuda.synchronize()
        self._process.ask()
        targets = targets.to(self._token_bytes.device)
        nats = of_text(self._losses(self._logits[:rows], targets), self._token_bytes[targets]).cpu()
        if nats.isnan().any():
            raise NoAnswer(Reason.NOT_FINITE)
        if nats.isinf().any():
            raise NoAnswer(Reason.IMPOSSIBLE)
        return nats

    def _copied(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Losses, computed from private copies of some rows at a time."""
        if not len(self._private):
            self._private = self._private.new_empty((self._part, *logits.shape[1:]))
        found = []
        for shared, wanted in zip(torch.split(logits, self._part), torch.split(targets, self._part), strict=True):
            private = self._private[: len(shared)].copy_(shared)
            found.append(target_nats(private.flatten(0, 1), wanted.flatten()).view(wanted.shape))
        return torch.cat(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server, then free the memory: device memory must not be freed while another process has it open."""
        self._process.close()
        self._token_memory.close()
        self._logit_memory.close()
        if self._buffer:
            self._buffer.close()


def _read_once(logits: Tensor) -> Losses | None:
    """The kernel that needs no copy, compiled for these logits; None if it cannot be compiled."""
    try:
        from harness.device_loss import losses

        losses(logits[:1, :1], torch.zeros((1, 1), dtype=torch.int64, device=logits.device))
    except Exception:  # Triton or its compiler is missing; it may raise any exception
        return None
    return losses
