"""What the scorer and a model server share: memory for tokens and logits, and what goes over the socket between them.
The scorer writes tokens and the server logits; neither can change the memory's size, and the server cannot write
tokens. Both ends are described here, so that they agree. May not know of torch, of models or of the metric.

The server says `UP` when it can take a job, before it has anything of the candidate's. Then the scorer sends one line,
a `Job`, with the descriptors of both memories, and the server answers with one line: `ready` and what it answers with,
or `failed`, where, and its own words, which are safe to show since it has seen no text yet. From then on each side
sends one byte a batch: the scorer its number, the server the same number when the logits are there, or one of
`Failure`."""

import json
import mmap
import os
import socket
import tempfile
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

TOKEN = np.dtype("<i4")
LOGIT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""The types that logits may have; on a CPU always the first."""
UP = b"up\n"
LINE_BYTES = 4096
"""The longest line that either side reads."""
BATCH_NUMBERS = 128
"""Batches are numbered from 0, and from 0 again after so many; the bytes above are failures."""

# Linux 5.1, in linux/fcntl.h; Python names the older seals alone.
_F_SEAL_FUTURE_WRITE = 0x0010


class Failure(IntEnum):
    """What a server may say of a batch in place of the batch's number."""

    RAISED = 128
    OUT_OF_MEMORY = 129
    OTHER_SHAPE = 130


class Stage(StrEnum):
    """Where a server failed before it was ready."""

    IMPORT = "import"
    LOAD = "load"
    CALL = "call"
    ANSWER = "answer"


class BrokenExchange(Exception):
    """The other side said something that is not in the protocol, or went away."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a server is to answer.

    Attributes:
        train: Path of the candidate's training script.
        model: Path of the model that it left behind.
        device: `cpu` or `cuda`.
        rows: Rows of every batch.
        sequence_length: Tokens of a row.
        vocab_size: Logits of a token.
        device_buffer: Hexadecimal handle of memory on the device for the logits; empty where there is none.
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
        """How many logits a batch has."""
        return self.rows * self.sequence_length * self.vocab_size


@dataclass(frozen=True, slots=True)
class Ready:
    """How a server answers.

    Attributes:
        logit_type: A key of `LOGIT_BYTES`.
        on_device: Whether logits are in the device's buffer and not in the shared memory.
    """

    logit_type: str
    on_device: bool

    def line(self) -> str:
        return f"ready {self.logit_type} {'device' if self.on_device else 'memory'}"


class Memory:
    """Memory of a fixed size that another process can map too.

    Attributes:
        descriptor: What the other process is given.
        array: This process's view of it, writable: uint8 [size].
    """

    def __init__(self, size: int, *, read_only_elsewhere: bool) -> None:
        self.descriptor = _anonymous_file()
        os.ftruncate(self.descriptor, size)
        self._map = mmap.mmap(self.descriptor, size)
        self.array: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        _seal(self.descriptor, read_only_elsewhere)

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last array that shows it."""
        os.close(self.descriptor)


def map_tokens(descriptor: int, job: Job) -> npt.NDArray[np.int32]:
    """The server's view of the tokens, read-only: int32 [rows, sequence_length]."""
    size = job.rows * job.sequence_length
    mapped = mmap.mmap(descriptor, size * TOKEN.itemsize, prot=mmap.PROT_READ)
    return np.frombuffer(mapped, TOKEN).reshape(job.rows, job.sequence_length)


def map_logits(descriptor: int, job: Job) -> mmap.mmap:
    """The server's view of the memory for logits, as large as float32 needs."""
    return mmap.mmap(descriptor, job.logits * LOGIT_BYTES["float32"])


def send_job(end: socket.socket, job: Job, tokens: Memory, logits: Memory) -> None:
    """The scorer's first line, with both memories."""
    line = json.dumps(asdict(job)).encode() + b"\n"
    socket.send_fds(end, [line], [tokens.descriptor, logits.descriptor])


def receive_job(end: socket.socket) -> tuple[Job, int, int]:
    """The job, and the descriptors of the tokens and of the logits."""
    line, descriptors, _, _ = socket.recv_fds(end, 2 * LINE_BYTES, 2)
    while line and not line.endswith(b"\n"):
        more = end.recv(2 * LINE_BYTES)
        line = line + more if more else b""
    if not line or len(descriptors) != 2:
        raise BrokenExchange("no job")
    return Job(**json.loads(line)), descriptors[0], descriptors[1]


def failed_line(stage: Stage, words: str) -> bytes:
    """What a server says that will not be ready; the words on one line and not too long."""
    return f"failed {stage} {' '.join(words.split())}".encode(errors="replace")[: LINE_BYTES - 1] + b"\n"


def read_start(line: bytes) -> Ready | tuple[Stage, str]:
    """A server's first line: how it answers, or where it failed and what it says of that.

    Raises:
        BrokenExchange: It is no such line.
    """
    text = line.decode(errors="replace").rstrip("\n")
    for logit_type in LOGIT_BYTES:
        for on_device in (False, True):
            if text == (ready := Ready(logit_type, on_device)).line():
                return ready
    for stage in Stage:
        if text.startswith(start := f"failed {stage} "):
            # Whatever a terminal or a report would take for more than text is left out.
            words = text.removeprefix(start).partition("\n")[0]
            return stage, "".join(character for character in words if character.isprintable())
    raise BrokenExchange("not a first line")


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("autoresearch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    # Elsewhere than on Linux a server can cut the memory short. That ends the scorer, without a score.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _seal(descriptor: int, read_only_elsewhere: bool) -> None:
    """Keep every process, this one too, from changing the size and, on request, from mapping it to write once more."""
    if not hasattr(os, "memfd_create"):
        return
    import fcntl

    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | (_F_SEAL_FUTURE_WRITE if read_only_elsewhere else 0))
