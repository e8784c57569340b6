"""Tests a sandbox before a session uses it: runs the probe inside, which really tries to break out.

The project claims only guarantees that were tested here. Knows backends by their protocol alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_autoresearch.sandboxes import machine, probe, system
from pytest_autoresearch.sandboxes.base import Backend, Prepared, View

PROCESSES = 32
DEADLINE_SECONDS = 20.0
_SHELLS_OWN = ("PWD", "OLDPWD", "SHLVL", "_")  # variables that the shell before the command may set


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of the test.

    Attributes:
        failed: Why the sandbox did not start; empty if it started.
        broken: The guarantees that failed, each as the end of the sentence "inside, …".
    """

    failed: str
    broken: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether the sandbox started and every guarantee held."""
        return not self.failed and not self.broken


def try_out(backend: Backend, view: View, hidden: Sequence[Path] = ()) -> Findings:
    """Start a sandbox with this view and attack it from inside.

    Args:
        backend: Prepares the sandbox.
        view: What a run will see; nothing is written to its folders.
        hidden: Files and folders that must stay invisible, such as the validation shard and the repository's history.
    """
    with ExitStack() as stack:
        outside = _Outside(stack)
        tried = replace(
            view,
            folder=outside.shown,
            readable=(*view.readable, Path(probe.__file__), outside.shown),
            writable=(*view.writable, outside.out),
            allowance=replace(view.allowance, processes=PROCESSES),
        )
        covered = machine.unneeded((*system.SHARED, *machine.python(view.environment)))
        given = outside.given([*hidden, *covered, *view.covered])
        with backend.prepare(tried) as prepared:
            said = _run(prepared, given)
            entered = prepared.entered
        if isinstance(said, str):
            return Findings(said or "no output", ()) if not entered else Findings("", (f"a probe failed: {said}",))
        return Findings("", tuple(outside.broken(said, view, given)))


class _Outside:
    """Targets outside the sandbox for the probe: a process with a key, a file, listening sockets, folders."""

    def __init__(self, stack: ExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix="autoresearch-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self.shown, self.out, self.kept = folder / "shown", folder / "out", folder / "kept"
        for each in (self.shown, self.out, self.kept):
            each.mkdir()
        self.canary = self.kept / "canary"
        self.key = f"AUTORESEARCH_CANARY={secrets.token_hex(16)}"
        self.canary.write_text(self.key)
        name, _, value = self.key.partition("=")
        self.process = stack.enter_context(
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={**_path(), name: value})
        )
        stack.callback(self.process.kill)
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.address = f"autoresearch-{secrets.token_hex(8)}"
        self.abstract.bind("\0" + self.address)
        self.abstract.listen()

    def given(self, hidden: Sequence[Path]) -> dict[str, Any]:
        """The probe's input."""
        return {
            "hidden": [str(path.absolute()) for path in (self.canary, *hidden)],
            "writes": [str(folder / "left") for folder in (self.kept, self.shown, self.out)],
            "port": self.tcp.getsockname()[1],
            "abstract": self.address,
            "pid": self.process.pid,
            "forks": PROCESSES + 8,
        }

    def broken(self, said: Mapping[str, Any], view: View, given: Mapping[str, Any]) -> list[str]:
        """The guarantees that failed, from the probe's output and from checks outside."""
        own = {f"{name}={value}" for name, value in os.environ.items() if name not in _SHELLS_OWN}
        own -= {f"{name}={value}" for name, value in view.environment.items()}
        found: list[str] = []
        if {self.key, *own} & set(said["environments"]):
            found.append("variables of other processes can be read")
        found += [f"{'a file outside' if path == str(self.canary) else path} can be read" for path in said["read"]]
        if not view.network:
            found += [f"{what} of this machine can be connected to" for what in said["connections"]]
        for folder, kind in ((self.kept, "hidden"), (self.shown, "read-only")):
            if (folder / "left").exists():
                found.append(f"a {kind} folder can be written to")
        if not (self.out / "left").exists():
            found.append("the folder for results cannot be written to")
        if self.process.poll() is not None:
            found.append("a process outside can be killed")
        if said["setting"]:
            found.append("settings of the whole machine can be changed")
        if said["device"]:
            found.append("device files of the machine can be changed")
        if said["user_namespace"]:
            found.append("user namespaces can be created")
        if said["fork"]:
            found.append("the number of processes has no limit")
        limits = (view.allowance.tmp_mb, view.allowance.shm_mb)
        if any(size > limit + 1 for size, limit in zip(said["sizes"], limits, strict=True)):
            found.append("/tmp and /dev/shm have no size limit")
        return found


def _run(prepared: Prepared, given: Mapping[str, Any]) -> dict[str, Any] | str:
    """The probe's output, or the last line of the error."""
    command = [*prepared.argv_prefix, sys.executable, "-I", "-S", probe.__file__, json.dumps(given)]
    try:
        done = subprocess.run(
            command, env=dict(prepared.environment), pass_fds=prepared.pass_fds, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        return done.stderr.strip().rpartition("\n")[2]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def _path() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath)}
