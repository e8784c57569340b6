"""The scorer's end of a model server: starts the process, asks it batch by batch, ends it. Whatever the server does,
these calls come back in time, with an answer or with one of a fixed list of reasons: a server that has seen validation
text has no words of its own. May not know of torch, of losses or of the sandbox, which is a prefix to the command."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self, TypeVar

from harness.errors import HarnessError
from harness.exchange import (
    BATCH_NUMBERS,
    LINE_BYTES,
    UP,
    BrokenExchange,
    Failure,
    Job,
    Memory,
    Ready,
    Stage,
    read_start,
    send_job,
)

_Item = TypeVar("_Item", str, int)

_PROGRAM = Path(__file__).resolve().with_name("model_server.py")

# What a server may see of the environment: nothing that says where the data are.
_ALLOWED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX", "CC", "CXX"),
    *("LD_LIBRARY_PATH", "CUDA_*", "NVIDIA_*", "PYTORCH_*", "TORCH*", "TRITON_*"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "GOMP_*"),
    *("AUTORESEARCH_PROFILE", "AUTORESEARCH_SEQ_LEN", "AUTORESEARCH_DEVICE_BATCH", "AUTORESEARCH_SESSION"),
)
_SECRET = ("*KEY*", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*PASSWD*", "*CREDENTIAL*")


class Reason(StrEnum):
    """Why a server gave no losses: all that is ever said of one that has seen validation text."""

    ENDED = "its model server ended before it answered"
    LATE_START = "its model server did not start in time"
    LATE_LOAD = "its model was not restored in time"
    LATE = "its model server did not answer a batch in time"
    OVERTIME = "the evaluation as a whole took too long"
    OUT_OF_TURN = "its model server answered out of turn"
    RAISED = "the model raises an exception when called"
    OUT_OF_MEMORY = "the model runs out of memory when called"
    OTHER_SHAPE = "the model's logits change their shape or type from batch to batch"
    NOT_FINITE = "the model's logits are not finite"
    IMPOSSIBLE = "the model gives a token of the text no probability, an infinite loss"


_FAILURES = {
    Failure.RAISED: Reason.RAISED,
    Failure.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    Failure.OTHER_SHAPE: Reason.OTHER_SHAPE,
}


class NoAnswer(Exception):
    """A server gave no losses.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class NotReady(Exception):
    """A server failed before it saw any text.

    Attributes:
        stage: Where.
        words: What the server says of it, on one line; the candidate may have chosen them.
    """

    def __init__(self, stage: Stage, words: str) -> None:
        super().__init__(f"{stage}: {words}")
        self.stage, self.words = stage, words


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a server may take.

    Attributes:
        start_seconds: Until it is up, before it has anything of the candidate's.
        load_seconds: From the job to the first answer: the model is restored, and compiled for a GPU. What it does in
            that time nobody sees; it may be training.
        batch_seconds: For one batch.
        total_seconds: For all batches of a server.
    """

    start_seconds: float = 300.0
    load_seconds: float = 300.0
    batch_seconds: float = 60.0
    total_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started.

    Attributes:
        prefix: Words before the command, such as those of a sandbox; none by hand.
        descriptors: Open files that the prefix reads, each from its beginning.
        variables: What its environment has beside ours: a home folder of the sandbox's.
    """

    prefix: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


