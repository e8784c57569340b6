"""The bubblewrap backend: new namespaces, and a root file system with only what the view names.

bubblewrap reads its options from a memory file, because every user can read the arguments of a process. It is started
with the command's environment, because every process inside can read the environment of the first process.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_autoresearch.core.errors import SandboxError
from pytest_autoresearch.sandboxes import counters, enter, etc, machine, shown
from pytest_autoresearch.sandboxes.base import HOME, Allowance, Prepared, View
from pytest_autoresearch.sandboxes.cgroup import Group

_MIB = 1024 * 1024
_KNOWS_SIZES = (0, 7)
_KNOWS_USER_NAMESPACES = (0, 8)
_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_READ, _WRITE, _COVER = range(3)  # the last one wins if a place has several
# Joins the groups, and ignores TERM: if bubblewrap died of TERM, the command would get no time to end by itself.
_JOIN = 'trap "" TERM; while [ "$1" != -- ]; do echo 0 2>/dev/null >"$1"; shift; done; shift; exec "$@"'
# Root owns the device files inside the sandbox too and could change their modes, so they are mounted read-only.
_GUARD = 'while [ "$1" != -- ]; do mount -o bind,ro "$1" "$1" || exit; shift; done; shift; exec "$@" <"/dev/null"'
_DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom", "tty"))
_SEND = """
import os, socket, sys
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"x"], [os.open(sys.argv[2], os.O_RDONLY)])
"""


@dataclass(frozen=True, slots=True)
class Made:
    """File descriptors with the content of files that exist only inside, by their path there.

    Attributes:
        etc: Names and addresses.
        proc: In place of the kernel's counters.
    """

    etc: Mapping[str, int] = field(default_factory=dict)
    proc: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Sandboxes made by bubblewrap.

    Attributes:
        program: The path of `bwrap`.
        version: Its version.
        forbids_user_namespaces: Whether the command may not create user namespaces. bubblewrap cannot forbid that if
            /proc/sys is read-only, as in most containers.
        guards_devices: Whether the machine's device files are mounted read-only first. Only for root, and only where
            root may mount.
    """

    program: str
    version: tuple[int, ...]
    forbids_user_namespaces: bool
    guards_devices: bool = False

    name = "bubblewrap"

    def prepare(self, view: View) -> Prepared:
        return _PreparedSandbox(self, view)

    def open_read_only(self, path: Path) -> int:
        # Through /proc, a process can reopen a descriptor for writing, unless its file is on a read-only mount.
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [self.program, "--unshare-user", "--ro-bind", "/", "/", "--", sys.executable, "-I", "-S", "-c"]
            command += [_SEND, str(theirs.fileno()), str(path.resolve())]
            done = subprocess.run(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SandboxError(f"{path} could not be opened: {done.stderr.strip().rpartition(chr(10))[2]}")
            (file,) = socket.recv_fds(ours, 1, 1)[1]
        os.set_inheritable(file, False)
        return file

    def options(self, view: View, made: Made) -> list[str]:
        """The options for bubblewrap.

        Args:
            view: What the command sees.
            made: Files that exist only inside.
        """
        readable, covered = shown.places((Path(enter.__file__), *view.readable), view.environment, view.network)
        mounts = [(path, _READ) for path in readable]
        mounts += [(path, _WRITE) for path in shown.under_every_name(view.writable)]
        mounts += [(path, _COVER) for path in (*covered, *shown.inside(readable, view.covered))]
        mounts = sorted(set(mounts))
        return [
            *_NAMESPACES,
            *(() if view.network else ("--unshare-net",)),
            *(("--disable-userns",) if self.forbids_user_namespaces else ()),
            *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *_root(view),
            *(word for path, file in made.etc.items() for word in ("--perms", "0444", "--file", str(file), path)),
            *("--proc", "/proc"),
            # Root could change settings of the whole machine here. Not all of /proc is read-only, because CUDA writes
            # the names of its threads there and does not start otherwise.
            *(word for path in machine.kernel_settings() for word in ("--ro-bind", str(path), str(path))),
            *(word for path, file in made.proc.items() for word in ("--ro-bind-data", str(file), path)),
            *("--dev", "/dev"),
            *self._scratch("/dev/shm", view.allowance.shm_mb),
            *self._scratch("/tmp", view.allowance.tmp_mb),
            *("--dir", HOME, "--symlink", "/tmp", "/var/tmp"),
            *(word for path, kind in mounts for word in _mount(path, kind)),
            # Afterwards, because a path inside may be shown.
            *(word for path, kind in mounts if kind == _COVER for word in _sealed(path)),
            *_links(view.links, [path for path, _ in mounts]),
            *_devices(view.devices),
            *_at_home(view),
            *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(view.folder.absolute())),
        ]

    def _scratch(self, place: str, size_mb: float) -> Iterator[str]:
        if self.version >= _KNOWS_SIZES:
            yield from ("--size", str(int(size_mb * _MIB)))
        yield from ("--tmpfs", place)


