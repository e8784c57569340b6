"""What the local runner makes of a training process: the metric, the seconds, and every class of crash."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nvml import H200, FakeNvml
from runner_bench import SCORER, Bench, crash

from pytest_autoresearch.hardware.gpu import visible
from pytest_autoresearch.runners.local import LocalRunner


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.runner.close()


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
    assert run.training_seconds == run.total_seconds < 9000


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
        ("print('val_bpb: 1.0\\nval_bpb: 1.1')", "no-metric", "val_bpb was printed more than once"),
        (
            "print('val_bpb: 0.99 (best)')",
            "no-metric",
            "`val_bpb: 0.99 (best)`; print `val_bpb: 0.99` on a line of its",
        ),
        ("print('METRIC val_bpb=1'); print('---\\nval_bpb: 2')", "no-metric", "val_bpb was printed more than once"),
        ("print('last words'); raise SystemExit(3)", "exit 3", "last words"),
        ("raise ValueError('shapes (3,) and (4,)')", "exit 1", "ValueError: shapes (3,) and (4,)"),
        ("raise SystemExit(2)", "exit 2", "no output"),
        ("import os; print('oh', flush=True); os.kill(os.getpid(), 11)", "signal 11", "SIGSEGV; last output: oh"),
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
    assert 2.3 <= run.total_seconds < 20.0
    assert run.exit_status == -signal.SIGKILL


def test_training_has_its_rows_when_the_clock_starts_and_not_before(bench: Bench, tmp_path: Path) -> None:
    rows = tmp_path / "rows.bin"
    rows.write_bytes(b"a row of tokens")
    script = """
        import os, socket
        from contract import OUT, leave
        before = [os.readlink(file) for file in map("/proc/self/fd/{}".format, range(100)) if os.path.exists(file)]
        parent = socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"]))
        parent.sendall(b"begin\\n")
        answer, (rows,), _, _ = socket.recv_fds(parent, 16, 4)
        print("early:", int(any("rows.bin" in name for name in before)))
        print("given:", int(os.read(rows, 100) == b"a row of tokens"))
        try: os.write(rows, b"other")
        except OSError: print("read_only: 1")
        leave("1.5")
        """
    job = replace(bench.job(script, scorer=SCORER), rows=rows)
    run = bench.runner.run(job, lambda progress: None)
    assert run.metric == 1.5, run
    assert (run.metrics["early"], run.metrics["given"], run.metrics["read_only"]) == (0, 1, 1)


def test_the_deadline_ends_a_process_whatever_its_budget(bench: Bench) -> None:
    run = bench.run("import time; time.sleep(60)", deadline_seconds=0.3)
    assert crash(run) == ("timeout", "killed after 0.3 s")
    assert 0.3 <= run.total_seconds < 20.0


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
    assert run.metrics == {"num_steps": 12.0, "evaluation_tokens": 5.0}, "what training printed"
    assert run.scored == {"val_bpb": 2.5, "evaluation_tokens": 1000.0}, "what the scorer printed"
    assert run.startup_seconds >= 0.2
    assert run.training_seconds >= 0.28
    afterwards = run.total_seconds - run.startup_seconds - run.training_seconds - run.score_seconds
    assert afterwards >= 0.28, "training lasts until the model is there, not until the process is gone"
    assert run.score_seconds > 0.0


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
    assert run.total_seconds - run.score_seconds < 2.2, "its model was there, and there is no grace for more"


@pytest.mark.parametrize(
    "last_act",
    ["", "signal.signal(signal.SIGTERM, lambda *_: [time.sleep(0.1), leave('1.5'), os._exit(0)]);"],
    ids=["no-model", "model-at-the-last-second"],
)
def test_a_model_that_is_not_there_in_time_is_over_the_budget(bench: Bench, last_act: str) -> None:
    script = f"import signal; from contract import *; {last_act} begin(); time.sleep(60)"
    run = bench.run(script, scorer=SCORER, budget_seconds=0.1)
    assert crash(run) == ("over-budget", "no complete model.pt 2.1 s after training began; the budget is 0.1 s")


def test_training_that_does_not_begin_in_time_is_a_timeout(bench: Bench) -> None:
    run = bench.run("import time; time.sleep(60)", scorer=SCORER, startup_seconds=0.3)
    reason, message = crash(run)
    assert reason == "timeout"
    assert message.startswith("training did not call harness.begin() within 0.3 s")
    assert run.training_seconds == 0.0
    assert 0.3 <= run.startup_seconds < 20.0


COMPUTES = "os.fork()\nwhile True: pass"
NOBODY_WAITS = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if os.fork() == 0:
        while time.process_time() < 0.2: pass
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
"""


