"""Processes that do their best to outlive a run, or to take the machine with them: none is left, whatever it does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from runner_bench import SCORER, Bench, crash, runs

from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.runners.orphans import MARK, new_mark, sweep
from pytest_autoresearch.runners.supervised import SupervisedTree
from pytest_autoresearch.runners.unsupervised import UnsupervisedTree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no supervisor")

# Leaves its parent, its session, its files and, unless told otherwise, its environment.
DAEMON = """
import signal
from contract import *

def daemon(environment={}):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(os.getpid())
            os.closerange(0, 256)
            os.execve("/bin/sleep", ["sleep", "60"], environment)
        os._exit(0)
    os.wait()

def wait_for_pids(count):
    while not os.path.exists(OUT + "/pids") or len(open(OUT + "/pids").readlines()) < count:
        time.sleep(0.005)
"""
NIGHT = """
import sys
from pathlib import Path
from runner_bench import Bench

Bench(Path(sys.argv[1])).run(sys.argv[2])
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.runner.close()


def wait_until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def inside(bench: Bench) -> list[int]:
    """What runs in the folder that the candidate was started in."""
    lane = str(bench.folder / "lane0")
    return [
        process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == lane and runs(process.pid)
    ]


# Within a session


@pytest.mark.parametrize("ending", ["", "time.sleep(60)"], ids=["exits", "is-ended"])
def test_a_daemon_that_has_cut_every_tie_does_not_outlive_the_run(bench: Bench, ending: str) -> None:
    script = f"{DAEMON}\ndaemon(); wait_for_pids(1); print('val_bpb: 1', flush=True); {ending}"
    run = bench.run(script, deadline_seconds=0.5)
    assert run.metric == (None if ending else 1.0)
    assert not runs(*bench.pids())


def test_a_storm_of_processes_is_ended_at_the_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LocalRunner(process_limit=20))
    run = bench.run("""
        import mmap
        from contract import *
        born = mmap.mmap(-1, 1)
        until = time.monotonic() + 10
        while time.monotonic() < until and born[0] < 200:
            if os.fork() == 0:
                born[0] += 1
                if born[0] % 2:
                    os.setsid()
            time.sleep(0.002)
        time.sleep(60)
        """)
    reason, message = crash(run)
    assert reason == "over-processes"
    assert re.fullmatch(r"ran \d+ processes at a time; the limit is 20", message)
    assert not inside(bench)


def test_a_process_that_is_never_the_same_one_for_long_is_caught(bench: Bench) -> None:
    run = bench.run("""
        from contract import *
        if os.fork() == 0:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                os.setsid()
                with open(OUT + "/lives", "a") as file:
                    file.write(".")
                if os.fork() > 0:
                    os._exit(0)
            os._exit(0)
        time.sleep(0.2)
        print("val_bpb: 1")
        """)
    assert run.metric == 1.0
    assert len((bench.folder / "lane0" / "out" / "lives").read_text()) > 10
    assert not inside(bench)


def test_one_that_kills_its_supervisor_is_ended_with_all_that_was_seen_or_is_marked(bench: Bench) -> None:
    run = bench.run(f"""
        {DAEMON.replace(chr(10), chr(10) + " " * 8)}
        daemon()
        wait_for_pids(1)
        time.sleep(0.3)
        daemon(dict(os.environ))
        note(os.getpid())
        wait_for_pids(3)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
        """)
    assert crash(run) == ("unwatched", "killed its own supervisor, so its exit status is unknown")
    assert not any(map(runs, bench.pids()))


def test_one_that_stops_its_supervisor_is_held_to_its_limits_all_the_same(bench: Bench) -> None:
    script = "import os; note(os.getppid()); os.kill(os.getppid(), 19); print('val_bpb: 1')"
    run = bench.run("from contract import *; " + script, deadline_seconds=0.3)
    assert crash(run)[0] == "timeout"
    assert not runs(*bench.pids())


