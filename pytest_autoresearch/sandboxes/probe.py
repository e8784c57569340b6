"""A script that tries to break out of the sandbox it runs in, and prints the results as JSON.

It only attacks the targets that it is given, so it is safe to run even without a sandbox.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

_CLONE_NEWUSER = 0x10000000


def environments() -> list[str]:
    """Every variable of every visible process, as `NAME=VALUE`."""
    found: set[bytes] = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    found.update(file.read().split(b"\0"))
            except OSError:
                continue
    return sorted(entry.decode(errors="replace") for entry in found)


def read(path: str) -> bool:
    """Whether the content of a file or folder is visible: by its path, through /proc/PID/root, or through a link."""
    link = f"/tmp/link-{os.getpid()}"
    try:
        os.symlink(path, link)
    except OSError:
        link = path
    try:
        return any(_shows(name) for name in (path, f"/proc/1/root{path}", f"/proc/self/root{path}", link))
    finally:
        if link != path:
            os.unlink(link)


def _shows(path: str) -> bool:
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def write(path: str) -> bool:
    """Write a file. The caller checks outside whether it arrived."""
    try:
        with open(path, "w") as file:
            return bool(file.write("x"))
    except OSError:
        return False


def connect(family: int, address: Any) -> bool:
    """Whether a connection to this address succeeds."""
    with socket.socket(family) as ours:
        ours.settimeout(1)
        try:
            ours.connect(address)
        except OSError:
            return False
        return True


def kill(pid: int) -> bool:
    """Kill a process. The caller checks outside whether it ended, because the number may mean another process here."""
    if pid in (1, os.getpid(), os.getppid()):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def change_setting() -> bool:
    """Whether settings of the whole machine can be opened for writing."""
    return any(
        _opens(f"/proc/{name}") for name in ("sys/kernel/core_pattern", "sysrq-trigger", "irq/default_smp_affinity")
    )


def _opens(path: str) -> bool:
    """Whether a file can be opened for writing; nothing is written."""
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        return False
    return True


def change_device() -> bool:
    """Whether the mode of a device file can be set; it is set to its current value."""
    try:
        os.chmod("/dev/null", os.stat("/dev/null").st_mode & 0o7777)
    except OSError:
        return False
    return True


def make_user_namespace() -> bool:
    """Whether a process can create a user namespace, where it would be root."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def fork(times: int) -> bool:
    """Whether this many processes can run at one time."""
    pids: list[int] = []
    try:
        for _ in range(times):
            pid = os.fork()
            if pid == 0:
                while True:
                    signal.pause()
            pids.append(pid)
    except OSError:
        return False
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return True


def size_mb(place: str) -> float:
    """The size of a file system, in MiB."""
    try:
        said = os.statvfs(place)
    except OSError:
        return 0.0
    return said.f_blocks * said.f_frsize / (1024 * 1024)


def _main(given: dict[str, Any]) -> dict[str, Any]:
    places = {
        "a port": (socket.AF_INET, ("127.0.0.1", given["port"])),
        "an abstract socket": (socket.AF_UNIX, "\0" + given["abstract"]),
    }
    attempts: dict[str, Callable[[], Any]] = {
        "environments": environments,
        "read": lambda: [path for path in given["hidden"] if read(path)],
        "connections": lambda: [what for what, (family, address) in places.items() if connect(family, address)],
        "write": lambda: [write(path) for path in given["writes"]],
        "kill": lambda: kill(given["pid"]),
        "setting": change_setting,
        "device": change_device,
        "user_namespace": make_user_namespace,
        "fork": lambda: fork(given["forks"]),
        "sizes": lambda: [size_mb(place) for place in ("/tmp", "/dev/shm")],
    }
    return {name: attempt() for name, attempt in attempts.items()}


if __name__ == "__main__":
    print(json.dumps(_main(json.loads(sys.argv[1]))))