@pytest.mark.parametrize("does", [COMPUTES, NOBODY_WAITS], ids=["at once", "in children that nobody waits for"])
def test_training_that_computes_too_much_before_it_begins_is_a_timeout(bench: Bench, does: str) -> None:
    busy = f"import os, time; from contract import *\n{does}"
    run = bench.run(busy, scorer=SCORER, startup_cpu_seconds=0.5, startup_seconds=100.0, deadline_seconds=110.0)
    reason, message = crash(run)
    assert (reason, message.split(" s of ")[1]) == ("timeout", "processor time and had not called harness.begin()")
    assert run.startup_cpu_seconds is not None
    assert run.startup_cpu_seconds >= 0.5  # rounded


def test_training_that_keeps_its_gpu_busy_before_it_begins_is_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeNvml(tmp_path, *H200, "0 busy 100")
    gpu.use(monkeypatch)
    bench = Bench(tmp_path, LocalRunner(visible({}).gpus))
    waits = "import time; from contract import *\ntime.sleep(600)"
    run = bench.run(waits, scorer=SCORER, startup_gpu_seconds=0.5, startup_seconds=100.0, deadline_seconds=110.0)
    assert crash(run) == ("timeout", "training kept its GPUs busy for 0.5 s and had not called harness.begin()")
    assert run.startup_gpu_seconds is not None
    assert run.startup_gpu_seconds >= 0.5  # rounded


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("leave('1.0')", "training never called harness.begin()"),
        ("begin()", "training ended without writing model.pt"),
        ("begin(); os.mkdir(OUT + '/model.pt')", "training ended without writing model.pt"),
        (
            "begin(); open('m', 'w').close(); os.symlink(os.path.abspath('m'), OUT + '/model.pt')",
            "training ended without writing model.pt",
        ),
    ],
    ids=["never-began", "no-model", "a-folder", "a-link"],
)
def test_training_that_leaves_nothing_to_score_has_no_metric(bench: Bench, script: str, message: str) -> None:
    run = bench.run(f"from contract import *; {script}", scorer=SCORER)
    assert crash(run)[0] == "no-metric"
    assert message in crash(run)[1]


def test_a_failure_after_the_model_was_left_is_a_failure(bench: Bench) -> None:
    script = "from contract import *; begin(); leave('1.0'); print('val_bpb: 0.1\\ndepth: 8'); raise ValueError('no')"
    run = bench.run(script, scorer=SCORER)
    assert crash(run) == ("exit 1", "ValueError: no")
    assert run.metrics == {"depth": 8.0}, "training's own value of the metric stands nowhere but in `reported`"


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


BAR = "\r100%|##########| 9/9 [00:01<00:00,  5.05it/s]"


@pytest.mark.parametrize(
    "script",
    [
        f"sys.stderr.write({BAR!r}); print('val_bpb: 1.5')",
        f"print('---'); sys.stderr.write({BAR!r}); print('val_bpb: 1.5'); sys.stderr.write({BAR!r})",
        "print('Evaluating ...', end='', file=sys.stderr, flush=True); print('METRIC val_bpb=1.5')",
        "print('loading', end='', flush=True); print('val_bpb: 1.5', file=sys.stderr); print(' done')",
        "sys.stdout.write('val_bpb: 1.'); sys.stdout.flush(); sys.stderr.write('a warning\\n'); print('5')",
        f"print('val_bpb: 1.5', end=''); sys.stdout.flush(); sys.stderr.write({BAR!r})",
    ],
)
def test_a_line_of_one_stream_is_whole_whatever_the_other_stream_left_open(bench: Bench, script: str) -> None:
    run = bench.run(f"import sys; {script}")
    assert run.metric == 1.5, run.log
    assert {"val_bpb: 1.5", "METRIC val_bpb=1.5"} & set(run.log.splitlines())


def test_eight_processes_that_print_one_number_are_one_metric(bench: Bench) -> None:
    rank = "import subprocess, sys; code = {!r}; ranks = [subprocess.Popen([sys.executable, '-S', '-u', '-c', code])"
    script = rank.format("print('METRIC val_bpb=1.5')") + " for _ in range(8)]; [one.wait() for one in ranks]"
    assert bench.run(script).metric == 1.5


def test_a_long_line_without_an_end_is_kept_and_bounded(bench: Bench) -> None:
    run = bench.run("import sys; sys.stderr.write('x' * 300_000); print('val_bpb: 1.5'); sys.stderr.write('the end')")
    assert run.metric == 1.5
    assert run.log.rstrip().endswith("the end")
