"""The sandbox protocol: a `View` says what a process may see; a backend turns it into the prefix of a command.

Knows no backend, and not what the process is for.
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
    """Limits for the processes of one sandbox.

    Attributes:
        processes: Processes and threads at one time.
        open_files: Open files of one process.
        file_mb: The size of one file, in MiB.
        tmp_mb: The size of the private /tmp, which contains the home folder, in MiB.
        shm_mb: The size of the private /dev/shm, in MiB.
        memory_mb: Memory of all processes together, with files in /tmp and /dev/shm, in MiB. Enforced only where
            control groups can be created. None for no limit.
        cpu_seconds: The CPU time of one process; None for no limit.
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
    """What a process in a sandbox may see, in addition to what every Python program needs.

    Attributes:
        folder: The working directory.
        environment: The variables. HOME and variables that name the user's folders are replaced by the sandbox's.
        readable: Readable files and folders. Those in the home folder are also found under the sandbox's home folder.
        writable: Writable files and folders.
        links: Symbolic links that stay links inside, with visible targets. A link in `readable` becomes its target.
        covered: Folders inside readable ones that appear empty, such as the sources of validation text.
        devices: Device files, such as a GPU's.
        network: Whether the machine's network is available.
        allowance: The limits.
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
    """Starts commands in one sandbox. Each start makes a fresh sandbox; call `close` when the last command has ended.

    To start a command: put `argv_prefix` before it, pass on `pass_fds` under the same numbers, and use `environment` as
    the whole environment. Another program that inherits the file descriptors can do this too. Before each further
    start, set each of `pass_fds` back to its beginning, as `rewind` does.

    Attributes:
        argv_prefix: Goes before the command; empty without a sandbox.
        pass_fds: File descriptors that the command has to inherit.
        environment: The command's whole environment.
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
        """Whether a command was started inside; if not, the sandbox itself has failed."""
        return True

    def memory_bytes(self) -> int | None:
        """The memory of everything inside, as the kernel counts it; None if it does not."""
        return None

    def rewind(self) -> None:
        """Prepare for another start."""

    def exit_status(self, status: int | None) -> int | None:
        """The command's exit status, negative for a signal; `status` is that of the process started with the prefix."""
        return status

    def close(self) -> None:
        """Release the sandbox's resources."""


class Backend(Protocol):
    """A kind of sandbox."""

    @property
    def name(self) -> str:
        """The name in the session's header."""
        ...

    def prepare(self, view: View) -> Prepared:
        """Prepare a sandbox for commands with this view."""
        ...

    def open_read_only(self, path: Path) -> int:
        """Open a file so that a process inside the sandbox can only read it; returns the file descriptor.

        Raises:
            SandboxError: The file could not be opened like this.
        """
        ...


class Unconfined:
    """No sandbox: a command has the user's rights; only the environment is the view's."""

    name = "none"

    def prepare(self, view: View) -> Prepared:
        return Prepared((), (), view.environment)

    def open_read_only(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
