"""A candidate's model as the scorer sees it: a process that was asked for logits, of which losses are computed here.
Logits lie in memory that the other process can write at any time, so they are copied, row by row, before they are
looked at; what it did not write is NaN. May not know of the metric's sums, of files or of the probe."""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from harness import device_buffer
from harness.exchange import LOGIT_BYTES, TOKEN, Job, Memory
from harness.metric import text_nats
from harness.profiles import Profile
from harness.server_process import NoAnswer, Reason, ServerProcess

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class IsolatedModel:
    """A model behind a server that was started; waits until it is ready. `close` ends the server.

    Args:
        process: The server.
        token_bytes: int64 [vocab], 0 for special tokens.
        batch_rows: Rows of every batch that the server sees.

    Attributes:
        transport: How logits come: `memory` of the host, `cuda-ipc` (a buffer on the device that both processes have
            open), or on a device without such `pinned-memory` or `memory`.

    Raises:
        NotReady: The server cannot load the model or call it.
        NoAnswer: It did not get ready otherwise.
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
        self._private = torch.empty((length, vocab), dtype=torch.float32, device=profile.device)

    def nats(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each target, 0 for special tokens: float32 [rows, sequence] on the CPU, finite.

        Args:
            inputs: int64 [rows, sequence]; at most `batch_rows`, and made up to so many with the last of them.
            targets: int64 [rows, sequence].

        Raises:
            NoAnswer: The server gave none, or none that makes a metric.
        """
        rows = len(inputs)
        self._tokens[:rows] = inputs
        self._tokens[rows:] = inputs[-1]
        self._logits.fill_(float("nan"))
        if self._logits.is_cuda:
            torch.cuda.synchronize()
        self._process.ask()
        targets = targets.to(self._private.device)
        sizes = self._token_bytes[targets]
        nats = torch.empty(targets.shape, device=self._private.device)
        for row in range(rows):
            self._private.copy_(self._logits[row])
            nats[row] = text_nats(self._private, targets[row], sizes[row])
        nats = nats.cpu()
        if nats.isnan().any():
            raise NoAnswer(Reason.NOT_FINITE)
        if nats.isinf().any():
            raise NoAnswer(Reason.IMPOSSIBLE)
        return nats

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server, then give the memory back: a device's may not be freed while another process has it open."""
        self._process.close()
        self._token_memory.close()
        self._logit_memory.close()
        if self._buffer:
            self._buffer.close()
