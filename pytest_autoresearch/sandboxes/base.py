"""What a process in a sandbox may see and use, and what a backend makes of that: the beginning of a command.

Knows neither what the process is for nor any backend.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

HOME = "/tmp/home"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the processes of one sandbox may use.

    Attributes:
        processes: At a time, threads included.
        open_files: Of one process.
        file_mb: The size of one file, in MiB.
        tmp_mb: The size of the private /tmp, which holds the home folder, in MiB.
        shm_mb: The size of the private /dev/shm, in MiB.
        memory_mb: All of them together, files in /tmp and /dev/shm included, in MiB; held where control groups can be
            made. None for no limit.
        cpu_seconds: The processor time of one process; None for no limit.
    """

    processes: int = 4096
    open_files: int = 65536
    file_mb: float = 8192
    tmp_mb: float = 4096
    shm_mb: float = 4096
    memory_mb: float | None = None
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What a process in a sandbox may see, beside what any Python program needs of the machine.

    Attributes:
        folder: Where it starts.
        environment: Its variables. HOME and what else names a place of the user's become the sandbox's own.
        readable: Files and folders. Those of the home folder are found from the sandbox's home folder, too.
        writable: Files and folders.
        links: Symbolic links that are found as such, what they lead to being shown; a readable one shows its target.
        covered: Folders inside readable ones that are shown empty, such as those that validation text was taken from.
        devices: Device files, such as a GPU's.
        network: Whether the machine's network is there.
        allowance: What it may use.
    """

    folder: Path
    environment: Mapping[str, str]
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    links: tuple[Path, ...] = ()
    covered: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    network: bool = False
    allowance: Allowance = field(default_factory=Allowance)


class Prepared:
    """How commands are started in one sandbox. Each start is a fresh one; close this when the last has ended.

    Anything that starts a process can use it, in another program too, which inherits the file descriptors: the prefix
    before the command, `pass_fds` handed on under the same numbers, `environment` as the whole environment. Before a
    second start, set the first of `pass_fds` back to its beginning, as `rewind` does.

    Attributes:
        argv_prefix: Comes before the command; empty without a sandbox.
        pass_fds: What the command has to inherit.
        environment: What the command has to be started with.
    """

    def __init__(self, argv_prefix: Sequence[str], pass_fds: Sequence[int], environment: Mapping[str, str]) -> None:
        self.argv_prefix = tuple(argv_prefix)
        self.pass_fds = tuple(pass_fds)
        self.environment = environment

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def entered(self) -> bool:
        """Whether a command has come as far as to be started inside; if not, its end is the sandbox's own failure."""
        return True

    def rewind(self) -> None:
        """Make ready for another start."""

    def exit_status(self, status: int | None) -> int | None:
        """What the exit status of such a start says of the command, negative for a signal."""
        return status

    def close(self) -> None:
        """Give back what was made for it."""


class Backend(Protocol):
    """A kind of sandbox."""

    @property
    def name(self) -> str:
        """As the header says it."""
        ...

    def prepare(self, view: View) -> Prepared:
        """Make ready to start commands that see this."""
        ...

    def open_read_only(self, path: Path) -> int:
        """A descriptor of a file to hand over, by which nobody inside can write to the file or change it.

        Raises:
            SandboxError: It cannot be opened in this way.
        """
        ...


class Unconfined:
    """No sandbox: a command sees what its user sees, but for the environment, which is the view's."""

    name = "none"

    def prepare(self, view: View) -> Prepared:
        return Prepared((), (), view.environment)

    def open_read_only(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
