"""The scorer of one run: started while training starts, and told to begin when training has ended.

A scorer and its model servers import torch, which takes seconds. Those that can wait do so before the budget begins.
Until training has ended they have read code alone: no data, no model, no GPU, and nothing of the candidate. Other
scorers are started when training has ended. What a scorer prints is read in `outcome`.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.environment import scoring_environment
from pytest_autoresearch.runners.launch import PYTHON
from pytest_autoresearch.runners.memory import Resident
from pytest_autoresearch.runners.outcome import ProcessOutput
from pytest_autoresearch.runners.process import ProcessTree
from pytest_autoresearch.runners.process_trees import ProcessTrees
from pytest_autoresearch.runners.time_limits import scoring_limit
from pytest_autoresearch.runners.watch import Bounds, Ended, watch
from pytest_autoresearch.sandboxes import page_cache
from pytest_autoresearch.sandboxes.base import Backend, Prepared, View
from pytest_autoresearch.sandboxes.shown import as_json, places

_READY, _GO = b"ready\n", b"go\n"


class Scoring:
    """One run's scorer; a context that leaves no process behind.

    Args:
        job: The run.
        view: What the scorer's model servers see. The scorer itself is trusted, and has no sandbox.
        sandbox: For the model servers.
        trees: Starts the scorer.
        process_limit: The most processes of the scorer and its servers.
    """

    def __init__(self, job: Job, view: View, sandbox: Backend, trees: ProcessTrees, process_limit: int) -> None:
        self._job, self._view, self._sandbox = job, view, sandbox
        self._trees, self._process_limit = trees, process_limit
        self._resources = ExitStack()
        self._tree: ProcessTree | None = None
        self._turn: socket.socket | None = None
        self._hiding: list[str] = []
        self._reading: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_reading()
        if self._tree is not None:
            self._trees.forget(self._tree)
            self._tree.end(0.0, time.sleep)
            self._tree.stdout.close()
            self._tree.stderr.close()
        self._resources.close()

    def prepare(self, reads_pages: bool) -> None:
        """Start the scorer if it can wait for its turn.

        Args:
            reads_pages: Whether to bring what the servers see into the page cache already. After the first server this
                has to be done, and on a machine that has just started it takes long.

        Raises:
            OSError: The scorer could not be started.
        """
        if self._job.score_waits:
            self._start()
            if reads_pages and self._hiding:
                self._reading = subprocess.Popen(
                    self._hiding, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )

    def await_ready(self, seconds: float) -> None:
        """Wait at most this long until what was started is quiet, so that it does not disturb training."""
        until = time.monotonic() + seconds
        if self._turn is not None:
            heard = b""
            while heard != _READY and select.select([self._turn], [], [], max(0.0, until - time.monotonic()))[0]:
                if not (received := self._turn.recv(len(_READY) - len(heard))):
                    break  # it has ended; `run` says why
                heard += received
        if self._reading is not None:
            with suppress(subprocess.TimeoutExpired):
                self._reading.wait(max(0.0, until - time.monotonic()))
            self._stop_reading()

    def run(self, output: ProcessOutput, tick: Callable[[float, float], str | None]) -> Ended:
        """Score the model that training has left; the time counts from here.

        Raises:
            OSError: The scorer could not be started.
            Stopped: The session is ending.
        """
        if self._tree is None:
            self._start()
        assert self._tree is not None
        if self._turn is not None:
            self._tree.started = time.monotonic()
            with suppress(OSError):  # it has ended, and the watch says how
                self._turn.sendall(_GO)
        bounds = Bounds(lambda: scoring_limit(self._job.limits), Resident(math.inf), self._process_limit)
        tree, self._tree = self._tree, None
        try:
            ended = watch(tree, bounds, feed=output.feed, tick=tick)
        finally:
            self._trees.forget(tree)
        self._trees.check_open()
        output.finish()
        if self._hiding and (ended.crash is not None or ended.exit_status):
            # The server may have ended the scorer, for example by starting very many processes.
            subprocess.run(self._hiding, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        return ended

    def _start(self) -> None:
        job, command = self._job, self._job.score
        assert command is not None
        environment = scoring_environment(os.environ, job)
        first = self._sandboxed()
        own = [f"{name}={value}" for name, value in first.environment.items() if environment.get(name) != value]
        environment["AUTORESEARCH_SERVER_PREFIX"] = json.dumps(first.argv_prefix)
        environment["AUTORESEARCH_SERVER_FDS"] = json.dumps(first.pass_fds)
        environment["AUTORESEARCH_SERVER_VARIABLES"] = json.dumps(own)
        inherited = [*first.pass_fds]
        if first.argv_prefix:
            shown = as_json(*places(self._view.readable, self._view.environment))
            self._hiding = [sys.executable, "-I", page_cache.__file__, shown]
        environment["AUTORESEARCH_SERVER_AFTER"] = json.dumps(self._hiding)
        if job.score_waits:
            spare = self._sandboxed()  # of its own, because two servers live at one time
            environment["AUTORESEARCH_SERVER_SPARE_PREFIX"] = json.dumps(spare.argv_prefix)
            environment["AUTORESEARCH_SERVER_SPARE_FDS"] = json.dumps(spare.pass_fds)
            self._turn, theirs = socket.socketpair()
            self._resources.callback(self._turn.close)
            environment["AUTORESEARCH_TURN_FD"] = str(theirs.fileno())
            inherited += [*spare.pass_fds, theirs.fileno()]
        program = sys.executable if command[0] in PYTHON else command[0]
        try:
            self._tree = self._trees.start([program, *command[1:]], job.score_folder, environment, inherited)
        finally:
            if self._turn is not None:
                theirs.close()

    def _sandboxed(self) -> Prepared:
        return self._resources.enter_context(self._sandbox.prepare(self._view))

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.kill()
            self._reading.wait()
            self._reading = None
