"""A few real attempts to break out, made inside the very sandbox that a session will use, before it uses it.

What is said of a sandbox is said because it was tried here. Knows backends by their protocol alone.
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

from pytest_autoresearch.sandboxes import machine, probe
from pytest_autoresearch.sandboxes.base import Backend, Prepared, View

PROCESSES = 32
DEADLINE_SECONDS = 20.0
_SHELLS_OWN = ("PWD", "OLDPWD", "SHLVL", "_")  # a shell on the way may set these anew


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of the attempts.

    Attributes:
        failed: Why nothing could be tried, the sandbox having failed to start; empty where it started.
        broken: What did not hold, each as the end of "inside, …".
    """

    failed: str
    broken: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether everything was tried and everything held."""
        return not self.failed and not self.broken


def try_out(backend: Backend, view: View, hidden: Sequence[Path] = ()) -> Findings:
    """Start the sandbox of this view and attack it from inside.

    Args:
        backend: Makes the sandbox.
        view: What a run will see; nothing is written to its folders.
        hidden: Files and folders that must not be seen, such as the validation shard and the repository's history.
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
        covered = machine.unneeded((machine.LIBRARIES, *machine.python(view.environment)))
        given = outside.given([*hidden, *covered, *view.covered])
        with backend.prepare(tried) as prepared:
            said = _run(prepared, given)
            entered = prepared.entered
        if isinstance(said, str):
            return (
                Findings(said or "it said nothing", ()) if not entered else Findings("", (f"a probe failed: {said}",))
            )
        return Findings("", tuple(outside.broken(said, view, given)))


class _Outside:
    """What a sandbox keeps its inside from: a process with a key, a file, listeners, folders."""

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
        """What the probe is told."""
        return {
            "hidden": [str(path.absolute()) for path in (self.canary, *hidden)],
            "writes": [str(folder / "left") for folder in (self.kept, self.shown, self.out)],
            "port": self.tcp.getsockname()[1],
            "abstract": self.address,
            "pid": self.process.pid,
            "forks": PROCESSES + 8,
        }

    def broken(self, said: Mapping[str, Any], view: View, given: Mapping[str, Any]) -> list[str]:
        """What did not hold, by what the probe said and by what is seen from here."""
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
            found.append("a process outside can be ended")
        if said["setting"]:
            found.append("settings of the whole machine can be changed")
        if said["device"]:
            found.append("device files of the machine can be changed")
        if said["user_namespace"]:
            found.append("user namespaces can be made")
        if said["fork"]:
            found.append("the number of processes has no limit")
        limits = (view.allowance.tmp_mb, view.allowance.shm_mb)
        if any(size > limit + 1 for size, limit in zip(said["sizes"], limits, strict=True)):
            found.append("/tmp and /dev/shm have no limit of size")
        return found


def _run(prepared: Prepared, given: Mapping[str, Any]) -> dict[str, Any] | str:
    """What the probe said, or the last line of what went wrong."""
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
