"""A process tree without a supervisor, for systems other than Linux.

Two limits: a child that starts its own session and loses its parent between two looks is not found; and if the plugin
is killed, training goes on, because nothing tells a process that its parent has ended.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from pytest_autoresearch.runners.process import ProcessTree
from pytest_autoresearch.runners.supervisor import Process

REAP_SECONDS = 0.1


class UnsupervisedTree(ProcessTree):
    """See `ProcessTree`. The leader is reaped last, so that its process number is not reused before.

    Raises:
        OSError: The program could not be started.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.started = time.monotonic()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.stdout, self.stderr = self._process.stdout, self._process.stderr
        self._leader = psutil.Process(self._process.pid)
        self._members = {self._leader.pid: self._leader}
        self._unrelated: set[int] = set()

    def exited(self) -> bool:
        with suppress(psutil.NoSuchProcess):
            return self._leader.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return True

    def _find(self) -> dict[int, Process]:
        """The processes of the leader's session, and children of known members."""
        pids = set(psutil.pids())
        self._unrelated &= pids
        unknown = sorted(pids - self._unrelated - self._members.keys())
        while kin := [pid for pid in unknown if self._is_kin(pid)]:
            unknown = [pid for pid in unknown if pid not in kin]
            with suppress(psutil.NoSuchProcess):
                self._members |= {pid: psutil.Process(pid) for pid in kin}
        self._unrelated |= set(unknown)
        found = {pid: process for pid, member in self._members.items() if (process := _look(member))}
        self._members = {pid: self._members[pid] for pid in found}
        return found

    def _is_kin(self, pid: int) -> bool:
        with suppress(OSError, psutil.Error):
            return os.getsid(pid) == self._leader.pid or psutil.Process(pid).ppid() in self._members
        return False

    def _look_afresh(self) -> None:
        self._unrelated.clear()

    def _over(self) -> bool:
        with self._lock:
            return not any(process.runs for process in self._find().values())

    def _close(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.exit_status = self._process.wait(REAP_SECONDS)


def _look(member: psutil.Process) -> Process | None:
    """The process's current state; None if it is gone or its number was reused."""
    resident_bytes = 0
    try:
        if not member.is_running():
            return None
        with suppress(psutil.AccessDenied, psutil.ZombieProcess):
            resident_bytes = member.memory_info().rss
        status, group = member.status(), os.getpgid(member.pid)
        runs, stopped = status != psutil.STATUS_ZOMBIE, status == psutil.STATUS_STOPPED
        return Process(member.pid, member.ppid(), group, runs, member.create_time(), resident_bytes, stopped)
    except (OSError, psutil.NoSuchProcess):
        return None
