"""A process tree on Linux, under a supervisor: it adopts orphans, and ends the tree if this process dies.

A candidate runs as the same user, so it may kill or stop its supervisor. Then the leader dies with the supervisor, and
we end every process that was seen at the last look, descends from one of those, or has the run's mark. A process that
leaves the leader, clears its environment and kills the supervisor between two looks is not found.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pytest_autoresearch.runners import supervisor
from pytest_autoresearch.runners.orphans import MARK, marked, new_mark
from pytest_autoresearch.runners.process import ProcessTree
from pytest_autoresearch.runners.supervisor import Descendants, Process, look

PIPE_BYTES = 1024 * 1024
START_SECONDS = 60.0
REAP_SECONDS = 1.0


class SupervisedTree(ProcessTree):
    """See `ProcessTree`. The supervisor itself is not part of the tree.

    Raises:
        OSError: The program could not be started.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self._mark = new_mark()
        self._seen: dict[int, Process] = {}
        self._socket, theirs = socket.socketpair()
        self._unread = b""
        self._failed = 0
        self._all_gone = False
        # -I: neither the candidate's folder nor its variables change what the supervisor imports.
        script = [sys.executable, "-I", "-S", supervisor.__file__, str(theirs.fileno()), str(os.getpid())]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*script, *command],
                    cwd=folder,
                    env={**environment, MARK: self._mark},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    pass_fds=(theirs.fileno(), *pass_fds),
                    start_new_session=True,
                )
        except OSError:
            self._socket.close()
            raise
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdout, self.stderr = self._process.stdout, self._process.stderr
        self._descendants = Descendants({self._process.pid})
        self.exit_fd = self._socket.fileno()
        self._socket.setblocking(False)
        self._await_start(command[0])
        with suppress(OSError):  # fails when this user's pipes have reached their size limit
            for pipe in (self.stdout, self.stderr):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def exited(self) -> bool:
        with self._lock:
            self._read_messages()
            return self.exit_status is not None or self.lost

    def handle_exit_fd(self) -> bool:
        with self._lock:
            self._read_messages()
            return not (self._all_gone or self.lost)

    def _await_start(self, program: str) -> None:
        until = time.monotonic() + START_SECONDS
        while not (self.started or self._failed or self.lost) and (left := until - time.monotonic()) > 0:
            select.select([self._socket], [], [], left)
            self._read_messages()
        if not self.started:
            self._process.kill()
            self._close()
            os.set_blocking(self.stderr.fileno(), False)
            said = (self.stderr.read() or b"").decode(errors="replace").strip().rpartition("\n")[2]
            self.stdout.close()
            self.stderr.close()
            if self._failed:
                raise OSError(self._failed, os.strerror(self._failed), program)
            raise OSError(errno.ECHILD, f"its supervisor did not start: {said or 'no output'}", program)

    def _read_messages(self) -> None:
        """Read the supervisor's messages."""
        with suppress(BlockingIOError):
            while not (self._all_gone or self.lost):
                said = self._socket.recv(256)
                self.lost = not said
                *lines, self._unread = (self._unread + said).split(b"\n")
                for word, *numbers in (line.split() for line in lines):
                    if word == b"started":
                        self.started = int(numbers[0]) / 1e9
                    elif word == b"failed":
                        self._failed = int(numbers[0])
                    elif word == b"exited":
                        self.exit_status = int(numbers[0])
                    else:
                        self._all_gone = True

    def _find(self) -> dict[int, Process]:
        self._read_messages()
        if self._all_gone:
            self._seen = {}
        elif self.lost:
            # The supervisor no longer adopts orphans.
            now = ((each, look(each.pid)) for each in self._seen.values())
            known = {process.pid: process for then, process in now if process and process.started == then.started}
            known |= marked(self._mark)
            self._seen = known | Descendants(known).find()
        else:
            self._seen = self._descendants.find()
        return self._seen

    def _look_afresh(self) -> None:
        self._descendants = Descendants({self._process.pid})
        self._process.send_signal(signal.SIGCONT)  # the candidate may have stopped the supervisor

    def _over(self) -> bool:
        with self._lock:
            self._read_messages()
            return self._all_gone or (self.lost and not any(process.runs for process in self._find().values()))

    def _close(self) -> None:
        with suppress(subprocess.TimeoutExpired):  # the supervisor stays with processes that cannot be ended
            self._process.wait(REAP_SECONDS)
        self._socket.close()