def test_a_tree_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    trees: list[SupervisedTree] = []
    thread = threading.Thread(target=lambda: trees.append(SupervisedTree(["sleep", "60"], tmp_path, os.environ)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert not trees[0].exited()
    assert len(trees[0].look()) == 1
    trees[0].end(0.0, time.sleep)
    trees[0].stdout.close()
    trees[0].stderr.close()
    assert trees[0].exit_status == -signal.SIGKILL


def test_memory_that_processes_share_counts_once(bench: Bench) -> None:
    run = bench.run(
        """
        import os, time
        corpus = b"x" * 80_000_000
        for _ in range(4):
            if os.fork() == 0:
                time.sleep(60)
        time.sleep(1.5)
        print("val_bpb: 1")
        """,
        memory_limit_mb=200.0,
    )
    assert run.crash is None
    assert 80.0 < run.peak_memory_mb < 160.0


def test_bytes_that_no_report_can_hold_give_a_log_that_one_can(bench: Bench) -> None:
    job = bench.job(r"""
        import os
        os.write(1, bytes(range(256)) + "\x1b]0;title\x07\x1b[31mred\x1b[0m\ufffe\uffff\n\x00val_bpb: 1".encode())
        """)
    run = bench.runner.run(job, lambda progress: None)
    assert run.metric == 1.0
    assert run.log.endswith("red\nval_bpb: 1")
    for text in (run.log, job.log.read_text("utf-8")):
        element = ElementTree.Element("system-out")
        element.text = text
        assert ElementTree.fromstring(ElementTree.tostring(element)).text == text


def test_a_command_gets_its_variables_and_no_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv("LC_CTYPE", raising=False)
    job = replace(bench.job(""), command=("env",))
    bench.runner.run(job, lambda progress: None)
    assert "LC_ALL=C\n" in job.log.read_text()
    assert "LC_CTYPE" not in job.log.read_text(), "an interpreter on the way adds this one"


# When the session is killed


def test_a_session_that_is_killed_leaves_no_training_behind(bench: Bench) -> None:
    night = start_night(bench, f"{DAEMON}\ndaemon(); note(os.getpid()); wait_for_pids(2); time.sleep(60)", 2)
    assert all(map(runs, bench.pids()))
    night.kill()
    night.wait()
    wait_until(lambda: not any(map(runs, bench.pids())))


def test_what_a_killed_session_and_its_killed_supervisor_left_is_swept_by_the_next(bench: Bench) -> None:
    script = f"{DAEMON}\ndaemon(dict(os.environ)); note(os.getppid()); wait_for_pids(2); time.sleep(60)"
    night = start_night(bench, script, 2)
    left, supervisor = sorted(bench.pids(), key=lambda pid: "sleep" not in Path(f"/proc/{pid}/comm").read_text())
    night.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    night.kill()
    night.wait()
    assert runs(left)
    assert re.fullmatch(r"ended (a process|\d+ processes) that a killed session left running", sweep())
    assert not runs(left)


def start_night(bench: Bench, script: str, count: int) -> subprocess.Popen[bytes]:
    """Another process that runs the script as a job and is to be killed, once the script has noted so many pids."""
    night = subprocess.Popen(
        [sys.executable, "-c", NIGHT, str(bench.folder), script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    noted = bench.folder / "lane0" / "out" / "pids"
    wait_until(lambda: noted.exists() and len(noted.read_text().splitlines()) == count)
    return night


def test_a_sweep_leaves_alone_what_lives_and_what_is_not_its_own(bench: Bench) -> None:
    swept: list[str] = []

    def during(progress: Progress) -> None:
        if not swept:
            swept.append(sweep())

    job = bench.job("import time; time.sleep(0.2); print('val_bpb: 1')", scorer=None)
    assert bench.runner.run(job, during).metric == 1.0
    assert swept
    place, pid, started, _ = new_mark().split(":")
    boot, namespace = place.split("/")
    marks = {
        f"{place}:{pid}:{int(started) - 1}:1": False,  # the number was given again, to this very process
        f"{place}:{pid}:{started}:1": True,
        f"{boot}/{int(namespace) + 1}:{pid}:1:1": True,
        f"{boot[::-1]}/{namespace}:{pid}:1:1": True,
        "": True,
        "nonsense": True,
        "a:b:c": True,
    }
    sleepers = {mark: subprocess.Popen(["sleep", "60"], env={MARK: mark}, start_new_session=True) for mark in marks}
    try:
        sweep()
        for mark, lives in marks.items():
            if not lives:  # it is killed when the sweep returns, and may be on its way out
                sleepers[mark].wait(10)
        assert {mark: sleeper.poll() is None for mark, sleeper in sleepers.items()} == marks
    finally:
        for sleeper in sleepers.values():
            sleeper.kill()
            sleeper.wait()


# Where there is no supervisor


def test_without_a_supervisor_runs_are_measured_and_ended_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_autoresearch.runners.process_trees.TREE", UnsupervisedTree)
    run = bench.run("from contract import *; begin(); leave('1.5'); time.sleep(0.2)", scorer=SCORER)
    assert (run.metric, run.exit_status) == (1.5, 0)
    assert run.peak_memory_mb > 1.0
    sleeps = "import time; time.sleep(60)"
    script = f"from contract import *; note(child({sleeps!r}, start_new_session=True).pid); {sleeps}"
    assert crash(bench.run(script, deadline_seconds=0.3)) == ("timeout", "killed after 0.3 s")
    assert not runs(*bench.pids())
    missing = replace(bench.job(""), command=("no-such-program",))
    assert crash(bench.runner.run(missing, lambda progress: None))[0] == "exit 127"
