"""Trains on this machine: starts and watches the training process, then the scorer.

Knows neither git nor pytest. Never runs or loads what a candidate prints or writes.
"""

from __future__ import annotations

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
from pytest_autoresearch.runners import compile_cache
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.clock import Clock
from pytest_autoresearch.runners.environment import (
    candidate_environment,
    scoring_environment,
    training_environment,
)
from pytest_autoresearch.runners.launch import PYTHON, Launch
from pytest_autoresearch.runners.memory import Memory, OnDevices, Resident
from pytest_autoresearch.runners.outcome import ProcessOutput, reported_run, scored_run, with_score
from pytest_autoresearch.runners.process import ProcessTree
from pytest_autoresearch.runners.process_trees import ProcessTrees
from pytest_autoresearch.runners.scoring import Scoring
from pytest_autoresearch.runners.supervisor import Process
from pytest_autoresearch.runners.time_limits import Fence, TimeLimit, training_limit
from pytest_autoresearch.runners.watch import Bounds, Ended, watch
from pytest_autoresearch.sandboxes.base import Allowance, Backend, Prepared, Unconfined, View
from pytest_autoresearch.sandboxes.disk import Written
from pytest_autoresearch.sandboxes.machine import gpu_devices

GROUP_SHARE, GROUP_MB = 1.1, 64  # the kernel kills at the memory limit * GROUP_SHARE + GROUP_MB
OUT_LIMIT_MB = 16 * 1024  # for AUTORESEARCH_OUT, and for the tree: far more than a model of any profile
CACHE_FILES = 50_000  # a compiler may try many kernels
SPARE_SECONDS = 2.0  # of the time for startup, which may not pass while the clock is about to start
PROCESS_LIMIT = 1000  # data loaders and compile workers for eight devices need far fewer


