"""What a process of the local runner gets, how its output is read, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from runner_bench import SCORER, Bench, crash, runs

from pytest_autoresearch.core.errors import Stopped
from pytest_autoresearch.core.run import Progress, Run

IGNORES_TERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.runner.close()


# What a process gets


def test_a_process_sees_the_contract_and_the_allowed_variables_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("AUTORESEARCH_TOKEN", "secret")
    monkeypatch.setenv("AUTORESEARCH_CANDIDATE", "an outer campaign's")
    monkeypatch.setenv("AUTORESEARCH_PROFILE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("SOME_NAME", "value")
    show = "import os\nfor name, value in os.environ.items(): print(f'{name}={value}')\n"
    job = bench.job(show + "from contract import *; begin(); leave('1.0')", scorer=show + SCORER, budget_seconds=15.0)
    job = replace(job, environment={"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "1"})
    bench.runner.run(job, lambda progress: None)
    training, scoring = job.log.read_text().split("--- scoring ---\n")
    for seen in (training, scoring):
        variables = dict(line.split("=", 1) for line in seen.splitlines() if "=" in line)
        assert variables["AUTORESEARCH_SEED"] == "7"
        assert variables["AUTORESEARCH_BUDGET"] == "15.0"
        assert variables["AUTORESEARCH_OUT"] == str(job.out)
        assert variables["AUTORESEARCH_PROFILE"] == "cpu"
        assert variables["PYTHONUNBUFFERED"] == variables["PYTHONDONTWRITEBYTECODE"] == "1"
        assert variables["CUDA_VISIBLE_DEVICES"] == "3"
        assert variables["OMP_NUM_THREADS"] == "1", "the job's own come last"
        assert variables["PATH"] == os.environ["PATH"]
        assert not {"ANTHROPIC_API_KEY", "AUTORESEARCH_TOKEN", "SOME_NAME"} & set(variables)
    assert "AUTORESEARCH_CLOCK_FD=" in training
    assert "AUTORESEARCH_CANDIDATE=" not in training
    assert "AUTORESEARCH_CLOCK_FD=" not in scoring
    assert f"AUTORESEARCH_CANDIDATE={job.folder}\n" in scoring


def test_a_process_has_an_empty_input_a_session_of_its_own_and_no_other_files(bench: Bench) -> None:
    run = bench.run("""
        import os, sys
        assert sys.stdin.read() == ""
        assert os.getsid(0) == os.getpgid(0) == os.getpid()
        print("open:", sum(os.path.exists(f"/dev/fd/{number}") for number in range(4096)))
        print("val_bpb: 1")
        """)
    assert run.crash is None
    assert run.metrics["open"] == 4  # three and the clock


def test_a_program_that_cannot_be_started_is_a_crash_that_names_it(bench: Bench) -> None:
    job = replace(bench.job(""), command=("no-such-program", "train.py"))
    run = bench.runner.run(job, lambda progress: None)
    assert crash(run) == ("exit 127", "no-such-program could not be started: No such file or directory")
    assert run.exit_status is None


# Ending


def test_a_child_that_ignores_term_does_not_outlive_the_run(bench: Bench) -> None:
    run = bench.run(
        f"""
        from contract import *
        deaf = child({IGNORES_TERM!r}, stdout=subprocess.PIPE)
        deaf.stdout.readline()
        note(deaf.pid)
        time.sleep(60)
        """,
        deadline_seconds=0.6,
    )
    assert crash(run)[0] == "timeout"
    assert not runs(*bench.pids())


def test_a_leader_that_ignores_term_is_killed_after_a_moment_and_may_speak_until_then(bench: Bench) -> None:
    run = bench.run(
        """
        import signal, time
        signal.signal(signal.SIGTERM, lambda *_: print("asked to end\\n" * 20_000, flush=True))
        while True:
            time.sleep(0.1)
        """,
        deadline_seconds=0.3,
    )
    assert run.exit_status == -signal.SIGKILL
    assert run.log.endswith("asked to end")
    assert 1.8 <= run.total_seconds < 20.0


@pytest.mark.parametrize("options", ["", "start_new_session=True"], ids=["same-session", "own-session"])
@pytest.mark.parametrize("ending", ["", "time.sleep(60)"], ids=["exits", "is-ended"])
def test_a_grandchild_that_holds_the_output_open_neither_hangs_the_run_nor_outlives_it(
    bench: Bench, options: str, ending: str
) -> None:
    run = bench.run(
        f"""
        from contract import *
        note(child("import time; time.sleep(60)", {options}).pid)
        time.sleep(0.4)
        print("val_bpb: 1", flush=True)
        {ending}
        """,
        deadline_seconds=1.0,
    )
    assert run.total_seconds < 20.0
    assert run.metric == (None if ending else 1.0)
    assert not runs(*bench.pids())


def test_an_orphan_with_a_process_group_of_its_own_does_not_outlive_the_run(bench: Bench) -> None:
    run = bench.run("""
        from contract import *
        if os.fork() == 0:
            os.setpgid(0, 0)
            if os.fork() == 0:
                note(os.getpid())
                time.sleep(60)
            os._exit(0)
        os.wait()
        while not os.path.exists(OUT + "/pids"):
            time.sleep(0.01)
        time.sleep(0.05)
        print("val_bpb: 1")
        """)
    assert run.metric == 1.0
    assert not runs(*bench.pids())


def test_a_process_that_closes_its_output_is_watched_to_its_end(bench: Bench) -> None:
    run = bench.run("""
        import os, time
        print("val_bpb: 1", flush=True)
        os.close(1)
        os.close(2)
        time.sleep(0.4)
        os._exit(5)
        """)
    assert crash(run) == ("exit 5", "val_bpb: 1")
    assert 0.4 <= run.total_seconds < 20.0


def test_an_error_in_a_progress_callback_leaves_no_process(bench: Bench) -> None:
    def fail(progress: Progress) -> None:
        if any(noted.read_text() for noted in bench.folder.glob("lane0/out/pids")):
            raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="the terminal is gone"):
        bench.runner.run(bench.job("from contract import *; note(os.getpid()); time.sleep(60)"), fail)
    assert not runs(*bench.pids())


# Output


def test_fifty_megabytes_of_output_are_read_to_the_end_and_kept_in_bounds(bench: Bench) -> None:
    job = bench.job("""
        import sys
        print("first line")
        print("METRIC val_bpb=3")
        for _ in range(50):
            sys.stdout.write(("x" * 999 + "\\n") * 1000)
        print("last line")
        """)
    run = bench.runner.run(job, lambda progress: None)
    assert run.metric == 3.0
    text = job.log.read_text()
    assert len(text) < 330 * 1024
    assert text.startswith("first line\nMETRIC val_bpb=3\n")
    assert text.endswith("x\nlast line\n")
    left_out = next(line for line in text.splitlines() if line.startswith("[..."))
    assert int(left_out.split()[1].replace(",", "")) + len(text) - len(left_out) - 1 == 50_000_000 + 38
    assert len(run.log) <= 4000
    assert run.log.endswith("last line")


def test_progress_goes_from_starting_over_training_to_scoring(bench: Bench) -> None:
    said: list[Progress] = []
    job = bench.job(
        """
        from contract import *
        time.sleep(0.3)
        begin()
        for step in range(70):
            print(f"\\rstep {step:05d} | loss: {3 - step / 100:.2f}", end="")
            time.sleep(0.01)
        leave("1.0")
        """,
        scorer="import time; time.sleep(0.3)\n" + SCORER,
        budget_seconds=10.0,
    )
    begun = time.monotonic()
    bench.runner.run(job, said.append)
    assert len(said) <= 5 * (time.monotonic() - begun) + 3
    assert list(dict.fromkeys(progress.phase for progress in said)) == ["preflight", "training", "scoring"]
    preflight = [progress for progress in said if progress.phase == "preflight"]
    assert all(progress.remaining_seconds is None and progress.step is None for progress in preflight)
    training = [progress for progress in said if progress.phase == "training"]
    assert training[-1].step is not None
    assert training[-1].loss == pytest.approx(3 - training[-1].step / 100)
    assert training[-1].seconds > 0.0
    assert training[-1].remaining_seconds == pytest.approx(10.0 - training[-1].seconds)
    assert max(progress.memory_mb for progress in training) > 1.0


def test_progress_comes_without_output_too(bench: Bench) -> None:
    said: list[Progress] = []
    bench.runner.run(bench.job("import time; time.sleep(0.9); print('val_bpb: 1')"), said.append)
    assert len(said) >= 3
    assert [progress.seconds for progress in said] == sorted(progress.seconds for progress in said)


def test_training_that_only_reports_is_training_from_its_first_step_on(bench: Bench) -> None:
    said: list[Progress] = []
    script = "import time; time.sleep(0.3); print('step 1', flush=True); time.sleep(0.5); print('val_bpb: 1')"
    bench.runner.run(bench.job(script), said.append)
    assert [said[0].phase, said[-1].phase] == ["preflight", "training"]
    assert said[-1].step == 1


# Closing


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Starts `call`; the list gets what it returns or raises."""
    results: list[object] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def test_close_ends_every_lane_at_once_and_its_runs_are_stopped(bench: Bench) -> None:
    lanes = [
        bench.job("from contract import *; note(os.getpid()); time.sleep(60)"),
        bench.job(f"from contract import *; note(os.getpid()); exec({IGNORES_TERM!r})", lane=1),
    ]
    threads = [in_thread(lambda job=job: bench.runner.run(job, lambda progress: None)) for job in lanes]
    while not all((job.out / "pids").exists() for job in lanes):
        time.sleep(0.01)
    time.sleep(0.1)
    bench.runner.close()
    for lane, (thread, results) in enumerate(threads):
        thread.join(5)
        assert isinstance(results[0], Stopped)
        assert not runs(*bench.pids(lane))
    late = bench.job("from contract import *; note(os.getpid())", lane=2)
    with pytest.raises(Stopped):
        bench.runner.run(late, lambda progress: None)
    assert not (late.out / "pids").exists(), "it was not even started"


