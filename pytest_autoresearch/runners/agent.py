"""Runs coding agents as process trees on this machine: starts, watches and ends them.

In a sandbox an agent sees its own program, its working tree, the network, and a copy of its settings. Without a sandbox
it has the user's rights. Knows no particular agent, and not what the job is for.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

import psutil

from pytest_autoresearch.core.agent_job import AgentJob, Finished
from pytest_autoresearch.core.errors import SandboxError
from pytest_autoresearch.core.run import Crash, CrashClass
from pytest_autoresearch.runners import private_home
from pytest_autoresearch.runners.environment import passed
from pytest_autoresearch.runners.local import GROUP_MB, GROUP_SHARE
from pytest_autoresearch.runners.memory import MIB, Resident
from pytest_autoresearch.runners.output import Output
from pytest_autoresearch.runners.process_trees import ProcessTrees
from pytest_autoresearch.runners.time_limits import TimeLimit
from pytest_autoresearch.runners.watch import Bounds, watch
from pytest_autoresearch.sandboxes.base import Allowance, Backend, Unconfined, View
from pytest_autoresearch.sandboxes.machine import installation
from pytest_autoresearch.sandboxes.system import LIBRARIES

PROCESS_LIMIT = 1000
FILE_LIMIT_MB = 1024  # size of one file, in a sandbox
DISK_LIMIT_MB = 4096  # size of all files that the agent writes
TMP_LIMIT_MB, SHM_LIMIT_MB = 1024, 256  # size of the private /tmp and /dev/shm, in a sandbox; both are memory
MEMORY_SHARE, MEMORY_LEAST_MB = 0.25, 2048  # share of the machine's memory, and its minimum; training needs the rest
# Proxies and their certificates. Candidates do not receive these variables, because they have no network.
NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_CERTIFICATES = NETWORK[8:]
_FOLDERS = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
# The supervisor closes stdin, and the sandbox changes HOME: this script sets both.
_START = 'HOME="${AUTORESEARCH_HOME:-$HOME}"; export HOME; exec "$@" <"$AUTORESEARCH_PROMPT"'


class AgentRunner:
    """Runs jobs; any number of threads may call `run` at once.

    Args:
        sandbox: The sandbox that agents are started in.
        covered: Paths that no agent may read: validation text.
    """

    def __init__(self, sandbox: Backend | None = None, covered: Iterable[Path] = ()) -> None:
        self._sandbox = sandbox or Unconfined()
        self._covered = tuple(covered)
        self._trees = ProcessTrees()

    @property
    def confined(self) -> bool:
        """Whether there is a sandbox."""
        return not isinstance(self._sandbox, Unconfined)

    def run(self, job: AgentJob) -> Finished:
        """Start an agent and wait for it. Afterwards only its changes to its folder remain.

        Raises:
            Stopped: `close` was called.
            SandboxError: The sandbox did not start the agent.
        """
        self._trees.check_open()
        private_home.remove(job.scratch)
        job.scratch.mkdir(mode=0o700)
        try:
            job.prompt_file.write_text(job.prompt, "utf-8", "replace")
            if self.confined:
                private_home.make(job.home, _settings(os.environ, job), job.shared, Path.home())
            return self._watch(job, self._view(job))
        finally:
            private_home.remove(job.scratch)

    def close(self) -> None:
        """End every agent at once; `run` raises Stopped, now and later."""
        self._trees.close()

    def _view(self, job: AgentJob) -> View:
        """The files and variables that the agent sees."""
        environment = _environment(os.environ, job, self.confined)
        places, links = installation(Path(job.command[0]), environment, job.folder)
        # If the command names a file by its absolute path, the agent may read the file.
        named = [path for word in job.command[1:] if (path := Path(word)).is_absolute() and path.is_file()]
        trusted = [path for name in _CERTIFICATES if (path := Path(environment.get(name, "?"))).exists()]
        return View(
            folder=job.folder,
            environment=environment,
            # An agent may call any tool of this machine; through the network it could read validation text anyway.
            readable=(LIBRARIES, *job.readable, job.prompt_file, *places, *named, *trusted, *job.shared),
            writable=(job.folder, job.home, *job.shared),
            links=tuple(links),
            covered=self._covered,
            network=True,
            allowance=Allowance(
                file_mb=FILE_LIMIT_MB,
                tmp_mb=TMP_LIMIT_MB,
                shm_mb=SHM_LIMIT_MB,
                # The kernel kills at the group's limit without a message, so our own check should come first.
                memory_mb=GROUP_SHARE * memory_limit_mb() + GROUP_MB,
            ),
        )

    def _watch(self, job: AgentJob, view: View) -> Finished:
        output = _AgentOutput(job)
        with self._sandbox.prepare(view) as prepared:
            memory = Resident(memory_limit_mb(), sandboxed=self.confined)
            whole = [*prepared.argv_prefix, "/bin/sh", "-c", _START, "sh", *job.command]
            try:
                tree = self._trees.start(whole, job.folder, prepared.environment, prepared.pass_fds)
            except OSError as error:
                raise SandboxError(f"{job.command[0]} could not be started: {error.strerror or error}") from None
            bounds = Bounds(output.time_limit, memory, PROCESS_LIMIT, _Grown((job.folder, job.scratch)).over)
            try:
                ended = watch(tree, bounds, feed=output.feed, tick=lambda seconds, memory_mb: None)
            finally:
                self._trees.forget(tree)
            self._trees.check_open()
            if not prepared.entered and ended.crash is None:
                raise SandboxError(f"the sandbox did not start the agent: {output.text.tail() or 'no output'}")
            status = prepared.exit_status(ended.exit_status)
        return Finished(status, output.text.tail(), _why(ended.crash), ended.seconds)


class _AgentOutput:
    """An agent's output, its time limit and its output limit."""

    def __init__(self, job: AgentJob) -> None:
        self.text = Output()
        self._limit_bytes = job.output_limit_mb * MIB
        self._time_limit = TimeLimit(job.seconds, Crash(CrashClass.TIMEOUT, f"after {job.seconds:g} s"))
        self._over = TimeLimit(0.0, Crash(CrashClass.OVER_OUTPUT, f"printed more than {job.output_limit_mb:g} MiB"))
        self._bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of output."""
        self._bytes += len(data)
        self.text.feed(data)

    def time_limit(self) -> TimeLimit:
        """The next limit."""
        return self._over if self._bytes > self._limit_bytes else self._time_limit


class _Grown:
    """How much an agent has written into some folders of one disk since this object was made.

    A large repository has many files, so they are only measured once the disk has lost as much free space as the limit.
    Deleted files that are still open are not counted.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._began = time.time()
        self._free_mb = self._free()

    def over(self, pids: Iterable[int]) -> str:
        """An error message if the limit is exceeded, else an empty string."""
        free_mb = self._free()
        if self._free_mb - free_mb <= DISK_LIMIT_MB:
            return ""
        written_mb = sum(map(self._written, self._folders)) / MIB
        if written_mb > DISK_LIMIT_MB:
            return f"wrote more than {DISK_LIMIT_MB:,} MiB"
        self._free_mb = free_mb  # another program used the space
        return ""

    def _free(self) -> float:
        said = os.statvfs(self._folders[0])
        return said.f_bfree * said.f_frsize / MIB

    def _written(self, folder: Path) -> int:
        """Bytes on disk of the files that changed since this object was made."""
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
    """An agent's memory limit in MiB; training runs at the same time and needs the rest."""
    return max(MEMORY_LEAST_MB, MEMORY_SHARE * psutil.virtual_memory().total / MIB)


