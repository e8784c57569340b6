"""How many lanes one session keeps busy: real sessions, with simulated training.

    python benchmarks/scale.py [--lanes 1 8 64 512] [--experiments 1000] [--records 0] [--thinks 2] [--ahead 8]

Everything is real but training and the proposer: pytest, the loop, git, the keep rule, the acceptance test, reports.
Training and the proposer only wait, on a clock that is not the wall's: it goes on by itself while a thread works, and
jumps to the next event when all threads wait. So the time that the session itself needs counts in full, and a night of
many GPUs takes minutes.

A lane is idle from the end of one of its runs to the start of the next; the time before its first run and after its
last does not count. Main thread: its time for an experiment, without waiting and without the views that follow the
session: one look (live line, progress file), which it takes twice a second, and the share of the session's time that
report.html and the JUnit file take. In brackets, how much of the main thread's time it computes itself; the rest it
waits for git or, on a busy machine, for a core. Most: the runs of the experiment with the most; again: how often an
experiment was measured again because another lane's keep had overtaken it. Objects each: how many more the session
holds for each experiment; slower: the time of an experiment at the end, in those at the start. Each size runs in a
process of its own. `--records` begins with so many earlier experiments, written in bulk, to see the end of a long
campaign without its beginning.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import gc
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.overhead import TAG, write_records
from pytest_autoresearch.campaign.campaign import Campaign
from pytest_autoresearch.campaign.free_lanes import FreeLanes
from pytest_autoresearch.campaign.in_flight import InFlight
from pytest_autoresearch.campaign.work_queue import WorkQueue
from pytest_autoresearch.core.experiment import Proposal
from pytest_autoresearch.core.failure import Failure
from pytest_autoresearch.core.run import Progress, Role, Run
from pytest_autoresearch.hardware.lanes import Lane
from pytest_autoresearch.measure import beside
from pytest_autoresearch.measure import lanes as measure_lanes
from pytest_autoresearch.measure.lanes import Taken
from pytest_autoresearch.measure.place import Here
from pytest_autoresearch.measure.setup import Equipment
from pytest_autoresearch.proposers.base import Context
from pytest_autoresearch.proposers.choice import Choice
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.session import begin
from pytest_autoresearch.session.loop import Loop
from pytest_autoresearch.session.main_thread import MainThread
from pytest_autoresearch.session.views import Views

CONSTANTS = 12
START_SECONDS = (5.0, 15.0)  # before the budget: imports and compilation
SCORE_SECONDS = 4.0
NOISE = 0.0004  # the standard deviation of a run
FILES = {
    "train.py": "".join(f"RATE_{n} = 0.5\n" for n in range(CONSTANTS)),
    "describe.py": """print('{"device": "cuda", "budget_seconds": BUDGET, "memory_limit_mb": 80000}')\n""",
    "program.md": "Lower val_bpb.\n",
    "pytest.ini": "[pytest]\nautoresearch_describe = python -S describe.py\n",
    ".gitignore": "__pycache__/\nresults.*\nreport.html\nprogress.png\nexperiments/\n",
}
_now, _time = time.monotonic, time.time


class Clock:
    """The wall's clock, and the jumps made while every thread waits.

    `begin` and `end` count the threads at work. A thread that waits says for what, so that nothing is jumped over.
    """

    def __init__(self) -> None:
        self.jumped = 0.0
        self._working = 1  # the main thread
        self._awaited: dict[int, Callable[[], bool]] = {}
        self._sleepers: dict[int, tuple[float, threading.Event]] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._jump, daemon=True).start()

    def now(self) -> float:
        return _now() + self.jumped

    def begin(self) -> None:
        """One more thread is at work."""
        with self._changed:
            self._working += 1

    def end(self) -> None:
        """One thread less is at work."""
        with self._changed:
            self._working -= 1
            self._changed.notify()

    @contextlib.contextmanager
    def waiting(self, over: Callable[[], bool]) -> Iterator[None]:
        """This thread waits, until `over` or a little later."""
        me = threading.get_ident()
        with self._changed:
            self._awaited[me] = over
            self._working -= 1
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._working += 1
                del self._awaited[me]

    def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        me, until, woken = threading.get_ident(), self.now() + seconds, threading.Event()
        self._sleepers[me] = (until, woken)
        with self.waiting(woken.is_set):
            woken.wait()
        del self._sleepers[me]

    def _jump(self) -> None:
        while True:
            with self._changed:
                next_event = min((until for until, _ in self._sleepers.copy().values()), default=None)
                left = None if next_event is None else next_event - self.now()
                all_wait = not self._working and not any(over() for over in self._awaited.copy().values())
                if left is not None and left > 0 and all_wait:
                    self.jumped += left
                for until, woken in self._sleepers.copy().values():
                    if until <= self.now():
                        woken.set()
                self._changed.wait(0.001 if left is None or self._working else 0.0005)


@dataclass
class Measured:
    """What a session took, in seconds.

    Attributes:
        runs: Start and end of each run, by lane.
        main: The main thread, without waiting for lanes; `looks` and `views` are in it.
        computing: Its processor time, without `looks` and `views`.
        memory: The memory of the process in MiB, after each tenth of the experiments.
        objects: How many objects Python's collector tracks, and `files`, how many files are open, at the same times.
        ends: When each experiment was recorded, on the wall's clock.
        asked: How many runs each experiment took.
        overtaken: How many times each experiment was measured again on a later head.
    """

    experiments: int
    runs: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    main: float = 0.0
    computing: float = 0.0
    looks: list[float] = field(default_factory=list)
    views: float = 0.0
    memory: list[float] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    overtaken: list[int] = field(default_factory=list)
    done: int = 0

    def idle(self) -> float:
        """The share of lane time without a run."""
        spans = [(made[-1][1] - made[0][0], sum(end - start for start, end in made)) for made in self.runs.values()]
        return 1 - sum(busy for _, busy in spans) / sum(whole for whole, _ in spans)

    def slower(self) -> float:
        """How many times as long an experiment of the last tenth took as one of the second, on the wall's clock."""
        tenth = max(1, len(self.ends) // 10)
        return (self.ends[-1] - self.ends[-tenth - 1]) / max(1e-9, self.ends[2 * tenth] - self.ends[tenth])

    def growth(self) -> float:
        """How many more objects there were at the end, for each experiment since the third tenth."""
        return (self.objects[-1] - self.objects[2]) / (self.experiments * (len(self.objects) - 3) / 10)

    def hours(self) -> float:
        ends = [run for made in self.runs.values() for run in made]
        return (max(end for _, end in ends) - min(start for start, _ in ends)) / 3600


class SimulatedTraining:
    """See `runners.base.Runner`. The metric is a function of the program's constants, plus noise."""

    def __init__(self, clock: Clock, measured: Measured) -> None:
        self._clock, self._measured = clock, measured

    def run(self, job: Job, on_progress: Callable[[Progress], str | None]) -> Run:
        values: dict[str, float] = {}
        exec((job.folder / "train.py").read_text(), {}, values)
        draw = random.Random(f"{job.seed} {sorted(values.items())}")
        metric = 1.0 + sum((value - 0.1) ** 2 / 100 for value in values.values()) + draw.gauss(0, NOISE)
        start, budget, began = random.uniform(*START_SECONDS), job.limits.budget_seconds, self._clock.now()
        for part in (0.25, 0.5, 0.75, 1.0):
            self._clock.sleep(budget / 4 + start * (part == 0.25))
            left = budget * (1 - part)
            on_progress(Progress("training", int(1000 * part), 3.0 - part, budget - left, left, 40_000.0))
        self._clock.sleep(SCORE_SECONDS)
        ended = self._clock.now()
        self._measured.runs.setdefault(job.lane, []).append((began, ended))
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = "".join(f"step {step} loss: 3.0\n" for step in range(40))
        job.log.write_text(log)
        return Run(
            job.seed, metric, metric, {"val_bpb": metric, "training_seconds": budget}, budget, start, SCORE_SECONDS,
            ended - began, 40_000.0, "by process", 4000.0, 39_000.0, job.lane, log=log, exit_status=0,
        )  # fmt: skip

    def close(self) -> None: ...


class SimulatedProposer:
    """Changes one constant, after a while. See `proposers.base.Proposer`."""

    name = "simulated"
    listens = True

    def __init__(self, clock: Clock, thinks: float) -> None:
        self._clock, self._thinks = clock, thinks

    def propose(self, context: Context) -> Proposal:
        self._clock.sleep(self._thinks)
        train = context.folder / "train.py"
        lines, place = train.read_text().splitlines(), random.randrange(CONSTANTS)
        before = float(lines[place].split()[2])
        lines[place] = f"RATE_{place} = {before * random.uniform(0.5, 1.5)!r}"
        train.write_text("\n".join(lines) + "\n")
        return Proposal(f"{lines[place]}", "A hypothesis of usual length. " * 4, self.name)

    def repair(self, context: Context, proposal: Proposal, failure: Failure) -> Proposal:
        return self.propose(context)


class Inbox(queue.SimpleQueue[Any]):
    """The main thread's inbox; it works whenever it does not wait for a message."""

    def __init__(self, clock: Clock, measured: Measured) -> None:
        self._clock, self._measured = clock, measured
        self._since, self._computed = _now(), time.thread_time()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self._measured.main += _now() - self._since
        self._measured.computing += time.thread_time() - self._computed
        try:
            with self._clock.waiting(lambda: not self.empty()):
                return super().get(block, timeout)
        finally:
            self._since, self._computed = _now(), time.thread_time()


class Condition(threading.Condition):
    """A condition whose waiting threads do not hold the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        with self._clock.waiting(predicate):
            return super().wait_for(predicate, timeout)


class Awaited(Future[Any]):
    """A result for which a thread waits without holding the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def exception(self, timeout: float | None = None) -> BaseException | None:
        with self._clock.waiting(self.done):
            return super().exception(timeout)

    def result(self, timeout: float | None = None) -> Any:
        self.exception()
        return super().result(timeout)


def simulate(clock: Clock, measured: Measured, lanes: int, thinks: float, patch: pytest.MonkeyPatch) -> None:
    """Put the simulated parts in place, and follow every wait of the session."""
    patch.setattr(time, "monotonic", clock.now)
    patch.setattr(time, "time", lambda: _time() + clock.jumped)
    patch.setattr(measure_lanes, "on_cpu", lambda *asked: Taken((Lane(),) * lanes))
    patch.setattr(
        Equipment,
        "place",
        lambda self, settings, ratchet: Here(settings, self.harness, ratchet, SimulatedTraining(clock, measured)),
    )
    choice = Choice("simulated", lambda around: SimulatedProposer(clock, thinks))
    patch.setattr(begin, "choose", lambda *given: choice)
    take_lane, make_main_thread, done = FreeLanes.take, MainThread.__init__, MainThread.done
    launch, make_queue, record = Loop._launch, WorkQueue.__init__, Campaign.record
    show, checkpoint = Loop._show, Views.checkpoint

    def work_queue(self: WorkQueue, make: Callable[[], Any]) -> None:
        make_queue(self, make)
        self._asking = Condition(clock)

    def lane(self: FreeLanes, number: int) -> int:
        with clock.waiting(lambda: self._closed or bool(self._free and number == min(self._waiting, default=number))):
            return take_lane(self, number)

    def begun(self: Loop, slot: Any, flight: InFlight) -> None:
        clock.begin()
        launch(self, slot, flight)

    def ended(self: MainThread, slot: Any) -> None:
        done(self, slot)
        clock.end()

    def inbox(self: MainThread) -> None:
        make_main_thread(self)
        self._inbox = Inbox(clock, measured)  # type: ignore[assignment]

    def in_thread(work: Callable[[], Any]) -> Awaited:
        made = Awaited(clock)

        def call() -> None:
            try:
                made.set_result(work())
            except BaseException as error:
                made.set_exception(error)
            clock.end()

        clock.begin()
        threading.Thread(target=call, daemon=True).start()
        return made

    def look(self: Loop) -> None:
        began, computed = _now(), time.thread_time()
        show(self)
        measured.looks.append(_now() - began)
        measured.computing -= time.thread_time() - computed

    def views(self: Views) -> None:
        began, computed = _now(), time.thread_time()
        checkpoint(self)
        measured.views += _now() - began
        measured.computing -= time.thread_time() - computed

    def recorded(self: Campaign, *given: Any) -> Any:
        measured.done += 1
        if measured.done % max(1, measured.experiments // 10) == 0:
            measured.memory.append(psutil.Process().memory_info().rss / 2**20)
            measured.files.append(psutil.Process().num_fds())
            gc.collect()
            measured.objects.append(len(gc.get_objects()))
        measured.ends.append(_now())
        runs = given[0].runs
        measured.asked.append(len(runs))
        measured.overtaken.append(len({run.commit for run in runs if run.commit and run.role is not Role.INCUMBENT}))
        return record(self, *given)

    patch.setattr(beside, "in_thread", in_thread)
    for where, name, put in (
        (WorkQueue, "__init__", work_queue), (FreeLanes, "take", lane), (Loop, "_launch", begun),
        (MainThread, "__init__", inbox), (MainThread, "done", ended), (Campaign, "record", recorded),
        (Loop, "_show", look), (Views, "checkpoint", views),
    ):  # fmt: skip
        patch.setattr(where, name, put)


def night(lanes: int, given: argparse.Namespace) -> None:
    """One session in this process; prints its figures as JSON."""
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        folder = Path(scratch)
        for name, text in FILES.items():
            (folder / name).write_text(text.replace("BUDGET", str(given.seconds)))
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A baseline"]):
            git(folder, *command)
        os.chdir(folder)
        measured, profile = Measured(given.experiments), cProfile.Profile()
        simulate(Clock(), measured, lanes, given.thinks, patch)
        options = ["-q", "-p", "no:cacheprovider", "--autoresearch", "--autoresearch-tag", TAG]
        options += ["--autoresearch-sandbox", "off", "--autoresearch-racing", "off"]
        options += ["--max", str(given.experiments), "--autoresearch-ahead", str(given.ahead)]
        if given.records:
            with contextlib.redirect_stdout(sys.stderr):
                pytest.main([*options, "-k", "0000"])
            write_records(folder, given.records)
            measured.__init__(given.experiments)  # type: ignore[misc]
        began = _now()
        with profile if given.profile else contextlib.nullcontext(), contextlib.redirect_stdout(sys.stderr):
            status = pytest.main(options)
        if given.profile:
            profile.dump_stats(given.profile)
        objects = dict(line.split(": ") for line in git(folder, "count-objects", "-v").splitlines())
        figures = {
            "status": int(status), "lanes": lanes, "records": given.records, "experiments": given.experiments,
            "idle": measured.idle(), "computing": measured.computing / measured.done,
            "main": (measured.main - sum(measured.looks) - measured.views) / measured.done,
            "look": sum(measured.looks) / len(measured.looks), "views": measured.views / measured.hours() / 3600,
            "memory": measured.memory, "files": measured.files, "growth": measured.growth(),
            "slower": measured.slower(), "asked": max(measured.asked), "overtaken": max(measured.overtaken),
            "again": sum(measured.overtaken),
            "objects": int(objects["count"]) + int(objects["in-pack"]),
            "hours": measured.hours(), "wall": _now() - began, "runs": sum(map(len, measured.runs.values())),
        }  # fmt: skip
        print(json.dumps(figures))


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    return subprocess.run(["git", *who, *command], cwd=folder, text=True, capture_output=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 8, 64, 512], metavar="N")
    parser.add_argument("--experiments", type=int, default=1000, metavar="N", help="of each session (1000)")
    parser.add_argument("--records", type=int, default=0, metavar="N", help="of earlier experiments (0)")
    parser.add_argument("--seconds", type=float, default=300.0, help="the budget of a run (300)")
    parser.add_argument("--thinks", type=float, default=2.0, metavar="SECONDS", help="for one proposal (2)")
    parser.add_argument("--ahead", type=int, default=8, metavar="N", help="--autoresearch-ahead (8)")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write a profile of the main thread")
    parser.add_argument("--alone", action="store_true", help="one session, in this process, as JSON")
    given = parser.parse_args()
    if given.profile:
        given.profile = given.profile.absolute()
    if given.alone:
        night(given.lanes[0], given)
        return
    options = [
        "--experiments",
        given.experiments,
        "--records",
        given.records,
        "--seconds",
        given.seconds,
        "--thinks",
        given.thinks,
    ]
    options += ["--ahead", given.ahead, *(["--profile", given.profile] if given.profile else [])]
    print(
        "lanes  experiments    runs  most  again  hours   idle     main thread    a look  views  memory, first to last"
        "  objects each  files  slower  git objects"
    )
    for lanes in given.lanes:
        command = [sys.executable, __file__, "--alone", "--lanes", lanes, *options]
        done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, check=True)
        one = json.loads(done.stdout)
        print(
            f"{one['lanes']:5}  {one['experiments']:11,}  {one['runs']:6,}  {one['asked']:4}  {one['again']:5}"
            f"  {one['hours']:5.1f}  {one['idle']:6.2%}"
            f"  {1000 * one['main']:4.0f} ms ({1000 * one['computing']:2.0f} ms)  {1000 * one['look']:4.1f} ms  "
            f"{one['views']:5.2%}  "
            f"{one['memory'][0]:6.0f} to {one['memory'][-1]:6.0f} MiB  {one['growth']:12.1f}"
            f"  {one['files'][-1]:5}  {one['slower']:6.2f}  {one['objects']:11,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
