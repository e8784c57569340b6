"""What a candidate might try, as a script that runs inside a sandbox and says on stdout how far it came.

It does harm to nothing but what it is given for that: it must be safe to run where nothing holds it back.
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
    """Every variable of every process in sight, as `NAME=VALUE`."""
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
    """Whether a file or a folder shows anything, by its name, around the root, or through a link."""
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
    """Leave a file there. Whether it came out anywhere is seen from outside."""
    try:
        with open(path, "w") as file:
            return bool(file.write("x"))
    except OSError:
        return False


def connect(family: int, address: Any) -> bool:
    """Whether somebody answers there."""
    with socket.socket(family) as ours:
        ours.settimeout(1)
        try:
            ours.connect(address)
        except OSError:
            return False
        return True


def kill(pid: int) -> bool:
    """End a process. Whether that one has ended is seen from outside; the number may be another's in here."""
    if pid in (1, os.getpid(), os.getppid()):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def change_setting() -> bool:
    """Whether a setting of the whole machine can be changed."""
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
    """Whether a device file of the machine can be changed; it gets the mode that it has."""
    try:
        os.chmod("/dev/null", os.stat("/dev/null").st_mode & 0o7777)
    except OSError:
        return False
    return True


def make_user_namespace() -> bool:
    """Whether a process can make one, and be root in it."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def fork(times: int) -> bool:
    """Whether so many processes can run at a time."""
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
    """How much a file system holds, in MiB."""
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
