"""The ancestor that nothing of a command can leave, and how a family of processes is found and ended. Linux alone.

As a script it starts one command. Orphans of the command become the supervisor's children, daemons with a session of
their own too, so whatever the command leads to can be found by ancestry. It says over a socket how the command ended
and when nothing of it is left; when the process that started it is gone it ends the family, and then itself. The plugin
imports `Family` and `fell`, so that both look and kill in one way.

The script is started for every run: it may import the standard library alone, and only what costs no time there, which
`typing`, `dataclasses` and `contextlib` do.
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
_FREEZING_ROUNDS = 100
_GLANCES = 9
_PAUSE_SECONDS = 0.01


class Process:
    """One process, as it was when it was looked at.

    Attributes:
        pid: Its number, which another may have later.
        parent: The number of its parent.
        group: Its process group.
        runs: False for one that has ended and was not reaped.
        started: When, in any unit: with `pid` this names one process and no other.
        resident_bytes: Its resident memory.
    """

    __slots__ = ("group", "parent", "pid", "resident_bytes", "runs", "started")

    def __init__(self, pid: int, parent: int, group: int, runs: bool, started: float, resident_bytes: int) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.runs = runs
        self.started = started
        self.resident_bytes = resident_bytes


def look(pid: int) -> Process | None:
    """The process with this number, or None when there is none."""
    said = _read(f"/proc/{pid}/stat")
    if not said:
        return None
    fields = said[said.rindex(b")") + 2 :].split()  # the name before it may hold anything
    runs = fields[0] not in (b"Z", b"X")
    return Process(pid, int(fields[1]), int(fields[2]), runs, int(fields[19]), int(fields[21]) * _PAGE_BYTES)


class Family:
    """The descendants of some processes. A look costs what is new since the last, however much runs on the machine.

    Args:
        roots: Numbers of processes. They are not among their own descendants.
    """

    def __init__(self, roots: Collection[int]) -> None:
        self._roots = frozenset(roots)
        self._found: dict[int, Process] = {}
        self._strangers: set[int] = set()  # never become descendants
        self._newest = b""
        self._glances = 0  # how many looks may do without listing every process

    def find(self) -> dict[int, Process]:
        """Every descendant now, ended ones that nobody has reaped included."""
        newest = _read("/proc/loadavg").split()[-1]  # the number that was given out last, to a process or a thread
        if self._glances and newest == self._newest:
            self._glances -= 1
            self._found = {pid: process for pid in self._found if (process := look(pid))}
            return self._found
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._strangers &= pids
        unknown = {pid: process for pid in sorted(pids - self._strangers) if (process := look(pid))}
        found = self._found = {}
        while kin := [each for each in unknown.values() if each.parent in self._roots or each.parent in found]:
            for process in kin:
                found[process.pid] = unknown.pop(process.pid)
        while others := [one.pid for one in unknown.values() if one.parent == 0 or one.parent in self._strangers]:
            self._strangers.update(others)
            for pid in others:
                del unknown[pid]
        # What is left has lost its parent between two of these lines: the next look tells. And a number is given out a
        # moment before its process can be seen. Not for ever, either: some containers always name the same number.
        self._glances = _GLANCES if newest == self._newest and not unknown else 0
        self._newest = newest
        return found


def send(processes: Iterable[Process], number: int) -> None:
    """Send a signal to each process once, through its group: no member of a group can be born unseen meanwhile.

    A command has a session of its own, so no group of its descendants holds anybody else.
    """
    for group in {process.group for process in processes} - {0, 1, os.getpgrp()}:  # 0 and 1 would mean others
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue


def fell(find: Callable[[], dict[int, Process]]) -> None:
    """Stop everything that is found until nothing new appears, then kill it: what forks without end cannot outrun this.

    Call it again while something is left.
    """
    found: dict[int, Process] = {}
    stopped: set[int] = set()
    for _ in range(_FREEZING_ROUNDS):
        found = find()
        if found.keys() <= stopped:
            break
        send((process for pid, process in found.items() if pid not in stopped), signal.SIGSTOP)
        stopped |= found.keys()
    send(found.values(), signal.SIGKILL)


def _main(status: int, parent: int, command: list[str]) -> None:
    """Start the command and stay until nothing of it is left.

    Says `started NANOSECONDS` or `failed ERRNO`, then `exited STATUS`, then `gone`, a line each.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A wake-up and no more: it comes, too, when a mere thread of the parent ends, and anybody can send it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.set_inheritable(status, False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as a parent may hand it on, it would hide every exit
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if os.getppid() != parent:
        return  # gone before it could be watched
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
            fell(Family({os.getpid()}).find)
            time.sleep(_PAUSE_SECONDS)


def _start(command: list[str], mask: Iterable[int]) -> int:
    """Start the command in a session of its own; returns its number.

    Raises:
        OSError: It cannot be started.
    """
    # Not os.environ: in the C locale this interpreter has added to that.
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
        failed = pipe.read()  # empty when the program took the child over
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def _reap(leader: int) -> tuple[bool, int | None]:
    """Whether any child is left, and how the leader ended, if it is among those reaped now."""
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
    """Close what the command has inherited: held open here, its end would not be heard."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.closerange(3, status)
    os.closerange(status + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)


def _read(path: str) -> bytes:
    """What a small file of the kernel's says; empty when its process is gone."""
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
        return  # nobody is there to hear it


def _prctl(option: int, argument: int) -> None:
    arguments = (ctypes.c_ulong(number) for number in (argument, 0, 0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    os._exit(0)