class LocalRunner:
    """Trains on this machine; any number of lane threads may call `run` at once.

    Args:
        gpus: The GPUs that training uses together; none for training on the CPU.
        sandbox: The sandbox that training is started in.
        launches: How training commands are started; others as they are, with this interpreter for `python`.
        process_limit: A run with more processes than this at one time is ended.
    """

    def __init__(
        self,
        gpus: Sequence[Gpu] = (),
        sandbox: Backend | None = None,
        launches: Mapping[tuple[str, ...], Launch] | None = None,
        *,
        process_limit: int = PROCESS_LIMIT,
    ) -> None:
        self._gpus = gpus
        self._sandbox = sandbox or Unconfined()
        self._launches = launches or {}
        self._process_limit = process_limit
        self._trees = ProcessTrees()
        self._has_scored = False

    def run(self, job: Job, on_progress: Callable[[Progress], str | None]) -> Run:
        """Train and score; see `Runner`.

        Raises:
            Stopped: `close` was called before there was a result.
            SandboxError: The sandbox did not start the run.
        """
        output = ProcessOutput(job.metric_name, job.ranks)
        view = self._server_view(job)
        with Scoring(job, view, self._sandbox, self._trees, self._process_limit) as scoring:
            try:
                if job.score is not None:
                    scoring.prepare(reads_pages=not self._has_scored)
            except OSError as error:
                return Run(job.seed, None, lane=job.lane, crash=_not_started(job.score or ("scorer",), error))
            run = self._trained(job, scoring, output, on_progress)
            log = output.text.log()
            if job.score is not None and run.crash is None and not run.hopeless:
                scorer_output = ProcessOutput(job.metric_name)
                run = self._scored(job.score, run, scoring, scorer_output, on_progress)
                # Only into the log file, for the user. `Run.log` may reach a proposer; the scorer has seen validation
                # data.
                log += b"--- scoring ---\n" + scorer_output.text.log()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_bytes(log)
        return run

    def close(self) -> None:
        """End every process at once; `run` raises Stopped, now and later."""
        self._trees.close()

    def _trained(
        self, job: Job, scoring: Scoring, output: ProcessOutput, on_progress: Callable[[Progress], str | None]
    ) -> Run:
        """The run after training: with a crash or, if a scorer measures the metric, still to be scored."""
        launch = self._launches.get(tuple(job.command), Launch(job.command))
        rows = self._sandbox.open_read_only(job.rows) if job.rows else None
        with (
            Clock(rows, lambda clock: _before_clock(job, scoring, clock)) as clock,
            self._sandbox.prepare(self._view(job, launch, clock)) as prepared,
        ):
            limit_mb, inside = job.limits.memory_limit_mb, bool(prepared.argv_prefix)
            memory = (
                OnDevices(self._gpus, limit_mb, sandboxed=inside)
                if self._gpus
                else Resident(limit_mb, sandboxed=inside, counted=prepared.memory_bytes)
            )
            disk = [Written(job.out, OUT_LIMIT_MB)]
            if job.cache:
                disk.append(Written(job.cache, compile_cache.MOST_MB, CACHE_FILES, every_seconds=5.0))
            if job.tree:
                disk.append(Written(job.tree, OUT_LIMIT_MB, every_seconds=1.0))
            try:
                tree = self._start(launch.command, job.folder, prepared, (clock.child_fd,))
            except OSError as error:
                return Run(job.seed, None, lane=job.lane, crash=_not_started(launch.command, error))
            progress = _TrainingProgress(job, clock, output, on_gpu=bool(self._gpus))
            ended = self._train(job, tree, (memory, disk), progress, on_progress)
            if not prepared.entered and ended.crash is None:
                raise SandboxError(f"the sandbox did not start the run: {output.text.tail() or 'no output'}")
            ended = replace(ended, exit_status=prepared.exit_status(ended.exit_status))
        settle = reported_run if job.score is None else scored_run
        progress.at(ended.seconds, 0.0)
        return replace(settle(job, clock, ended, output), losses=progress.losses)

    def _scored(
        self,
        command: Sequence[str],
        run: Run,
        scoring: Scoring,
        output: ProcessOutput,
        on_progress: Callable[[Progress], str | None],
    ) -> Run:
        def tick(seconds: float, memory_mb: float) -> None:
            on_progress(Progress("scoring", seconds=seconds, memory_mb=memory_mb))

        try:
            ended = scoring.run(output, tick)
        except OSError as error:
            return replace(run, crash=_not_started(command, error))
        self._has_scored = True
        return with_score(run, ended, output)

    def _train(
        self,
        job: Job,
        tree: ProcessTree,
        use: tuple[Memory, Sequence[Written]],
        progress: _TrainingProgress,
        on_progress: Callable[[Progress], str | None],
    ) -> Ended:
        memory, disk = use
        clock, output = progress.clock, progress.output
        progress.started = tree.started
        clock.handed_over(tree.started)
        fence = None if job.score is None else Fence(job.out)
        return self._watch(
            tree,
            output,
            time_limit=lambda: training_limit(job.limits, clock.begun, fence),
            tick=lambda seconds, memory_mb: on_progress(progress.at(seconds, memory_mb)),
            memory=memory,
            disk=lambda pids: next((message for part in disk if (message := part.over(pids))), ""),
            clock=clock,
            feed=progress.feed,
            startup=lambda processes: (
                clock.spent(processes, job.limits.startup_cpu_seconds)
                or clock.spent_on_gpus(memory.gpu_seconds, job.limits.startup_gpu_seconds)
            ),
        )

    def _view(self, job: Job, launch: Launch, clock: Clock) -> View:
        """The files and variables that training sees."""
        started = replace(job, environment={**launch.environment, **job.environment})
        return View(
            folder=job.folder,
            environment=training_environment(os.environ, started, clock.child_fd, clock.door)
            | (compile_cache.variables(job.cache) if job.cache else {}),
            # git's link in the tree stays as it is, because the user's git would follow another.
            readable=(
                job.folder,
                clock.door.parent,
                *((job.tree / ".git",) if job.tree else ()),
                *job.readable,
                *launch.readable,
            ),
            links=launch.links,
            covered=job.covered,
            writable=(job.out, *((job.cache,) if job.cache else ()), *((job.tree, job.folder) if job.tree else ())),
            allowance=self._allowance(job.limits),
            devices=gpu_devices(self._gpus),
        )

    def _allowance(self, limits: Limits) -> Allowance:
        """Training's allowance. On a CPU the memory limit also covers its files in /tmp and /dev/shm."""
        limit_mb, usual = limits.memory_limit_mb, Allowance()
        if self._gpus or limit_mb == math.inf:
            return usual
        # The kernel kills at the group's limit without a message, so our own check should come first.
        return Allowance(
            tmp_mb=min(usual.tmp_mb, limit_mb),
            shm_mb=min(usual.shm_mb, limit_mb),
            memory_mb=GROUP_SHARE * limit_mb + GROUP_MB,
        )

    def _server_view(self, job: Job) -> View:
        """The files and variables that the candidate's model server sees; it can write to none of them.

        The scorer sends it a copy of the model, so that it leaves no trace in the page cache of the files beside it.
        """
        return View(
            folder=job.folder,
            environment=candidate_environment(scoring_environment(os.environ, job), job),
            readable=(job.folder, *job.readable, *job.trusted),
            covered=job.covered,
            allowance=replace(
                self._allowance(job.limits), cpu_seconds=job.limits.deadline_seconds * (os.cpu_count() or 1)
            ),
            devices=gpu_devices(self._gpus),
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
        output: ProcessOutput,
        *,
        time_limit: Callable[[], TimeLimit],
        tick: Callable[[float, float], str | None],
        memory: Memory,
        disk: Callable[[Iterable[int]], str] = lambda pids: "",
        clock: Clock | None = None,
        feed: Callable[[bytes], None] | None = None,
        startup: Callable[[Iterable[Process]], str] = lambda processes: "",
    ) -> Ended:
        bounds = Bounds(time_limit, memory, self._process_limit, disk, startup)
        try:
            ended = watch(tree, bounds, feed=feed or output.feed, tick=tick, clock=clock)
        finally:
            self._trees.forget(tree)
        self._trees.check_open()
        output.finish()
        return ended


