"""The scorer's side of a model server: starts the process, sends batches, ends it.

Whatever the server does, each call returns in time, with an answer or with a reason from a fixed list: a server that
has seen validation text must not be able to write messages. Knows nothing of torch or losses; a sandbox is only a
prefix of the command.
"""

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

_LAST_SECONDS = 5.0  # for killed processes to end
_Item = TypeVar("_Item", str, int)

_PROGRAM = Path(__file__).resolve().with_name("model_server.py")

# The variables that a server may see; none of them says where the data are.
_ALLOWED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX", "CC", "CXX"),
    *("LD_LIBRARY_PATH", "CUDA_*", "NVIDIA_*", "PYTORCH_*", "TORCH*", "TRITON_*"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "GOMP_*"),
    *("AUTORESEARCH_PROFILE", "AUTORESEARCH_SEQ_LEN", "AUTORESEARCH_DEVICE_BATCH", "AUTORESEARCH_SESSION"),
)
_SECRET = ("*KEY*", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*PASSWD*", "*CREDENTIAL*")


class Reason(StrEnum):
    """Why a server gave no losses. A server that has seen validation text can only choose from this list."""

    ENDED = "its model server ended before it answered"
    LATE_START = "its model server did not start in time"
    LATE_LOAD = "its model was not restored in time"
    LATE = "its model server did not answer a batch in time"
    OVERTIME = "the evaluation as a whole took too long"
    NOT_AGAIN = "its model was restored once, and not again"
    OUT_OF_TURN = "its model server broke the protocol"
    RAISED = "the model raises an exception when called"
    OUT_OF_MEMORY = "the model runs out of memory when called"
    OTHER_SHAPE = "the model's logits change their shape or type from batch to batch"
    NOT_FINITE = "the model's logits are not finite"
    IMPOSSIBLE = "the model gives a token of the text probability 0, an infinite loss"


_FAILURES = {
    Failure.RAISED: Reason.RAISED,
    Failure.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    Failure.OTHER_SHAPE: Reason.OTHER_SHAPE,
}


class NoAnswer(Exception):
    """A server gave no losses.

    Attributes:
        reason: The reason.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class NotReady(Exception):
    """A server failed before it saw any text.

    Attributes:
        stage: The stage that failed.
        words: The server's error message, on one line; it may come from the candidate.
    """

    def __init__(self, stage: Stage, words: str) -> None:
        super().__init__(f"{stage}: {words}")
        self.stage, self.words = stage, words


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits for a server.

    Attributes:
        start_seconds: Until the server can take a job, before it loads any of the candidate's code.
        load_seconds: From the job to the first answer: to restore the model and, for a GPU, to compile it. Limited,
            because the candidate could train on in this time.
        batch_seconds: For one batch.
        total_seconds: For all batches of one server.
    """

    start_seconds: float = 300.0
    load_seconds: float = 300.0
    batch_seconds: float = 60.0
    total_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started.

    Attributes:
        prefix: Words before the command, for a sandbox; empty by hand.
        descriptors: Open files that the prefix reads, each from its beginning.
        variables: Additional environment variables, such as the sandbox's HOME.
        after: A command to run after each server that has seen text, which hides what it has read; empty for none.
        copies_model: Whether the server gets a copy of the model, because its sandbox was made before there was one.
    """

    prefix: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    copies_model: bool = False


class ServerProcess:
    """A model server process, started by the constructor and ended by `close`.

    Attributes:
        load_seconds: Time from the job to the first answer.

    Raises:
        HarnessError: The command could not be started.
    """

    def __init__(self, launch: Launch, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._after = launch.after
        self._copies_model = launch.copies_model
        self._end, other = socket.socketpair()
        for descriptor in launch.descriptors:
            os.lseek(descriptor, 0, os.SEEK_SET)
        # -P: modules are imported neither from this folder nor from the current one.
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
        self._is_up = False
        self._asked = 0
        self._until = 0.0

    @property
    def pid(self) -> int:
        """The process number."""
        return self._process.pid

    def await_up(self) -> None:
        """Wait until the server can take a job.

        Raises:
            NoAnswer: It ended, or did not start in time.
        """
        if not self._is_up:
            if self._line(self._deadlines.start_seconds, len(UP), Reason.LATE_START) != UP:
                raise NoAnswer(Reason.OUT_OF_TURN)
            self._is_up = True

    def begin(self, job: Job, tokens: Memory, logits: Memory) -> Ready:
        """Send the job and wait until the server is ready. `total_seconds` starts then.

        Raises:
            NotReady: The server reported a failure.
            NoAnswer: The server gave no answer, or a wrong one.
        """
        try:
            self.await_up()
            begun = time.monotonic()
            self._end.settimeout(self._deadlines.load_seconds)
            send_job(self._end, job, tokens, logits, self._copies_model)
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
        """Ask for the logits of the tokens in shared memory; returns when the server reports that they are there.

        Raises:
            NoAnswer: The server failed.
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
        """Kill the process and its process group, and hide what it has read; further calls do nothing."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._wait_for_all()
            if self._asked and self._after:
                subprocess.run(self._after, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        self._end.close()

    def _wait_for_all(self) -> None:
        """Wait until no process has the other end of the socket: those in a sandbox end after its first process."""
        self._end.settimeout(_LAST_SECONDS)
        with contextlib.suppress(OSError):
            while self._end.recv(LINE_BYTES):
                pass

    def _line(self, seconds: float, longest: int, late: Reason) -> bytes:
        """Receive until there is a line end; the result may contain bytes after the line end."""
        until, line = time.monotonic() + seconds, b""
        while b"\n" not in line:
            line += self._receive(until, longest, late)
            if len(line) > longest:
                raise NoAnswer(Reason.OUT_OF_TURN)
        return line

    def _receive(self, until: float, size: int, late: Reason) -> bytes:
        """Receive at most `size` bytes before `until`, a time on the monotonic clock."""
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
        """Whether the server has sent bytes without a request."""
        self._end.setblocking(False)
        try:
            return bool(self._end.recv(1))
        except BlockingIOError:
            return False


def launches_of_environment() -> tuple[Launch, ...]:
    """Two sandboxes, so that a server can wait while another answers; without a sandbox, one launch.

    From the JSON lists AUTORESEARCH_SERVER_PREFIX, _FDS, _VARIABLES (NAME=VALUE) and _AFTER, and for the second
    AUTORESEARCH_SERVER_SPARE_PREFIX and _SPARE_FDS.
    """
    variables = [text.partition("=") for text in _list_of_environment("AUTORESEARCH_SERVER_VARIABLES", str)]
    given = {name: value for name, _, value in variables}
    after = tuple(_list_of_environment("AUTORESEARCH_SERVER_AFTER", str))
    launches = []
    for which in ("", "SPARE_"):
        prefix = tuple(_list_of_environment(f"AUTORESEARCH_SERVER_{which}PREFIX", str))
        files = tuple(_list_of_environment(f"AUTORESEARCH_SERVER_{which}FDS", int))
        if prefix or not which:
            launches.append(Launch(prefix, files, given, after, copies_model=bool(prefix)))
    return tuple(launches)


def server_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The variables that a server sees; an allow-list, so that an API key with an unexpected name is not passed on."""
    kept = {name: value for name, value in ours.items() if _passes(name)}
    # GNU OpenMP's threads spin while they wait, and would take the cores from the other process.
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
        raise HarnessError(f"{name}={text!r} is not a valid JSON list; unset it to score by hand.")
    return found
