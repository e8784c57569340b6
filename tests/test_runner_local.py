"""The local runner with real processes: small scripts that train nothing and behave, or misbehave, as training can."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from pytest_autoresearch.errors import Stopped
from pytest_autoresearch.experiment import Limits, Progress, Run
from pytest_autoresearch.runners.base import Job
from pytest_autoresearch.runners.local import LocalRunner

# The candidate's side of the contract, spoken without the harness.
CONTRACT = """
import os, socket, subprocess, sys, time

OUT = os.environ["AUTORESEARCH_OUT"]


def begin():
    parent = socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"]))
    parent.sendall(b"begin\\n")
    assert parent.recv(16) == b"go\\n"


def leave(model):
    with open(OUT + "/model.tmp", "w") as file:
        file.write(model)
    os.rename(OUT + "/model.tmp", OUT + "/model.pt")


def child(code, **options):
    return subprocess.Popen([sys.executable, "-S", "-c", code], **options)


def note(pid):
    with open(OUT + "/pids", "a") as file:
        file.write(f"{pid}\\n")
"""
SCORER = """
import os

print("val_bpb:", open(os.environ["AUTORESEARCH_OUT"] + "/model.pt").read())
print("evaluation_tokens: 1000")
"""
IGNORES_TERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


@dataclass
class Bench:
    """Runs scripts as jobs; `pids` are those that a script noted."""

    folder: Path
    runner: LocalRunner = field(default_factory=LocalRunner)
    limits: Limits = Limits(budget_seconds=20.0, startup_seconds=20.0, deadline_seconds=30.0)

    def job(self, script: str, *, lane: int = 0, scorer: str | None = None, **limits: float) -> Job:
        folder = self.folder / f"lane{lane}"
        out = folder / "out"
        out.mkdir(parents=True, exist_ok=True)
        (folder / "contract.py").write_text(CONTRACT)
        (folder / "train.py").write_text(dedent(script))
        trusted = self.folder / "checkout"
        trusted.mkdir(exist_ok=True)
        (trusted / "score.py").write_text(dedent(scorer or ""))
        return Job(
            command=("python", "-S", "train.py"),
            folder=folder,
            out=out,
            log=folder / "artifacts" / "0001" / "run.log",
            seed=7,
            lane=lane,
            limits=replace(self.limits, **limits),
            metric_name="val_bpb",
            score=None if scorer is None else ("python3", "-S", "score.py"),
            score_folder=trusted,
        )

    def run(self, script: str, *, scorer: str | None = None, **limits: float) -> Run:
        return self.runner.run(self.job(script, scorer=scorer, **limits), lambda progress: None)

    def pids(self, lane: int = 0) -> list[int]:
        return [int(line) for line in (self.folder / f"lane{lane}" / "out" / "pids").read_text().split()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.runner.close()


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def crash(run: Run) -> tuple[str, str]:
    assert run.metric is None
    assert run.crash is not None
    return run.crash.reason, run.crash.message


# Reported mode


def test_upstreams_summary_block_gives_the_metric_and_every_number(bench: Bench) -> None:
    run = bench.run("""
        import time
        time.sleep(0.2)
        print("val_bpb: 9.0")
        print("step 00012 (3.0%) | loss: 3.1", end="\\r")
        print()
        print("---")
        print("val_bpb:          0.997900")
        print("training_seconds: 0.1")
        print("peak_vram_mb:     45060.2")
        print("depth:            8")
        """)
    assert run.crash is None
    assert (run.metric, run.reported, run.allocator_mb) == (0.9979, 0.9979, 45060.2)
    assert run.metrics == {"val_bpb": 0.9979, "training_seconds": 0.1, "peak_vram_mb": 45060.2, "depth": 8.0}
    assert (run.seed, run.lane, run.exit_status) == (7, 0, 0)
    assert run.training_seconds == 0.1
    assert run.total_seconds >= 0.2
    assert run.startup_seconds == pytest.approx(run.total_seconds - 0.1)
    assert run.peak_memory_mb > 1.0


def test_a_metric_line_is_read_and_a_process_that_prints_no_seconds_is_charged_with_all(bench: Bench) -> None:
    run = bench.run("print('comparing ...'); print('METRIC val_bpb=41'); print('done')")
    assert run.metric == 41.0
    assert run.training_seconds == run.total_seconds > 0.0
    assert run.startup_seconds == 0.0
    assert run.allocator_mb is None


@pytest.mark.parametrize(
    ("printed", "charged"),
    [(0.101, 0.1), (0.099, 0.099), (-5.0, 0.0)],
    ids=["one-step-late", "in-time", "negative"],
)
def test_seconds_within_the_grace_cost_the_budget_and_no_more(bench: Bench, printed: float, charged: float) -> None:
    script = f"import time; time.sleep(0.15); print('val_bpb: 1'); print('training_seconds: {printed}')"
    assert bench.run(script, budget_seconds=0.1).training_seconds == charged


def test_printed_seconds_are_never_more_than_the_process_took(bench: Bench) -> None:
    run = bench.run("print('val_bpb: 1'); print('training_seconds: 9000')")
    assert run.training_seconds == run.total_seconds < 5.0


@pytest.mark.parametrize(
    ("script", "reason", "message"),
    [
        ("def f(:\n    pass", "syntax", "SyntaxError: invalid syntax"),
        ("if 1:\npass", "syntax", "IndentationError: expected an indented block"),
        ("import no_such_module", "import", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from os import no_such_name", "import", "ImportError: cannot import name 'no_such_name'"),
        ("raise MemoryError('too much')", "oom", "MemoryError: too much"),
        (
            "class OutOfMemoryError(RuntimeError): __module__ = 'torch'\nraise OutOfMemoryError('CUDA out of memory.')",
            "oom",
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (
            "raise RuntimeError('[enforce fail] .\\nDefaultCPUAllocator: can\\'t allocate memory: 8 bytes')",
            "oom",
            "DefaultCPUAllocator: can't allocate memory: 8 bytes",
        ),
        ("print('step 3 loss: nan'); print('FAIL'); raise SystemExit(1)", "nan", "training printed FAIL"),
        ("print('val_bpb: nan')", "nan", "val_bpb is nan"),
        ("print('---'); print('val_bpb: -inf')", "nan", "val_bpb is -inf"),
        ("print('METRIC val_bpb=1e999')", "nan", "val_bpb is inf"),
        ("print('hello'); print('loss: 3')", "no-metric", "no line `val_bpb: NUMBER`"),
        ("print('val_bpb: 1.0\\nval_bpb: 1.0')", "no-metric", "val_bpb was printed more than once"),
        ("print('METRIC val_bpb=1'); print('---\\nval_bpb: 2')", "no-metric", "val_bpb was printed more than once"),
        ("print('last words'); raise SystemExit(3)", "exit 3", "last words"),
        ("raise ValueError('shapes (3,) and (4,)')", "exit 1", "ValueError: shapes (3,) and (4,)"),
        ("raise SystemExit(2)", "exit 2", "it said nothing"),
        ("import os; print('oh', flush=True); os.kill(os.getpid(), 11)", "signal 11", "SIGSEGV; it said last: oh"),
    ],
)
def test_each_failure_has_its_class_and_one_line(bench: Bench, script: str, reason: str, message: str) -> None:
    run = bench.run(script)
    assert crash(run)[0] == reason
    assert message in crash(run)[1]
    assert "\n" not in crash(run)[1]


def test_a_metric_counts_for_nothing_when_the_process_fails(bench: Bench) -> None:
    run = bench.run("print('val_bpb: 0.5'); raise SystemExit(1)")
    assert crash(run)[0] == "exit 1"
    assert run.reported == 0.5


def test_a_process_that_reports_is_ended_after_startup_budget_and_grace(bench: Bench) -> None:
    run = bench.run(
        "import time; print('val_bpb: 1', flush=True); time.sleep(60)", startup_seconds=0.1, budget_seconds=0.2
    )
    assert crash(run) == ("over-budget", "still running after 2.3 s (startup 0.1 s, budget 0.2 s, grace 2 s)")
    assert 2.3 <= run.total_seconds < 3.5
    assert run.exit_status == -signal.SIGTERM


def test_the_deadline_ends_a_process_whatever_its_budget(bench: Bench) -> None:
    run = bench.run("import time; time.sleep(60)", deadline_seconds=0.3)
    assert crash(run) == ("timeout", "killed after 0.3 s")
    assert run.total_seconds < 1.5


def test_a_tree_above_its_memory_limit_is_ended(bench: Bench) -> None:
    run = bench.run(
        """
        from contract import child
        child("import time; held = b'x' * 150_000_000; time.sleep(60)").wait()
        """,
        memory_limit_mb=100.0,
    )
    reason, message = crash(run)
    assert reason == "over-memory"
    assert message.endswith("MiB of memory; the limit is 100 MiB")
    assert run.peak_memory_mb > 100.0
    assert f"used {run.peak_memory_mb:,.0f} MiB" in message


# Scored mode


def test_the_scorer_decides_and_what_training_printed_is_only_kept(bench: Bench) -> None:
    run = bench.run(
        """
        import time
        from contract import begin, leave
        time.sleep(0.2)
        begin()
        time.sleep(0.3)
        leave("2.5")
        time.sleep(0.3)
        print("---\\nval_bpb: 0.1\\nnum_steps: 12\\nevaluation_tokens: 5")
        """,
        scorer=SCORER,
    )
    assert run.crash is None
    assert (run.metric, run.reported) == (2.5, 0.1)
    assert run.metrics == {"val_bpb": 2.5, "num_steps": 12.0, "evaluation_tokens": 1000.0}
    assert 0.2 <= run.startup_seconds < 1.0
    assert 0.28 <= run.training_seconds < 0.55, "until the model was there, not until the process was gone"
    assert run.score_seconds > 0.0
    assert run.total_seconds >= 0.8 + run.score_seconds


def test_a_model_costs_the_seconds_until_its_last_change_whatever_its_dates_say(bench: Bench) -> None:
    run = bench.run(
        """
        import os, time
        from contract import OUT, begin, leave
        begin()
        leave("9.0")
        time.sleep(0.5)
        leave("1.0")
        os.utime(OUT + "/model.pt", (1, 1))
        """,
        scorer=SCORER,
        budget_seconds=0.1,
    )
    assert run.metric == 1.0
    assert run.training_seconds >= 0.48


def test_a_process_that_lingers_over_a_finished_model_is_ended_and_scored(bench: Bench) -> None:
    run = bench.run(
        "import time; from contract import *; begin(); leave('1.5'); time.sleep(60)", scorer=SCORER, budget_seconds=0.2
    )
    assert run.crash is None
    assert run.metric == 1.5
    assert run.training_seconds < 0.2
    assert 2.2 <= run.total_seconds - run.score_seconds < 3.5


@pytest.mark.parametrize(
    "last_act",
    ["", "signal.signal(signal.SIGTERM, lambda *_: leave('1.5'))"],
    ids=["no-model", "model-at-the-last-second"],
)
def test_a_model_that_is_not_there_in_time_is_over_the_budget(bench: Bench, last_act: str) -> None:
    script = f"import signal; from contract import *; {last_act}; begin(); time.sleep(60)"
    run = bench.run(script, scorer=SCORER, budget_seconds=0.1)
    assert crash(run) == ("over-budget", "no complete model.pt 2.1 s after training began; the budget is 0.1 s")


def test_training_that_does_not_begin_in_time_is_a_timeout(bench: Bench) -> None:
    run = bench.run("import time; time.sleep(60)", scorer=SCORER, startup_seconds=0.3)
    reason, message = crash(run)
    assert reason == "timeout"
    assert message.startswith("training did not begin within 0.3 s")
    assert run.training_seconds == 0.0
    assert 0.3 <= run.startup_seconds < 1.5


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("leave('1.0')", "training never called harness.begin()"),
        ("begin()", "training ended without leaving model.pt"),
        ("begin(); os.mkdir(OUT + '/model.pt')", "training ended without leaving model.pt"),
        (
            "begin(); leave('1'); os.rename(OUT + '/model.pt', 'm'); os.symlink(os.path.abspath('m'), OUT + '/model.pt')",
            "training ended without leaving model.pt",
        ),
    ],
    ids=["never-began", "no-model", "a-folder", "a-link"],
)
def test_training_that_leaves_nothing_to_score_has_no_metric(bench: Bench, script: str, message: str) -> None:
    run = bench.run(f"from contract import *; {script}", scorer=SCORER)
    assert crash(run)[0] == "no-metric"
    assert message in crash(run)[1]


def test_a_failure_after_the_model_was_left_is_a_failure(bench: Bench) -> None:
    run = bench.run("from contract import *; begin(); leave('1.0'); raise ValueError('no')", scorer=SCORER)
    assert crash(run) == ("exit 1", "ValueError: no")


@pytest.mark.parametrize(
    ("scorer", "reason", "message"),
    [
        ("raise SystemExit('the loss of row 3 is not finite.')", "nan", "the loss of row 3 is not finite."),
        ("raise SystemExit('model.pt holds no model.')", "no-metric", "model.pt holds no model."),
        ("print('val_bpb: nan')", "nan", "val_bpb is nan"),
        ("print('val_bpb: 1\\nval_bpb: 2')", "no-metric", "val_bpb was printed more than once"),
        ("print('fine')", "no-metric", "no line `val_bpb: NUMBER`"),
        ("import time; time.sleep(60)", "timeout", "the scorer was killed after 1 s"),
    ],
)
def test_a_scorer_that_fails_says_why(bench: Bench, scorer: str, reason: str, message: str) -> None:
    run = bench.run(
        "from contract import *; begin(); leave('1.0'); print('val_bpb: 0.1')", scorer=scorer, deadline_seconds=1.0
    )
    assert crash(run)[0] == reason
    assert message in crash(run)[1]
    assert run.exit_status == 0


def test_the_log_on_disk_holds_both_and_the_runs_own_log_training_alone(bench: Bench) -> None:
    job = bench.job("from contract import *; print('trained'); begin(); leave('1.0')", scorer=SCORER)
    run = bench.runner.run(job, lambda progress: None)
    assert run.log == "trained"
    assert job.log.read_text().splitlines() == ["trained", "--- scoring ---", "val_bpb: 1.0", "evaluation_tokens: 1000"]


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
        print("open:", sum(os.path.exists(f"/dev/fd/{number}") for number in range(64)))
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
    assert 1.8 <= run.total_seconds < 3.5


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
    assert run.total_seconds < 2.0
    assert run.metric == (None if ending else 1.0)
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
    assert 0.4 <= run.total_seconds < 1.5


def test_an_error_in_a_progress_callback_leaves_no_process(bench: Bench) -> None:
    def fail(progress: Progress) -> None:
        if list(bench.folder.glob("lane0/out/pids")):
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
    assert list(dict.fromkeys(progress.phase for progress in said)) == ["starting", "training", "scoring"]
    starting = [progress for progress in said if progress.phase == "starting"]
    assert all(progress.remaining_seconds is None and progress.step is None for progress in starting)
    training = [progress for progress in said if progress.phase == "training"]
    assert training[-1].step is not None
    assert training[-1].loss == pytest.approx(3 - training[-1].step / 100)
    assert 0 < training[-1].seconds < 5.0
    assert training[-1].remaining_seconds == pytest.approx(10.0 - training[-1].seconds)
    assert training[-1].memory_mb > 1.0


def test_progress_comes_without_output_too(bench: Bench) -> None:
    said: list[Progress] = []
    bench.runner.run(bench.job("import time; time.sleep(0.9); print('val_bpb: 1')"), said.append)
    assert len(said) >= 3
    assert [progress.seconds for progress in said] == sorted(progress.seconds for progress in said)


def test_training_that_only_reports_is_training_from_its_first_step_on(bench: Bench) -> None:
    said: list[Progress] = []
    script = "import time; time.sleep(0.3); print('step 1', flush=True); time.sleep(0.5); print('val_bpb: 1')"
    bench.runner.run(bench.job(script), said.append)
    assert [said[0].phase, said[-1].phase] == ["starting", "training"]
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
    begun = time.monotonic()
    bench.runner.close()
    assert time.monotonic() - begun < 2.5
    for lane, (thread, results) in enumerate(threads):
        thread.join(5)
        assert isinstance(results[0], Stopped)
        assert not runs(*bench.pids(lane))
    with pytest.raises(Stopped):
        bench.run("print('val_bpb: 1')")


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
    assert not [child for child in children if "train.py" in child.cmdline()]


def test_lanes_run_at_the_same_time(bench: Bench) -> None:
    wait = "import time; from contract import *; note(os.getpid())\nwhile not os.path.exists(f'../lane{}/out/pids'): time.sleep(.01)"
    jobs = [bench.job(wait.format(1 - lane) + f"\nprint('val_bpb: {lane}')", lane=lane) for lane in range(2)]
    threads = [in_thread(lambda job=job: bench.runner.run(job, lambda progress: None)) for job in jobs]
    for lane, (thread, results) in enumerate(threads):
        thread.join(20)
        assert isinstance(results[0], Run)
        assert (results[0].lane, results[0].metric) == (lane, float(lane))