@dataclass(slots=True)
class _TrainingProgress:
    """Training's progress. Training begins when its clock starts or, if it asks for no clock, with its first step.

    Attributes:
        on_gpu: Whether its memory is that of the GPU.
        started: When the process was started, by the monotonic clock.
        first_step: When the first step was seen, in seconds from the start of the process.
        curve: The losses that were printed.
        losses: The losses at the checkpoints, up to now.
    """

    job: Job
    clock: Clock
    output: ProcessOutput
    on_gpu: bool
    started: float = 0.0
    first_step: float | None = None
    curve: Smoothed = field(default_factory=Smoothed)
    losses: tuple[float | None, ...] = ()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of output; the time of a loss is the time at which it is read."""
        self.output.feed(data)
        losses = self.output.summary.new_losses()
        trained = self._trained(time.monotonic() - self.started)
        if trained is not None:
            for loss in losses:
                self.curve.add(trained / self.job.limits.budget_seconds, loss)

    def at(self, seconds: float, memory_mb: float) -> Progress:
        """The progress this many seconds after the start of the process."""
        step, loss, trained = self.output.summary.step, self.output.summary.loss, self._trained(seconds)
        if trained is None:
            return Progress("preflight", step, loss, seconds, None, memory_mb, on_gpu=self.on_gpu)
        budget = self.job.limits.budget_seconds
        self.losses = self.curve.losses(trained / budget)
        left = max(0.0, budget - trained)
        return Progress("training", step, loss, trained, left, memory_mb, losses=self.losses, on_gpu=self.on_gpu)

    def _trained(self, seconds: float) -> float | None:
        """Seconds of training so far; None before training has begun."""
        if self.first_step is None and self.output.summary.step is not None:
            self.first_step = seconds
        if self.job.score is not None:
            return None if self.clock.begun is None else max(0.0, seconds - self.clock.begun)
        begun = self.first_step if self.clock.begun is None else self.clock.begun
        return None if begun is None else max(0.0, seconds - begun)


def _before_clock(job: Job, scoring: Scoring, clock: Clock) -> None:
    if job.cache and job.keep_cache:
        compile_cache.copy(job.cache, job.keep_cache)
    # Within training's own time for its startup, in which its processes may go on.
    scoring.await_ready(job.limits.startup_seconds - SPARE_SECONDS - clock.seconds)


def _not_started(command: Sequence[str], error: OSError) -> Crash:
    return Crash(CrashClass.EXIT, f"{command[0]} could not be started: {error.strerror or error}", 127)
