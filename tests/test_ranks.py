"""Several ranks that train together, started by torchrun: the data, the clock, the metric, the end of all."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import psutil
import pytest
from harness_data import CHECKOUT
from runner_bench import Bench

from pytest_autoresearch.core.run import Crash, CrashClass, Run
from pytest_autoresearch.runners.crashes import exit_crash
from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.runners.summary import Summary
from pytest_autoresearch.sandboxes import bubblewrap

pytestmark = [pytest.mark.timeout(300)]
TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node=2", "train.py")
SEQUENCE, ROWS = 16, 64
START = """
import os, sys, time
import torch
import torch.distributed as dist
import harness

dist.init_process_group("gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()
with open(os.environ["AUTORESEARCH_OUT"] + f"/pid-{rank}", "w") as file:
    file.write(os.readlink("/proc/self"))


def together(number):
    number = torch.tensor(float(number))
    dist.all_reduce(number)
    return number.item()
"""
TRAIN = """
torch.manual_seed(harness.seed())
model = torch.nn.Embedding(256, 256)
optimizer = torch.optim.SGD(model.parameters(), 1.0)
dist.barrier()
rows = harness.begin()
begun, seen = time.monotonic(), set()
for step, (inputs, targets) in enumerate(harness.batches(rows[rank::ranks], 4, "cpu", harness.seed())):
    seen |= set(inputs[:, 0].tolist())
    loss = torch.nn.functional.cross_entropy(model(inputs.long()).flatten(0, 1), targets.long().flatten())
    optimizer.zero_grad()
    loss.backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    optimizer.step()
    if together(step >= 20):
        break
mine = together(len(seen))
print(f"{rank} of {ranks} has seen rows with {sorted({one % 2 for one in seen})}", flush=True)
if rank == 0:
    torch.save(mine, os.environ["AUTORESEARCH_OUT"] + "/model.tmp")
    os.rename(os.environ["AUTORESEARCH_OUT"] + "/model.tmp", os.environ["AUTORESEARCH_OUT"] + "/model.pt")
dist.barrier()  # a rank that ends earlier takes the connections of the others with it
dist.destroy_process_group()
"""
SCORER = """
import os
print("val_bpb: 0.5" if os.path.exists(os.environ["AUTORESEARCH_OUT"] + "/model.pt") else "")
"""


class Ranks:
    """Scripts that torchrun starts twice, in a sandbox, with this checkout's harness."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        self.bench = bench
        self.rows = folder / "rows"
        # The first token of a row is its number, so that a rank's rows can be told from the others'.
        np.repeat(np.arange(ROWS, dtype="<u2"), SEQUENCE + 1).tofile(self.rows)

    def run(self, script: str, *, scored: bool = True, **limits: float) -> Run:
        limits = {"budget_seconds": 60.0, "startup_seconds": 120.0, "deadline_seconds": 200.0} | limits
        job = self.bench.job(START + dedent(script), scorer=SCORER if scored else None, **limits)
        variables = {"PYTHONPATH": str(CHECKOUT), "AUTORESEARCH_PROFILE": "cpu", "AUTORESEARCH_SEQ_LEN": str(SEQUENCE)}
        job = replace(
            job, command=TORCHRUN, ranks=2, rows=self.rows, environment={**variables, "OMP_NUM_THREADS": "1"},
            readable=(job.folder, CHECKOUT / "harness", CHECKOUT / "pytest_autoresearch"),
        )  # fmt: skip
        return self.bench.runner.run(job, lambda progress: None)


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path, Bench(tmp_path, LocalRunner(sandbox=bubblewrap.installed())))


def test_each_rank_gets_the_rows_when_the_clock_starts(ranks: Ranks) -> None:
    run = ranks.run(TRAIN)
    assert (run.crash, run.metric) == (None, 0.5), run.log
    assert "0 of 2 has seen rows with [0]" in run.log
    assert "1 of 2 has seen rows with [1]" in run.log
    assert 0 < run.training_seconds < run.total_seconds


def test_no_rank_outlives_the_budget(ranks: Ranks) -> None:
    run = ranks.run(
        """
        harness.begin()
        if rank == 0:
            torch.save(1, os.environ["AUTORESEARCH_OUT"] + "/model.tmp")
        while True:
            together(1)
        """,
        budget_seconds=2.0,
    )
    assert run.crash is not None
    assert run.crash.kind is CrashClass.OVER_BUDGET, run.log
    out = ranks.bench.folder / "lane0" / "out"
    assert {path.name for path in out.glob("pid-*")} == {"pid-0", "pid-1"}, run.log
    assert not [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(out.parent)]


def test_ranks_that_print_different_metrics_are_a_crash_that_says_so(ranks: Ranks) -> None:
    run = ranks.run(
        """
        for turn in range(ranks):  # so that the last line `---` is followed by one metric
            if turn == rank:
                print(f"---\\nval_bpb: {0.5 + rank}", flush=True)
                time.sleep(0.2)
            dist.barrier()
        """,
        scored=False,
    )
    assert run.crash is not None
    assert run.crash.message == (
        "val_bpb was printed more than once, with different values; print it once, from rank 0 alone, as 2 ranks may "
        "print"
    )


@pytest.mark.parametrize(("values", "metric"), [((0.5, 0.5), 0.5), ((0.5, 0.75), None)])
@pytest.mark.parametrize("ruled", [True, False])
@pytest.mark.parametrize("full_bytes", [1000, 0])
def test_equal_metrics_of_ranks_are_one_metric(
    values: tuple[float, float], metric: float | None, ruled: bool, full_bytes: int
) -> None:
    summary = Summary("val_bpb", full_bytes=full_bytes, window_bytes=8, ranks=2)
    for value in values:
        summary.feed(f"{'---' if ruled else 'step 9'}\nval_bpb: {value}\ntraining_seconds: 2.0\n".encode())
    summary.feed(b"the end\n" * 9)
    summary.finish()
    assert isinstance(summary.metric(), Crash) if metric is None else summary.metric() == metric


TORCHRUN_SAYS = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 20, in <module>
[rank1]: {error}
[rank0]: Traceback (most recent call last):
[rank0]:   File "distributed_c10d.py", line 3252, in all_reduce
[rank0]: RuntimeError: Connection closed by peer [127.0.0.1]:49887.
W1201 03:50:03.854000 2 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 7 closing signal SIGTERM
E1201 03:50:03.920000 2 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {status}) local_rank: 0
Traceback (most recent call last):
  File "/usr/bin/torchrun", line 8, in <module>
    sys.exit(main())
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
=====
train.py FAILED
"""


@pytest.mark.parametrize(
    ("error", "status", "crash"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", 1, "oom: torch.OutOfMemoryError: CUDA out of memory."),
        ("ValueError: no such optimizer", 1, "exit 1: ValueError: no such optimizer"),
        ("", -9, "signal 9: killed by SIGKILL; last output: "),
    ],
)
def test_the_crash_of_the_rank_that_failed_first_is_the_crash_of_the_run(error: str, status: int, crash: str) -> None:
    said = TORCHRUN_SAYS.format(error=error, status=status).splitlines()
    said = said if error else said[6:]
    assert str(exit_crash(1, said)).startswith(crash)


def test_a_rank_whose_script_cannot_be_read_is_a_syntax_error() -> None:
    said = ['  File "train.py", line 3', "    def", "       ^", "SyntaxError: invalid syntax"]
    assert exit_crash(1, [*said, *TORCHRUN_SAYS.format(error="", status=1).splitlines()[7:]]).kind is CrashClass.SYNTAX
