"""One process tree: started in a session of its own, seen from outside, ended as a whole.

The leader is reaped last. Until then its number is taken, so a signal to its group or a look at its session can never
meet a stranger, and `signal` may be called from another thread at any time. A child that made a session of its own and
lost its parent between two looks is not found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

MIB = 1024 * 1024
TERM_SECONDS = 1.5
KILL_SECONDS = 10.0  # a process inside a device driver dies when the driver lets it
PYTHON = ("python", "python3")


class ProcessTree:
    """A process and everything that it starts.

    Attributes:
        started: When, on the monotonic clock.
        pipe: What the tree says on stdout and stderr, as one stream.
        gone: Set when nothing of it is left.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> None:
        program = sys.executable if command[0] in PYTHON else command[0]
        self.started = time.monotonic()
        self.gone = threading.Event()
        self._lock = threading.Lock()
        self._seen = set(psutil.pids())
        self._process = subprocess.Popen(
            [program, *command[1:]],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.pipe: IO[bytes] = self._process.stdout
        self._leader = psutil.Process(self._process.pid)
        self._members = {self._leader.pid: self._leader}

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.started

    def exited(self) -> bool:
        """Whether the leader has ended; it is not reaped by asking."""
        try:
            return self._leader.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return True

    def memory_mb(self) -> float:
        """Resident memory of the tree now, in MiB; a page that two of its processes share counts twice."""
        with self._lock:
            if self.gone.is_set():
                return 0.0
            self._find()
            resident = 0
            for pid, member in tuple(self._members.items()):
                try:
                    resident += member.memory_info().rss
                except psutil.NoSuchProcess:
                    self._forget(pid)
                except psutil.AccessDenied:
                    pass  # it took another user's rights: not to be weighed, still to be ended
            return resident / MIB

    def signal(self, number: int) -> bool:
        """Send a signal to all of the tree; false when nothing of it runs any more."""
        with self._lock:
            if self.gone.is_set():
                return False
            running = self._running()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader.pid, number)
            for member in running:
                # Once each: a second TERM may interrupt what the first one set going.
                with suppress(psutil.Error, OSError):
                    if os.getpgid(member.pid) != self._leader.pid:
                        member.send_signal(number)
            return bool(running)

    def end(self, patience: float, meanwhile: Callable[[float], None]) -> int | None:
        """End what is left of the tree, TERM first when there is patience, and reap the leader.

        Args:
            patience: Seconds between TERM and KILL; 0 for KILL at once.
            meanwhile: Called with a number of seconds in place of sleeping.

        Returns:
            The leader's exit status, negative for a signal; None when even KILL did not end it.
        """
        if patience > 0 and self.signal(signal.SIGTERM):
            until = time.monotonic() + patience
            while time.monotonic() < until and self._anything_runs():
                meanwhile(0.02)
        until = time.monotonic() + KILL_SECONDS
        # Again and again: a tree may grow while it is being felled.
        while self.signal(signal.SIGKILL) and time.monotonic() < until:
            meanwhile(0.005)
        with self._lock:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.1)
            self.gone.set()
        return self._process.returncode

    def _anything_runs(self) -> bool:
        with self._lock:
            return bool(self._running())

    def _running(self) -> list[psutil.Process]:
        self._find()
        running = []
        for pid, member in tuple(self._members.items()):
            try:
                if not member.is_running():
                    self._forget(pid)
                elif member.status() != psutil.STATUS_ZOMBIE:
                    running.append(member)
            except psutil.NoSuchProcess:
                self._forget(pid)
        return running

    def _find(self) -> None:
        """Look for new members: of the session, whoever their parent is by now, and children of members."""
        pids = set(psutil.pids())
        strangers: list[psutil.Process] = []
        # A stranger never becomes a member, so each process of the machine is looked at once and not at every look.
        for pid in pids - self._seen:
            with suppress(OSError, psutil.Error):
                process = psutil.Process(pid)
                if os.getsid(pid) == self._leader.pid:
                    self._members[pid] = process
                else:
                    strangers.append(process)
        self._seen = pids
        found = True
        while found:
            found = False
            for process in tuple(strangers):
                with suppress(psutil.Error):
                    if process.ppid() in self._members:
                        strangers.remove(process)
                        self._members[process.pid] = process
                        found = True

    def _forget(self, pid: int) -> None:
        if pid != self._leader.pid:
            del self._members[pid]