def test_close_during_scoring_stops_the_run(bench: Bench) -> None:
    scoring = threading.Event()
    job = bench.job("from contract import *; begin(); leave('1')", scorer="import time; time.sleep(60)")
    thread, results = in_thread(
        lambda: bench.runner.run(job, lambda progress: scoring.set() if progress.phase == "scoring" else None)
    )
    assert scoring.wait(10)
    bench.runner.close()
    thread.join(5)
    assert isinstance(results[0], Stopped)


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03, 0.06])
def test_starting_and_closing_do_not_race(bench: Bench, pause: float) -> None:
    jobs = [bench.job("from contract import *; note(os.getpid()); time.sleep(60)", lane=lane) for lane in range(4)]
    threads = [in_thread(lambda job=job: bench.runner.run(job, lambda progress: None)) for job in jobs]
    time.sleep(pause)
    bench.runner.close()
    for thread, results in threads:
        thread.join(5)
        assert isinstance(results[0], Stopped)
    children = psutil.Process().children(recursive=True)
    assert not [child.pid for child in children if runs(child.pid) and "train.py" in child.cmdline()]


def test_lanes_run_at_the_same_time(bench: Bench) -> None:
    script = "from contract import *; note(1)\nwhile not os.path.exists('../lane{}/out/pids'): time.sleep(0.01)\n"
    jobs = [bench.job(script.format(1 - lane) + f"print('val_bpb: {lane}')", lane=lane) for lane in range(2)]
    threads = [in_thread(lambda job=job: bench.runner.run(job, lambda progress: None)) for job in jobs]
    for lane, (thread, results) in enumerate(threads):
        thread.join(20)
        assert isinstance(results[0], Run)
        assert (results[0].lane, results[0].metric) == (lane, float(lane))
