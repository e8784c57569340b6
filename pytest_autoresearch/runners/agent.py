"""An agent's process tree on this machine: sent on an errand, watched, and ended with everything that it started.

In a sandbox it sees its own program, the tree that it works in, the network, and a copy of its settings. Without one it
has the user's rights. Knows neither what an errand is for nor any agent.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import psutil

from pytest_autoresearch.core.agent_job import Errand, Finished
from pytest_autoresearch.core.errors import SandboxError, Stopped
from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.runners import private_home
from pytest_autoresearch.runners.environment import passed
from pytest_autoresearch.runners.fences import Fence
from pytest_autoresearch.runners.local import GROUP_MB, GROUP_SHARE
from pytest_autoresearch.runners.memory import MIB, Resident
from pytest_autoresearch.runners.output import Output
from pytest_autoresearch.runners.trees import Trees
from pytest_autoresearch.runners.watch import Bounds, watch
from pytest_autoresearch.sandboxes.base import Allowance, Backend, Unconfined, View
from pytest_autoresearch.sandboxes.machine import installation

PROCESS_LIMIT = 1000
FILE_LIMIT_MB = 1024  # one file that it writes, in a sandbox
DISK_LIMIT_MB = 4096  # all that it writes
TMP_LIMIT_MB, SHM_LIMIT_MB = 1024, 256  # of its own, in a sandbox; both are memory
MEMORY_SHARE, MEMORY_LEAST_MB = 0.25, 2048  # of the machine's memory, and at least: the rest is for training
# Proxies, and who signs for them; candidates are not given these, having no business on the network.
NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_CERTIFICATES = NETWORK[8:]
_FOLDERS = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
# Whoever watches over it gives it no input, and a sandbox another home folder.
_START = 'HOME="${AUTORESEARCH_HOME:-$HOME}"; export HOME; exec "$@" <"$AUTORESEARCH_PROMPT"'


class AgentRunner:
    """Runs errands; any number of threads may call `run` at once.

    Args:
        sandbox: What agents are started in.
        covered: What no agent may read, wherever it lies: validation text.
    """

    def __init__(self, sandbox: Backend | None = None, covered: Iterable[Path] = ()) -> None:
        self._sandbox = sandbox or Unconfined()
        self._covered = tuple(covered)
        self._trees = Trees()
        self._closed = threading.Event()

    @property
    def confined(self) -> bool:
        """Whether there is a sandbox."""
        return not isinstance(self._sandbox, Unconfined)

    def run(self, errand: Errand) -> Finished:
        """Start an agent and wait for it; nothing of it is left then but what it did to its folder.

        Raises:
            Stopped: `close` was called.
            SandboxError: The sandbox did not start it.
        """
        self._trees.check_open()
        private_home.remove(errand.scratch)
        errand.scratch.mkdir(mode=0o700)
        try:
            errand.prompt_file.write_text(errand.prompt, "utf-8", "replace")
            if self.confined:
                private_home.make(errand.home, _settings(os.environ, errand), errand.shared, Path.home())
            return self._watch(errand, self._view(errand))
        finally:
            private_home.remove(errand.scratch)

    def wait(self, seconds: float) -> None:
        """Let time pass between two errands.

        Raises:
            Stopped: `close` was called.
        """
        if self._closed.wait(seconds):
            raise Stopped("the session is ending")

    def close(self) -> None:
        """End every agent, now; what runs or waits raises Stopped, and so do later calls of `run` and `wait`."""
        self._closed.set()
        self._trees.close()

    def _view(self, errand: Errand) -> View:
        """What an agent may see."""
        environment = _environment(os.environ, errand, self.confined)
        places, links = installation(Path(errand.command[0]), environment, errand.folder)
        # What a command names by its whole path is meant to be read.
        named = [path for word in errand.command[1:] if (path := Path(word)).is_absolute() and path.is_file()]
        trusted = [path for name in _CERTIFICATES if (path := Path(environment.get(name, "?"))).exists()]
        return View(
            folder=errand.folder,
            environment=environment,
            readable=(*errand.readable, errand.prompt_file, *places, *named, *trusted, *errand.shared),
            writable=(errand.folder, errand.home, *errand.shared),
            links=tuple(links),
            covered=self._covered,
            network=True,
            allowance=Allowance(
                file_mb=FILE_LIMIT_MB,
                tmp_mb=TMP_LIMIT_MB,
                shm_mb=SHM_LIMIT_MB,
                # The group's limit ends a process without a word: the look from outside should be first.
                memory_mb=GROUP_SHARE * memory_limit_mb() + GROUP_MB,
            ),
        )

    def _watch(self, errand: Errand, view: View) -> Finished:
        said = _Said(errand)
        with self._sandbox.prepare(view) as prepared:
            memory = Resident(memory_limit_mb(), sandboxed=self.confined)
            whole = [*prepared.argv_prefix, "/bin/sh", "-c", _START, "sh", *errand.command]
            try:
                tree = self._trees.start(whole, errand.folder, prepared.environment, prepared.pass_fds)
            except OSError as error:
                raise SandboxError(f"{errand.command[0]} could not be started: {error.strerror or error}") from None
            bounds = Bounds(said.fence, memory, PROCESS_LIMIT, _Grown((errand.folder, errand.scratch)).over)
            try:
                ended = watch(tree, bounds, hear=said.hear, tick=lambda seconds, memory_mb: None)
            finally:
                self._trees.forget(tree)
            self._trees.check_open()
            if not prepared.entered and ended.crash is None:
                raise SandboxError(f"the sandbox did not start the agent: {said.output.tail() or 'it said nothing'}")
            status = prepared.exit_status(ended.exit_status)
        return Finished(status, said.output.tail(), _why(ended.crash), ended.seconds)


class _Said:
    """What an agent prints, and its limits in time and in words."""

    def __init__(self, errand: Errand) -> None:
        self.output = Output()
        self._limit_bytes = errand.output_limit_mb * MIB
        self._fence = Fence(errand.seconds, Crash(CrashClass.TIMEOUT, f"after {errand.seconds:g} s"))
        self._over = Fence(0.0, Crash(CrashClass.OVER_OUTPUT, f"printed more than {errand.output_limit_mb:g} MiB"))
        self._bytes = 0

    def hear(self, data: bytes) -> None:
        """Take more of it, as it was read."""
        self._bytes += len(data)
        self.output.hear(data)

    def fence(self) -> Fence:
        """The next limit."""
        return self._over if self._bytes > self._limit_bytes else self._fence


class _Grown:
    """How much was written into some folders of one disk since this was made.

    The files are looked at when the disk has lost so much as may be written, which is rare: the tree of a large
    repository has many. What was deleted and is still held open is not seen.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._began = time.time()
        self._free_mb = self._free()

    def over(self, pids: Iterable[int]) -> str:
        """Why the agent has to be ended, or nothing."""
        free_mb = self._free()
        if self._free_mb - free_mb <= DISK_LIMIT_MB:
            return ""
        written_mb = sum(map(self._written, self._folders)) / MIB
        if written_mb > DISK_LIMIT_MB:
            return f"wrote more than {DISK_LIMIT_MB:,} MiB"
        self._free_mb = free_mb  # somebody else's
        return ""

    def _free(self) -> float:
        said = os.statvfs(self._folders[0])
        return said.f_bfree * said.f_frsize / MIB

    def _written(self, folder: Path) -> int:
        """Bytes on disk of the files that were changed since then."""
        found, folders = 0, [os.fspath(folder)]
        while folders:
            with suppress(OSError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        look = entry.stat(follow_symlinks=False)
                        if stat.S_ISDIR(look.st_mode):
                            folders.append(entry.path)
                        elif look.st_ctime >= self._began - 1:
                            found += look.st_blocks * 512
        return found


def memory_limit_mb() -> float:
    """What an agent may hold, in MiB: training goes on beside it."""
    return max(MEMORY_LEAST_MB, MEMORY_SHARE * psutil.virtual_memory().total / MIB)


def _why(crash: Crash | None) -> str:
    """Why an agent was ended: the end of "it was ended …"."""
    if crash is None or crash.kind is CrashClass.TIMEOUT:
        return crash.message if crash else ""
    return f"since it {crash.message.removeprefix('it ')}"


def _settings(ours: Mapping[str, str], errand: Errand) -> dict[str, Path]:
    """Where each of an agent's settings is copied from."""
    moved = {name: Path(ours[variable]) for variable, name in errand.moved.items() if ours.get(variable)}
    return {name: moved.get(name, Path.home() / name) for name in errand.settings}


def _environment(ours: Mapping[str, str], errand: Errand, confined: bool) -> dict[str, str]:
    """The variables of an agent: those of any candidate, what it needs of the network, and its own."""
    names = (*NETWORK, *errand.variables, *(() if confined else (*_FOLDERS, *errand.moved)))
    given = {name: value for name, value in ours.items() if any(fnmatchcase(name, each) for each in names)}
    # Of a campaign's nothing: an outer one's are not this one's.
    usual = {name: value for name, value in passed(ours).items() if not name.startswith("AUTORESEARCH_")}
    own = {"AUTORESEARCH_PROMPT": str(errand.prompt_file)}
    if confined:
        own["AUTORESEARCH_HOME"] = str(errand.home)
        own |= {name: str(errand.home / place) for name, place in errand.moved.items() if ours.get(name)}
    # The tree stays as it was but for the edit, and what is printed is read by nobody with a screen.
    return {**usual, **given, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", **errand.environment, **own}