def _why(crash: Crash | None) -> str:
    """Why an agent was ended, as the end of the sentence "it was ended …"."""
    if crash is None or crash.kind is CrashClass.TIMEOUT:
        return crash.message if crash else ""
    return f"because it {crash.message}"


def _settings(ours: Mapping[str, str], job: AgentJob) -> dict[str, Path]:
    """Where each of the agent's settings is copied from."""
    moved = {name: Path(ours[variable]) for variable, name in job.moved.items() if ours.get(variable)}
    return {name: moved.get(name, Path.home() / name) for name in job.settings}


def _environment(ours: Mapping[str, str], job: AgentJob, confined: bool) -> dict[str, str]:
    """The agent's variables: those of every candidate, those for the network, and the agent's own."""
    names = (*NETWORK, *job.variables, *(() if confined else (*_FOLDERS, *job.moved)))
    given = {name: value for name, value in ours.items() if any(fnmatchcase(name, each) for each in names)}
    # An outer campaign's variables do not apply here.
    usual = {name: value for name, value in passed(ours).items() if not name.startswith("AUTORESEARCH_")}
    own = {"AUTORESEARCH_PROMPT": str(job.prompt_file)}
    if confined:
        own["AUTORESEARCH_HOME"] = str(job.home)
        own |= {name: str(job.home / place) for name, place in job.moved.items() if ours.get(name)}
    # No .pyc files in the tree; no colours, because the output goes to a log.
    return {**usual, **given, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", **job.environment, **own}