def installed() -> Bubblewrap | None:
    """The bubblewrap on PATH; None if it is missing or does not print its version."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
        if numbers := re.search(r"\d+(\.\d+)+", said):
            version = tuple(map(int, numbers[0].split(".")))
            return Bubblewrap(program, version, version >= _KNOWS_USER_NAMESPACES, guards_devices=os.geteuid() == 0)
    return None


class _PreparedSandbox(Prepared):
    """Sealed memory files with the options and with files for /etc, a file that `enter` writes to, control groups."""

    def __init__(self, backend: Bubblewrap, view: View) -> None:
        self._group = Group(view.allowance)
        self._read: list[int] = []
        self._sign = os.memfd_create("sign", os.MFD_CLOEXEC)
        try:
            made = Made(
                {path: self._memory_file(text.encode()) for path, text in etc.files(view.network).items()},
                {path: self._memory_file(text.encode()) for path, text in counters.files().items()},
            )
            words = (os.fsencode(option) + b"\0" for option in backend.options(view, made))
            options = self._memory_file(b"".join(words))
        except BaseException:
            self.close()
            raise
        prefix = [
            *("/bin/sh", "-c", _JOIN, "sh", *self._group.join_files, "--"),
            *(_guard(view.devices) if backend.guards_devices else ()),
            *(backend.program, "--args", str(options), "--"),
            *(sys.executable, "-I", "-S", enter.__file__, str(self._sign), *_limits(view.allowance), "--"),
        ]
        super().__init__(prefix, (*self._read, self._sign), _environment(view))

    def _memory_file(self, content: bytes) -> int:
        """A file descriptor of a file with this content, which nobody can change."""
        file = os.memfd_create("read", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._read.append(file)
        os.write(file, content)
        fcntl.fcntl(
            file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        )
        os.lseek(file, 0, os.SEEK_SET)
        return file

    @property
    def entered(self) -> bool:
        return os.fstat(self._sign).st_size > 0

    def memory_bytes(self) -> int | None:
        return self._group.memory_bytes()

    def rewind(self) -> None:
        for file in self._read:
            os.lseek(file, 0, os.SEEK_SET)

    def exit_status(self, status: int | None) -> int | None:
        """Like a shell, bubblewrap exits with 128 plus the number of the signal."""
        return 128 - status if status is not None and 128 < status < 128 + 65 else status

    def close(self) -> None:
        for file in (*self._read, self._sign):
            os.close(file)
        self._group.close()


def _guard(devices: Iterable[Path]) -> Iterator[str]:
    yield from ("unshare", "--mount", "--propagation", "private", "--", "/bin/sh", "-c", _GUARD, "sh")
    yield from (str(path) for path in (*_DEVICES, *devices) if path.exists())
    yield "--"


def _root(view: View) -> Iterator[str]:
    for place in machine.ROOT_LINKS:
        if os.path.islink(place):
            yield from ("--symlink", os.readlink(place), place)
        else:
            yield from ("--ro-bind-try", place, place)
    for place in (*machine.SETTINGS, *(machine.NETWORK_SETTINGS if view.network else ())):
        yield from ("--ro-bind-try", place, place)


def _mount(path: Path, kind: int) -> tuple[str, ...]:
    name = str(path)
    if kind == _COVER:
        return ("--tmpfs", name) if path.is_dir() else ("--ro-bind", os.devnull, name)
    return ("--bind" if kind == _WRITE else "--ro-bind", name, name)


def _sealed(path: Path) -> tuple[str, ...]:
    return ("--remount-ro", str(path)) if path.is_dir() else ()


def _links(links: Iterable[Path], visible: Iterable[Path]) -> Iterator[str]:
    """Options for the links that are not already visible."""
    seen = {*map(Path, (*machine.ROOT_LINKS, *machine.SETTINGS)), *visible}
    for link in dict.fromkeys(links):
        if seen.isdisjoint((link, *link.parents)):
            yield from ("--symlink", os.readlink(link), str(link))


def _devices(devices: Sequence[Path]) -> Iterator[str]:
    for device in devices:
        yield from ("--dev-bind", str(device), str(device))
    # The driver's library finds the GPU in /sys, and NCCL the way to it.
    for place in ("/sys",) if devices else machine.PROCESSORS:
        yield from ("--ro-bind-try", place, place)


def _at_home(view: View) -> Iterator[str]:
    """Links in the sandbox's home folder to the readable paths of the user's, because programs look under `~`."""
    home = view.environment.get("HOME", "")
    inside = dict.fromkeys(path for path in view.readable if home and Path(home) in path.parents)
    for path in inside:
        if not any(other in path.parents for other in inside):
            yield from ("--symlink", str(path), str(HOME / path.relative_to(home)))


def _environment(view: View) -> dict[str, str]:
    # The user's caches do not exist inside, or are read-only.
    own = ("XDG_", "TORCHINDUCTOR_CACHE", "TRITON_CACHE", "TRITON_HOME", "TRITON_DUMP", "TRITON_OVERRIDE")
    writable = tuple(str(path) for path in view.writable)
    kept = {
        name: value
        for name, value in view.environment.items()
        if not name.startswith(own) or (writable and value.startswith(writable))
    }
    user = etc.user_name()
    return {"USER": user, "LOGNAME": user, **kept, "HOME": HOME, "TMPDIR": "/tmp"}


def _limits(allowance: Allowance) -> Iterator[str]:
    yield f"nproc={allowance.processes}"
    yield f"nofile={allowance.open_files}"
    yield f"fsize={int(allowance.file_mb * _MIB)}"
    yield "core=0"
    if allowance.cpu_seconds is not None:
        yield f"cpu={max(1, int(allowance.cpu_seconds))}"