class ServerProcess:
    """A model server, from its start on; `close` ends it.

    Attributes:
        load_seconds: What it took from the job to the first answer.

    Raises:
        HarnessError: The command could not be started.
    """

    def __init__(self, launch: Launch, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._end, other = socket.socketpair()
        for descriptor in launch.descriptors:
            os.lseek(descriptor, 0, os.SEEK_SET)
        # -P: neither this folder nor the current one is a place to import from.
        command = [*launch.prefix, sys.executable, "-P", str(_PROGRAM), str(other.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                env={**server_environment(os.environ), **launch.variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(other.fileno(), *launch.descriptors),
                start_new_session=True,
            )
        except OSError as error:
            self._end.close()
            raise HarnessError(f"{command[0]} could not be started: {error.strerror or error}.") from None
        finally:
            other.close()
        self.load_seconds = 0.0
        self._asked = 0
        self._until = 0.0

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def begin(self, job: Job, tokens: Memory, logits: Memory) -> Ready:
        """Hand over the job and wait until the server is ready; the seconds of `total_seconds` run from then on.

        Raises:
            NotReady: The server said why not.
            NoAnswer: It said nothing, or nothing of the protocol.
        """
        try:
            if self._line(self._deadlines.start_seconds, len(UP), Reason.LATE_START) != UP:
                raise NoAnswer(Reason.OUT_OF_TURN)
            begun = time.monotonic()
            self._end.settimeout(self._deadlines.load_seconds)
            send_job(self._end, job, tokens, logits)
            start = read_start(self._line(self._deadlines.load_seconds, LINE_BYTES, Reason.LATE_LOAD))
            self.load_seconds = time.monotonic() - begun
        except BrokenExchange:
            raise NoAnswer(Reason.OUT_OF_TURN) from None
        except OSError:
            raise NoAnswer(Reason.ENDED) from None
        if not isinstance(start, Ready):
            raise NotReady(*start)
        if (start.on_device and not job.device_buffer) or (job.device == "cpu" and start.logit_type != "float32"):
            raise NoAnswer(Reason.OUT_OF_TURN)
        self._until = time.monotonic() + self._deadlines.total_seconds
        return start

    def ask(self) -> None:
        """Have the batch answered whose tokens are in the memory now; returns when its logits are said to be there.

        Raises:
            NoAnswer: They will not be.
        """
        number = self._asked % BATCH_NUMBERS
        self._asked += 1
        until = time.monotonic() + self._deadlines.batch_seconds
        try:
            if self._something_waits():
                raise NoAnswer(Reason.OUT_OF_TURN)
            self._end.settimeout(self._deadlines.batch_seconds)
            self._end.sendall(bytes([number]))
        except OSError:
            raise NoAnswer(Reason.ENDED) from None
        late = Reason.LATE if until <= self._until else Reason.OVERTIME
        said = self._receive(min(until, self._until), 1, late)[0]
        if said != number:
            known = said in list(Failure)
            raise NoAnswer(_FAILURES[Failure(said)] if known else Reason.OUT_OF_TURN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and what it started; once is enough."""
        self._end.close()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _line(self, seconds: float, longest: int, late: Reason) -> bytes:
        """What it says until the end of a line, with whatever it has said by then behind that."""
        until, line = time.monotonic() + seconds, b""
        while b"\n" not in line:
            line += self._receive(until, longest, late)
            if len(line) > longest:
                raise NoAnswer(Reason.OUT_OF_TURN)
        return line

    def _receive(self, until: float, size: int, late: Reason) -> bytes:
        """Some bytes, at most `size`, before a moment of the monotonic clock."""
        left = until - time.monotonic()
        if left <= 0:
            raise NoAnswer(late)
        self._end.settimeout(left)
        try:
            received = self._end.recv(size)
        except TimeoutError:
            raise NoAnswer(late) from None
        except OSError:
            received = b""
        if not received:
            raise NoAnswer(Reason.ENDED)
        return received

    def _something_waits(self) -> bool:
        """Whether the server has said more than it was asked for."""
        self._end.setblocking(False)
        try:
            return bool(self._end.recv(1))
        except BlockingIOError:
            return False


def launch_of_environment() -> Launch:
    """AUTORESEARCH_SERVER_PREFIX, a JSON list of words, _FDS, one of descriptors, and _VARIABLES, one of NAME=VALUE."""
    prefix = _list_of_environment("AUTORESEARCH_SERVER_PREFIX", str)
    variables = (text.partition("=") for text in _list_of_environment("AUTORESEARCH_SERVER_VARIABLES", str))
    return Launch(
        tuple(prefix),
        tuple(_list_of_environment("AUTORESEARCH_SERVER_FDS", int)),
        {name: value for name, _, value in variables},
    )


def server_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables that a server sees: a list of what may pass, so that a key nobody thought of stays here."""
    kept = {name: value for name, value in ours.items() if _passes(name)}
    # GNU OpenMP's threads spin while they wait; two processes that take turns would take the cores from each other.
    return {"GOMP_SPINCOUNT": "1000"} | kept | {"PYTHONDONTWRITEBYTECODE": "1"}


def _passes(name: str) -> bool:
    if any(fnmatchcase(name.upper(), pattern) for pattern in _SECRET):
        return False
    return any(fnmatchcase(name, pattern) for pattern in _ALLOWED)


def _list_of_environment(name: str, kind: type[_Item]) -> list[_Item]:
    text = os.environ.get(name) or "[]"
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        raise HarnessError(f"{name}={text!r} is no JSON list of that kind; unset it to score by hand.")
    return found
