"""The supervisor script: starts one command, adopts its orphans, and ends all its descendants. Linux alone.

The supervisor is a subreaper: orphans of the command become its children, even daemons in their own session. So every
descendant can be found by ancestry. It reports over a socket how the command ended and when no process is left. If the
process that started it dies, it ends all descendants and then itself. The plugin imports `Descendants` and `kill_all`
from here, so that both sides find and end processes in the same way.

The script is started for every run. So it imports only modules of the standard library that load fast; `typing`,
`dataclasses` and `contextlib` do not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_FREEZING_ROUNDS = 100
_GLANCES = 9
_PAUSE_SECONDS = 0.01


class Process:
    """The state of one process at one moment.

    Attributes:
        pid: Its process number, which may be reused later.
        parent: The process number of its parent.
        group: Its process group.
        runs: False for a zombie.
        stopped: Whether a signal has stopped it.
        cpu_seconds: Its own processor time; 0 if unknown.
        waited_seconds: The processor time of the children that it has waited for; 0 if unknown.
        started: Its start time, in any unit; together with `pid` it identifies the process.
        resident_bytes: Its resident memory.
    """

    __slots__ = (
        "cpu_seconds", "group", "parent", "pid", "resident_bytes", "runs", "started", "stopped", "waited_seconds"
    )  # fmt: skip

    def __init__(
        self, pid: int, parent: int, group: int, runs: bool, started: float, resident_bytes: int, stopped: bool = False,
        cpu_seconds: float = 0.0, waited_seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self.pid = pid
        self.parent = parent
        self.group = group
        self.runs = runs
        self.started = started
        self.resident_bytes = resident_bytes
        self.stopped = stopped
        self.cpu_seconds = cpu_seconds
        self.waited_seconds = waited_seconds


def look(pid: int) -> Process | None:
    """The process with this number, or None if there is none."""
    said = _read(f"/proc/{pid}/stat")
    if not said:
        return None
    fields = said[said.rindex(b")") + 2 :].split()  # the name before it may contain anything
    runs = fields[0] not in (b"Z", b"X")
    stopped = fields[0] in (b"T", b"t")
    own, own_system, waited, waited_system = (int(field) / _TICKS for field in fields[11:15])
    resident_bytes = int(fields[21]) * _PAGE_BYTES
    return Process(
        pid, int(fields[1]), int(fields[2]), runs, int(fields[19]), resident_bytes, stopped, own + own_system,
        waited + waited_system,
    )  # fmt: skip


class Descendants:
    """The descendants of some processes. Each look reads only processes that are new since the last look.

    Args:
        roots: Process numbers. The roots do not count as descendants.
    """

    def __init__(self, roots: Collection[int]) -> None:
        self._roots = frozenset(roots)
        self._found: dict[int, Process] = {}
        self._unrelated: set[int] = set()  # can never become descendants
        self._newest = b""
        self._glances = 0  # how many more looks may skip the list of all processes

    def find(self) -> dict[int, Process]:
        """Every descendant now, including zombies."""
        newest = _read("/proc/loadavg").split()[-1]  # the number given out last, to a process or a thread
        if self._glances and newest == self._newest:
            self._glances -= 1
            self._found = {pid: process for pid in self._found if (process := look(pid))}
            return self._found
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._unrelated &= pids
        unknown = {pid: process for pid in sorted(pids - self._unrelated) if (process := look(pid))}
        found = self._found = {}
        while kin := [each for each in unknown.values() if each.parent in self._roots or each.parent in found]:
            for process in kin:
                found[process.pid] = unknown.pop(process.pid)
        while others := [one.pid for one in unknown.values() if one.parent == 0 or one.parent in self._unrelated]:
            self._unrelated.update(others)
            for pid in others:
                del unknown[pid]
        # A process still in `unknown` has just lost its parent; the next look will tell. A quick look needs the same
        # `newest` twice, because a number is given out a moment before its process is visible. At most _GLANCES quick
        # looks in a row, because in some containers `newest` never changes.
        self._glances = _GLANCES if newest == self._newest and not unknown else 0
        self._newest = newest
        return found


def send(processes: Iterable[Process], number: int) -> None:
    """Send a signal to each process once, through its group, so that a child forked meanwhile receives it too.

    A command has its own session, so its descendants share no group with other processes.
    """
    for group in {process.group for process in processes} - {0, 1, os.getpgrp()}:  # killpg treats 0 and 1 specially
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue


def stop_all(find: Callable[[], dict[int, Process]]) -> dict[int, Process]:
    """Stop all processes until none of them runs and no new one appears, so that a fork bomb cannot outrun this.

    Returns:
        All processes. A process that waits for a device may still run.
    """
    found: dict[int, Process] = {}
    for _ in range(_FREEZING_ROUNDS):
        found = find()
        # Looked at again after the signal: a process that still ran may have continued one that was stopped before.
        running = [process for process in found.values() if process.runs and not process.stopped]
        if not running:
            break
        send(running, signal.SIGSTOP)
    return found


def kill_all(find: Callable[[], dict[int, Process]]) -> None:
    """Stop all processes, then kill them. Call this again while a process is left."""
    send(stop_all(find).values(), signal.SIGKILL)


def _main(status: int, parent: int, command: list[str]) -> None:
    """Start the command and wait until none of its processes is left.

    Reports `started NANOSECONDS` or `failed ERRNO`, then `exited STATUS`, then `gone`, one line each.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Only a wake-up: the signal also comes when a thread of the parent ends, and any process can send it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.set_inheritable(status, False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an inherited SIG_IGN would hide every exit
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if os.getppid() != parent:
        return  # the parent died before PDEATHSIG was set
    started = time.monotonic_ns()
    try:
        leader = _start(command, mask)
    except OSError as error:
        _say(status, f"failed {error.errno}")
        return
    _say(status, f"started {started}")
    _let_go(status)
    while True:
        left, exited = _reap(leader)
        if exited is not None:
            _say(status, f"exited {exited}")
        if not left:
            _say(status, "gone")
            return
        if os.getppid() == parent:
            signal.sigwait({signal.SIGCHLD, signal.SIGTERM})
        else:
            kill_all(Descendants({os.getpid()}).find)
            time.sleep(_PAUSE_SECONDS)


def _start(command: list[str], mask: Iterable[int]) -> int:
    """Start the command in its own session; returns its process number.

    Raises:
        OSError: The command could not be started.
    """
    # Not os.environ: in the C locale, this interpreter adds a variable.
    with open("/proc/self/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        environment = {name: value for name, _, value in pairs}
    supervisor = os.getpid()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == supervisor:
                for number in (signal.SIGPIPE, signal.SIGXFSZ):  # this interpreter ignores them
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.execvpe(command[0], command, environment)
        except OSError as error:
            os.write(writing, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(writing)
    with open(reading, "rb") as pipe:
        failed = pipe.read()  # empty after a successful exec
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def _reap(leader: int) -> tuple[bool, int | None]:
    """Whether a child is left, and the leader's exit status if it was reaped now."""
    exited = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False, exited
        if pid == 0:
            return True, exited
        if pid == leader:
            exited = os.waitstatus_to_exitcode(status)


def _let_go(status: int) -> None:
    """Close inherited file descriptors: open here, they would hide that the command closed them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(3, status)
    os.closerange(status + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)


def _read(path: str) -> bytes:
    """The content of a small kernel file; empty if its process is gone."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            return os.read(file, 4096)
        finally:
            os.close(file)
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _say(status: int, line: str) -> None:
    try:
        os.write(status, line.encode() + b"\n")
    except OSError:
        return  # the reader is gone


def _prctl(option: int, argument: int) -> None:
    arguments = (ctypes.c_ulong(number) for number in (argument, 0, 0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    os._exit(0)
