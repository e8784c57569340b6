"""A scorer that can wait is started with training, and sees the model when training has ended."""

from __future__ import annotations

import socket
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from runner_bench import Bench, runs
from test_harness_server import ROGUE

from harness import exchange, servers
from harness.errors import HarnessError
from harness.exchange import BrokenExchange, Job, Memory
from harness.server_process import Deadlines, Launch
from harness.servers import Servers
from harness.turn import await_turn, turn_of_environment
from pytest_autoresearch.core.run import Run

WAITS = """
import os, socket, sys, time

model = os.environ["AUTORESEARCH_OUT"] + "/model.pt"
open("scorer.pid", "w").write(str(os.getpid()))
turn = socket.socket(fileno=int(os.environ["AUTORESEARCH_TURN_FD"]))
print("model_was_there:", int(os.path.exists(model)))
{meanwhile}
open("is-ready", "w").close()
turn.sendall(b"ready\\n")
if turn.recv(3) != b"go\\n":
    sys.exit("no turn")
print("val_bpb:", open(model).read())
"""
TRAIN = """
from contract import *
begin()
print("---\\nscorer_was_ready:", int(os.path.exists("{checkout}/is-ready")))
leave("0.75")
"""


def run(bench: Bench, train: str, meanwhile: str = "", **limits: float) -> Run:
    job = bench.job(
        train.format(checkout=bench.folder / "checkout"), scorer=WAITS.format(meanwhile=meanwhile), **limits
    )
    return bench.runner.run(replace(job, score_waits=True), lambda progress: None)


def test_a_scorer_that_waits_is_ready_when_the_clock_starts_and_gets_the_model_after_training(tmp_path: Path) -> None:
    made = run(Bench(tmp_path), TRAIN, "time.sleep(0.5)")
    assert (made.crash, made.metric) == (None, 0.75)
    assert made.scored == {"model_was_there": 0.0, "val_bpb": 0.75}
    assert made.metrics["scorer_was_ready"] == 1.0


def test_training_does_not_wait_for_a_scorer_beyond_its_own_time_to_start(tmp_path: Path) -> None:
    made = run(Bench(tmp_path), TRAIN, "time.sleep(8)", startup_seconds=4.0)
    assert (made.crash, made.metric) == (None, 0.75)
    assert made.metrics["scorer_was_ready"] == 0.0


def test_training_that_crashes_leaves_no_scorer_behind(tmp_path: Path) -> None:
    made = run(Bench(tmp_path), "from contract import *\nbegin()\nraise SystemExit(3)")
    assert made.crash is not None
    assert made.crash.reason == "exit 3"
    assert not runs(int((tmp_path / "checkout" / "scorer.pid").read_text()))


def test_a_scorer_that_ends_early_is_the_crash_of_a_model_that_is_there(tmp_path: Path) -> None:
    made = run(Bench(tmp_path), TRAIN, "sys.exit('harness: no')")
    assert made.metric is None
    assert made.crash is not None
    assert made.crash.message == "harness: no"


def test_the_scorer_waits_for_the_word_and_ends_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert turn_of_environment() is None
    monkeypatch.setenv("AUTORESEARCH_TURN_FD", "many")
    with pytest.raises(HarnessError, match="unset it to score by hand"):
        turn_of_environment()
    for said, ends in ((b"go\n", False), (b"", True), (b"no\n", True)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(said)
            ours.shutdown(socket.SHUT_WR)
            with pytest.raises(HarnessError, match="has no model") if ends else nullcontext():
                await_turn(theirs)
            assert ours.recv(10) == b"ready\n"


@pytest.mark.parametrize(("cores", "asked_again", "waiting"), [(4, True, 2), (4, False, 1), (2, True, 1)])
def test_the_probe_s_server_waits_from_the_start_where_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, asked_again: bool, waiting: int
) -> None:
    monkeypatch.setattr(servers, "usable_cores", lambda: cores)
    launch = Launch((*ROGUE, "behaves"))
    with Servers((launch, launch), Deadlines(), asked_again) as several:
        several.await_up()
        assert len(several._waiting) == waiting
        taken = [several.take() for _ in range(3)]
        assert len({process.pid for process in taken}) == 3
        for process in taken:
            process.await_up()
            process.close()
    with Servers((launch, launch), Deadlines(), asked_again) as several:
        pids = [process.pid for process in several._waiting]
    assert not any(map(runs, pids))


def test_a_server_gets_its_own_copy_of_the_model_which_it_cannot_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    job = Job("train.py", str(model), "cpu", 1, 1, 1)
    memory = Memory(64, read_only_elsewhere=True)
    copies = []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            exchange.send_job(ours, job, memory, memory, copies_model=True)
            got, *_ = exchange.receive_job(theirs)
        copies.append(Path(got.model))
    memory.close()
    model.write_bytes(b"others")
    assert [copy.name for copy in copies] == ["model.pt", "model.pt"]
    assert [copy.read_bytes() for copy in copies] == [b"weights", b"weights"]
    assert copies[0].stat().st_ino != copies[1].stat().st_ino
    with pytest.raises(OSError, match="not permitted"):
        copies[0].write_bytes(b"mine")


def test_a_job_without_descriptors_is_no_job() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"{}\n")
        with pytest.raises(BrokenExchange):
            exchange.receive_job(theirs)
