"""The protocol between the scorer and a model server: shared memory for tokens and logits, and messages over a socket.

The scorer writes tokens and the server writes logits. Neither can change the size of the memory, and the server cannot
write tokens. Knows nothing of torch, models or the metric.

1. The server sends `UP` when it can take a job, before it loads any of the candidate's code.
2. The scorer sends one line, a `Job`, with the descriptors of both memories, and of a copy of the model if the server
   sees no folder with one.
3. The server answers with one line: `ready` and how it returns logits; or `failed`, the stage, and an error message.
   The message is safe to show, because the server has seen no text yet.
4. For each batch, the scorer sends one byte, the batch's number. The server answers with the same number when the
   logits are in memory, or with a `Failure`.
"""

import json
import mmap
import os
import socket
import tempfile
from dataclasses import asdict, dataclass, replace
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

TOKEN = np.dtype("<i4")
LOGIT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""The types that logits may have, with their size in bytes; on a CPU always float32."""
UP = b"up\n"
LINE_BYTES = 4096
"""The longest line that either side accepts."""
BATCH_NUMBERS = 128
"""Batch numbers go from 0 to 127 and start again at 0; larger bytes are failures."""

# From linux/fcntl.h since Linux 5.1; Python's fcntl only has the older seals.
_F_SEAL_FUTURE_WRITE = 0x0010
_CHUNK_BYTES = 2**30


class Failure(IntEnum):
    """A server's answers for a batch that failed."""

    RAISED = 128
    OUT_OF_MEMORY = 129
    OTHER_SHAPE = 130


class Stage(StrEnum):
    """The stage at which a server failed before it was ready."""

    IMPORT = "import"
    LOAD = "load"
    CALL = "call"
    ANSWER = "answer"


class BrokenExchange(Exception):
    """The other side broke the protocol or has ended."""


@dataclass(frozen=True, slots=True)
class Job:
    """A model server's job.

    Attributes:
        train: Path of the candidate's training script.
        model: Path of the model that training wrote.
        device: `cpu` or `cuda`.
        rows: Rows in a batch.
        sequence_length: Tokens in a row.
        vocab_size: Logits for a token.
        device_buffer: Handle of device memory for the logits, in hexadecimal; empty if there is none.
    """

    train: str
    model: str
    device: str
    rows: int
    sequence_length: int
    vocab_size: int
    device_buffer: str = ""

    @property
    def logits(self) -> int:
        """The number of logits in a batch."""
        return self.rows * self.sequence_length * self.vocab_size


@dataclass(frozen=True, slots=True)
class Ready:
    """How a server returns logits.

    Attributes:
        logit_type: A key of `LOGIT_BYTES`.
        on_device: Whether logits are in the device buffer; else they are in shared host memory.
    """

    logit_type: str
    on_device: bool

    def line(self) -> str:
        return f"ready {self.logit_type} {'device' if self.on_device else 'memory'}"


class Memory:
    """Shared memory of a fixed size.

    Attributes:
        descriptor: The file descriptor for the other process.
        array: This process's writable view: uint8 [size].
    """

    def __init__(self, size: int, *, read_only_elsewhere: bool) -> None:
        self.descriptor = _anonymous_file()
        os.ftruncate(self.descriptor, size)
        self._map = mmap.mmap(self.descriptor, size)
        self.array: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        _seal(self.descriptor, read_only_elsewhere)

    def close(self) -> None:
        """Close the descriptor; the memory is freed with the last array that uses it."""
        os.close(self.descriptor)


def map_tokens(descriptor: int, job: Job) -> npt.NDArray[np.int32]:
    """The server's view of the tokens, read-only: int32 [rows, sequence_length]."""
    size = job.rows * job.sequence_length
    mapped = mmap.mmap(descriptor, size * TOKEN.itemsize, prot=mmap.PROT_READ)
    return np.frombuffer(mapped, TOKEN).reshape(job.rows, job.sequence_length)


def map_logits(descriptor: int, job: Job) -> mmap.mmap:
    """The server's view of the memory for logits, large enough for float32."""
    return mmap.mmap(descriptor, job.logits * LOGIT_BYTES["float32"])


def send_job(end: socket.socket, job: Job, tokens: Memory, logits: Memory, copies_model: bool) -> None:
    """Send the scorer's first line with the descriptors of both memories, and of a copy of the model if asked for."""
    line = json.dumps(asdict(job)).encode() + b"\n"
    descriptors = [tokens.descriptor, logits.descriptor]
    if not copies_model:
        socket.send_fds(end, [line], descriptors)
        return
    copy = _copy_in_memory(job.model)
    try:
        socket.send_fds(end, [line], [*descriptors, copy])
    finally:
        os.close(copy)


def receive_job(end: socket.socket) -> tuple[Job, int, int]:
    """Receive the job, the descriptor of the tokens, and the descriptor of the logits.

    A copy of the model gets a name in the sandbox's own temporary folder, so that `load_model` finds a `model.pt`.
    """
    line, descriptors, _, _ = socket.recv_fds(end, 2 * LINE_BYTES, 3)
    while line and not line.endswith(b"\n"):
        more = end.recv(2 * LINE_BYTES)
        line = line + more if more else b""
    if not line or len(descriptors) not in (2, 3):
        raise BrokenExchange("no job")
    job = Job(**json.loads(line))
    for copy in descriptors[2:]:
        name = os.path.join(tempfile.mkdtemp(), os.path.basename(job.model))
        os.symlink(f"/proc/{os.getpid()}/fd/{copy}", name)
        job = replace(job, model=name)
    return job, descriptors[0], descriptors[1]


def failed_line(stage: Stage, words: str) -> bytes:
    """A server's first line if it failed; the error message is put on one line and shortened."""
    return f"failed {stage} {' '.join(words.split())}".encode(errors="replace")[: LINE_BYTES - 1] + b"\n"


def read_start(line: bytes) -> Ready | tuple[Stage, str]:
    """Parse a server's first line: how it returns logits, or the stage at which it failed and its error message.

    Raises:
        BrokenExchange: The line is not valid.
    """
    text = line.decode(errors="replace").rstrip("\n")
    for logit_type in LOGIT_BYTES:
        for on_device in (False, True):
            if text == (ready := Ready(logit_type, on_device)).line():
                return ready
    for stage in Stage:
        if text.startswith(start := f"failed {stage} "):
            # Without control characters, which a terminal or a report could interpret.
            words = text.removeprefix(start).partition("\n")[0]
            return stage, "".join(character for character in words if character.isprintable())
    raise BrokenExchange("not a first line")


def _copy_in_memory(path: str) -> int:
    """A descriptor of a file in memory with the content of a file, which nobody can change. Linux alone."""
    copy = _anonymous_file()
    with open(path, "rb") as file:
        while os.sendfile(copy, file.fileno(), None, _CHUNK_BYTES):
            pass
    _seal(copy, read_only_elsewhere=True)
    return copy


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("autoresearch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    # On systems other than Linux, a server can shrink the memory. That kills the scorer, without a score.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _seal(descriptor: int, read_only_elsewhere: bool) -> None:
    """Forbid every process to change the size and, on request, to map the memory writable from now on."""
    if not hasattr(os, "memfd_create"):
        return
    import fcntl

    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | (_F_SEAL_FUTURE_WRITE if read_only_elsewhere else 0))
