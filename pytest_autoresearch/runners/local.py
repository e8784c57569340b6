"""Training on this machine: a job's process and then its scorer's, each watched to its end.

Knows neither git nor pytest. What a candidate prints or leaves behind is data: nothing of it is run or loaded here.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_autoresearch.core.errors import SandboxError
from pytest_autoresearch.core.loss_curve import Smoothed
from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Progress, Run
from pytest_autoresearch.hardware.gpu import Gpu
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

    def run(self, job: Job, on_progress: Callable[[Progress], str | None]) -> Run:
        """Train and score; see `Runner`.

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
            progress = _TrainingProgress(job, clock, said)
            ended = self._train(job, tree, (memory, disk), progress, on_progress)
            if not prepared.entered and ended.crash is None:
                raise SandboxError(f"the sandbox did not start the run: {said.output.tail() or 'it said nothing'}")
            ended = replace(ended, exit_status=prepared.exit_status(ended.exit_status))
        settle = reported_run if job.score is None else scored_run
        progress.at(ended.seconds, 0.0)
        run = replace(settle(job, clock, ended, said), losses=progress.losses)
        log = said.output.log()
        if job.score is not None and run.crash is None and not run.hopeless:
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
        progress: _TrainingProgress,
        on_progress: Callable[[Progress], str | None],
    ) -> Ended:
        memory, disk = use
        clock, said = progress.clock, progress.said
        progress.started = tree.started
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
            hear=progress.hear,
        )

    def _score(
        self, job: Job, command: Sequence[str], run: Run, said: Said, on_progress: Callable[[Progress], str | None]
    ) -> Run:
        environment = scoring_environment(os.environ, job)

        def scoring(seconds: float, memory_mb: float) -> None:
            on_progress(Progress("scoring", seconds=seconds, memory_mb=memory_mb))

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
                tick=scoring,
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
        tick: Callable[[float, float], str | None],
        memory: Memory,
        disk: Callable[[Iterable[int]], str] = lambda pids: "",
        clock: Clock | None = None,
        hear: Callable[[bytes], None] | None = None,
    ) -> Ended:
        bounds = Bounds(fence, memory, self._process_limit, disk)
        try:
            ended = watch(tree, bounds, hear=hear or said.hear, tick=tick, clock=clock)
        finally:
            self._trees.forget(tree)
        self._trees.check_open()
        said.finish()
        return ended


@dataclass(slots=True)
class _TrainingProgress:
    """Where training is: begun when its clock says so or, where nobody asks for the clock, with its first step.

    Attributes:
        started: When the process was started, by the monotonic clock.
        first_step: When a step was first seen, in seconds from the start of the process.
        curve: The losses that were printed.
        losses: The same as of now, at the checkpoints.
    """

    job: Job
    clock: Clock
    said: Said
    started: float = 0.0
    first_step: float | None = None
    curve: Smoothed = field(default_factory=Smoothed)
    losses: tuple[float | None, ...] = ()

    def hear(self, data: bytes) -> None:
        """Output, as it was read: a loss counts for the moment at which it is heard."""
        self.said.hear(data)
        losses = self.said.summary.new_losses()
        trained = self._trained(time.monotonic() - self.started)
        if trained is not None:
            for loss in losses:
                self.curve.add(trained / self.job.limits.budget_seconds, loss)

    def at(self, seconds: float, memory_mb: float) -> Progress:
        """At this many seconds from the start of the process."""
        step, loss, trained = self.said.summary.step, self.said.summary.loss, self._trained(seconds)
        if trained is None:
            return Progress("preflight", step, loss, seconds, None, memory_mb)
        budget = self.job.limits.budget_seconds
        self.losses = self.curve.losses(trained / budget)
        return Progress("training", step, loss, trained, max(0.0, budget - trained), memory_mb, losses=self.losses)

    def _trained(self, seconds: float) -> float | None:
        """Seconds of training so far; None before it has begun."""
        if self.first_step is None and self.said.summary.step is not None:
            self.first_step = seconds
        if self.job.score is not None:
            return None if self.clock.begun is None else max(0.0, seconds - self.clock.begun)
        begun = self.first_step if self.clock.begun is None else self.clock.begun
        return None if begun is None else max(0.0, seconds - begun)


def _keep(job: Job) -> None:
    if job.cache and job.keep_cache:
        compiled.copy(job.cache, job.keep_cache)


def _not_started(command: Sequence[str], error: OSError) -> Crash:
    return Crash(CrashClass.EXIT, f"{command[0]} could not be started: {error.strerror or error}", 127)
