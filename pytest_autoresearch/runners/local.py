"""Training on this machine: a job's process and then its scorer's, each watched to its end.

Knows neither git nor pytest. What a candidate prints or leaves behind is data: nothing of it is run or loaded here.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_autoresearch.errors import SandboxError
from pytest_autoresearch.experiment import Crash, Limits, Progress, Run
from pytest_autoresearch.gpu import Gpu
from pytest_autoresearch.runners import compiled
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.environment import scoring_environment, training_environment
from pytest_autoresearch.runners.fences import Fence, has_left, scoring_fence, training_fence
from pytest_autoresearch.runners.memory import Memory, OnDevice, Resident
from pytest_autoresearch.runners.outcome import Said, reported_run, scored_run, with_score
from pytest_autoresearch.runners.process import ProcessTree
from pytest_autoresearch.runners.trees import Trees
from pytest_autoresearch.runners.watch import Bounds, Clock, Ended, watch
from pytest_autoresearch.sandboxes.base import Allowance, Backend, Prepared, Unconfined, View
from pytest_autoresearch.sandboxes.disk import Written
from pytest_autoresearch.sandboxes.machine import gpu_devices

GROUP_SHARE, GROUP_MB = 1.1, 64  # of the memory limit, and beside that, until the kernel steps in
OUT_LIMIT_MB = 16 * 1024  # what training may leave: far more than a model of any profile
CACHE_FILES = 50_000  # of a compiler that tries many kernels
PROCESS_LIMIT = 1000  # data loaders and compile workers of eight devices stay far below it
PYTHON = ("python", "python3")


class LocalRunner:
    """Trains on this machine; any number of lane threads may call `run` at once.

    Args:
        gpu: What training is held to; None where it does without one.
        sandbox: What training is started in.
        process_limit: With more processes at a time than this a run is ended.
    """

    def __init__(
        self, gpu: Gpu | None = None, sandbox: Backend | None = None, *, process_limit: int = PROCESS_LIMIT
    ) -> None:
        self._gpu = gpu
        self._sandbox = sandbox or Unconfined()
        self._process_limit = process_limit
        self._trees = Trees()

    def run(self, job: Job, on_progress: Callable[[Progress], None]) -> Run:
        """Train and score.

        Raises:
            Stopped: `close` was called before there was a result.
            SandboxError: The sandbox did not start it.
        """
        said = Said(job.metric_name)
        rows = self._sandbox.open_read_only(job.rows) if job.rows else None
        with Clock(rows, lambda: _keep(job)) as clock, self._sandbox.prepare(self._view(job, clock)) as prepared:
            limit_mb, inside = job.limits.memory_limit_mb, bool(prepared.argv_prefix)
            memory = (
                Resident(limit_mb, sandboxed=inside)
                if self._gpu is None
                else OnDevice(self._gpu, limit_mb, sandboxed=inside)
            )
            disk = [Written(job.out, OUT_LIMIT_MB)]
            if job.cache:  # twice: what it was filled with is in there
                disk.append(Written(job.cache, 2 * compiled.MOST_MB, CACHE_FILES, every_seconds=5.0))
            try:
                tree = self._start(job.command, job.folder, prepared, (clock.child_fd,))
            except OSError as error:
                return Run(job.seed, None, lane=job.lane, crash=_not_started(job.command, error))
            ended = self._train(job, tree, (memory, disk), clock, said, on_progress)
            if not prepared.entered and ended.crash is None:
                raise SandboxError(f"the sandbox did not start the run: {said.output.tail() or 'it said nothing'}")
            ended = replace(ended, exit_status=prepared.exit_status(ended.exit_status))
        settle = reported_run if job.score is None else scored_run
        run = settle(job, clock, ended, said)
        log = said.output.log()
        if job.score is not None and run.crash is None:
            scorer_said = Said(job.metric_name)
            run = self._score(job, job.score, run, scorer_said, on_progress)
            # On disk for the user alone. `Run.log` may reach a proposer, and the scorer has seen validation data.
            log += b"--- scoring ---\n" + scorer_said.output.log()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_bytes(log)
        return run

    def close(self) -> None:
        """End every process, now; what runs raises Stopped, and so do later calls of `run`."""
        self._trees.close()

    def _train(
        self,
        job: Job,
        tree: ProcessTree,
        use: tuple[Memory, Sequence[Written]],
        clock: Clock,
        said: Said,
        on_progress: Callable[[Progress], None],
    ) -> Ended:
        memory, disk = use
        progress = _TrainingProgress(job, clock, said)
        clock.handed_over(tree.started)
        return self._watch(
            tree,
            said,
            fence=lambda: training_fence(
                job.limits, scored=job.score is not None, begun=clock.begun, left=has_left(job.out)
            ),
            tick=lambda seconds, memory_mb: on_progress(progress.at(seconds, memory_mb)),
            memory=memory,
            disk=lambda pids: next((message for part in disk if (message := part.over(pids))), ""),
            clock=clock,
        )

    def _score(
        self, job: Job, command: Sequence[str], run: Run, said: Said, on_progress: Callable[[Progress], None]
    ) -> Run:
        environment = scoring_environment(os.environ, job)
        with self._sandbox.prepare(self._server_view(job, environment)) as server:
            if server.argv_prefix:  # the scorer is trusted; what it starts to run the candidate's model is not
                environment["AUTORESEARCH_SERVER_PREFIX"] = json.dumps(server.argv_prefix)
                environment["AUTORESEARCH_SERVER_FDS"] = json.dumps(server.pass_fds)
                own = [
                    f"{name}={value}" for name, value in server.environment.items() if environment.get(name) != value
                ]
                environment["AUTORESEARCH_SERVER_VARIABLES"] = json.dumps(own)
            try:
                tree = self._start(command, job.score_folder, Prepared((), (), environment), server.pass_fds)
            except OSError as error:
                return replace(run, crash=_not_started(command, error))
            ended = self._watch(
                tree,
                said,
                fence=lambda: scoring_fence(job.limits),
                tick=lambda seconds, memory_mb: on_progress(Progress("scoring", seconds=seconds, memory_mb=memory_mb)),
                memory=Resident(math.inf),
            )
        return with_score(run, ended, said)

    def _view(self, job: Job, clock: Clock) -> View:
        """What training may see."""
        return View(
            folder=job.folder,
            environment=training_environment(os.environ, job, clock.child_fd)
            | (compiled.variables(job.cache) if job.cache else {}),
            readable=(job.folder, *job.readable),
            covered=job.covered,
            writable=(job.out, *((job.cache,) if job.cache else ())),
            allowance=self._allowance(job.limits),
            devices=gpu_devices(self._gpu.uuid) if self._gpu else (),
        )

    def _allowance(self, limits: Limits) -> Allowance:
        """What training may use: on a CPU its memory limit holds for whatever its processes make of it, too."""
        limit_mb, usual = limits.memory_limit_mb, Allowance()
        if self._gpu or limit_mb == math.inf:
            return usual
        # The group's limit ends a process without a word: the look from outside should be first.
        return Allowance(
            tmp_mb=min(usual.tmp_mb, limit_mb),
            shm_mb=min(usual.shm_mb, limit_mb),
            memory_mb=GROUP_SHARE * limit_mb + GROUP_MB,
        )

    def _server_view(self, job: Job, environment: Mapping[str, str]) -> View:
        """What a process may see that answers for the candidate's model: nothing that can be written."""
        return View(
            folder=job.folder,
            environment=environment,
            readable=(job.folder, job.out, *job.readable, *job.trusted),
            covered=job.covered,
            allowance=replace(
                self._allowance(job.limits), cpu_seconds=job.limits.deadline_seconds * (os.cpu_count() or 1)
            ),
            devices=gpu_devices(self._gpu.uuid) if self._gpu else (),
        )

    def _start(
        self, command: Sequence[str], folder: Path, prepared: Prepared, pass_fds: Sequence[int] = ()
    ) -> ProcessTree:
        program = sys.executable if command[0] in PYTHON else command[0]
        whole = [*prepared.argv_prefix, program, *command[1:]]
        return self._trees.start(whole, folder, prepared.environment, (*prepared.pass_fds, *pass_fds))

    def _watch(
        self,
        tree: ProcessTree,
        said: Said,
        *,
        fence: Callable[[], Fence],
        tick: Callable[[float, float], None],
        memory: Memory,
        disk: Callable[[Iterable[int]], str] = lambda pids: "",
        clock: Clock | None = None,
    ) -> Ended:
        bounds = Bounds(fence, memory, self._process_limit, disk)
        try:
            ended = watch(tree, bounds, hear=said.hear, tick=tick, clock=clock)
        finally:
            self._trees.forget(tree)
        self._trees.check_open()
        said.finish()
        return ended


@dataclass(slots=True)
class _TrainingProgress:
    """Where training is: begun when its clock says so or, where nobody asks for the clock, with its first step.

    Attributes:
        first_step: When a step was first seen, in seconds from the start of the process.
    """

    job: Job
    clock: Clock
    said: Said
    first_step: float | None = None

    def at(self, seconds: float, memory_mb: float) -> Progress:
        """At this many seconds from the start of the process."""
        step, loss = self.said.summary.step, self.said.summary.loss
        if self.first_step is None and step is not None:
            self.first_step = seconds
        begun = self.first_step if self.clock.begun is None else self.clock.begun
        if begun is None or (self.job.score is not None and self.clock.begun is None):
            return Progress("preflight", step, loss, seconds, None, memory_mb)
        trained = seconds - begun
        remaining = max(0.0, self.job.limits.budget_seconds - trained)
        return Progress("training", step, loss, trained, remaining, memory_mb)


def _keep(job: Job) -> None:
    if job.cache and job.keep_cache:
        compiled.copy(job.cache, job.keep_cache)


def _not_started(command: Sequence[str], error: OSError) -> Crash:
    return Crash("exit 127", f"{command[0]} could not be started: {error.strerror or error}")
