"""The clock: what a training process and its parent say to each other over a real socket."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from harness_data import CHECKOUT, environment, run, write_folder

import harness

TRAINING = """
import sys, harness
try:
    rows = harness.begin()
    print(rows.shape[1], len(rows), int(rows[:, 0].sum()), rows.flags.writeable, flush=True)
    harness.begin()
except harness.HarnessError as error:
    sys.exit(str(error))
"""

SEQUENCE = 16
Train = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clock")
    source = write_folder(folder / "text", 2000, 2000)
    done = run("harness.prepare", "--source", str(source), env=environment(folder, AUTORESEARCH_SEQ_LEN="16"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def train(cache: Path) -> Iterator[Train]:
    started: list[subprocess.Popen[str]] = []

    def start(*, clock: int | None = None, cache: Path = cache, **more: str) -> "subprocess.Popen[str]":
        fixed = {"AUTORESEARCH_SEQ_LEN": str(SEQUENCE)} | more
        if clock is not None:
            fixed["AUTORESEARCH_CLOCK_FD"] = str(clock)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", TRAINING],
            cwd=CHECKOUT,
            env=environment(cache, **fixed),
            pass_fds=[] if clock is None else [clock],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def clock() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The parent's and the training process's end."""
    parent, training = socket.socketpair()
    parent.settimeout(20)
    with parent, training:
        yield parent, training


Clock = tuple[socket.socket, socket.socket]


def test_by_hand_training_begins_at_once(train: Train) -> None:
    out, err = train().communicate(timeout=20)
    assert out.split()[0] == str(SEQUENCE + 1)
    assert out.split()[2:] == ["0", "False"]
    assert "called twice" in err


def test_training_waits_until_the_parent_starts_its_clock(train: Train, clock: Clock) -> None:
    parent, training = clock
    process = train(clock=training.fileno())
    assert parent.recv(64) == b"begin\n"
    assert process.stdout is not None
    assert not select.select([process.stdout], [], [], 0.3)[0]
    # A stream may deliver the answer in pieces.
    parent.sendall(b"g")
    assert not select.select([process.stdout], [], [], 0.1)[0]
    parent.sendall(b"o\n")
    out, err = process.communicate(timeout=20)
    assert out.startswith(f"{SEQUENCE + 1} ")
    assert "called twice" in err


def test_rows_handed_over_as_a_descriptor_are_used_in_place_of_the_cache(
    train: Train, clock: Clock, tmp_path: Path
) -> None:
    parent, training = clock
    rows = tmp_path / "rows"
    np.full((7, SEQUENCE + 1), 3, dtype="<u2").tofile(rows)
    process = train(clock=training.fileno(), cache=tmp_path / "nothing here")
    assert parent.recv(64) == b"begin\n"
    with rows.open("rb") as file:
        socket.send_fds(parent, [b"go\n"], [file.fileno()])
    out, _ = process.communicate(timeout=20)
    assert out == f"{SEQUENCE + 1} 7 21 False\n"


@pytest.mark.parametrize("size", [0, 33])
def test_rows_of_another_length_are_refused(train: Train, clock: Clock, tmp_path: Path, size: int) -> None:
    parent, training = clock
    (tmp_path / "rows").write_bytes(bytes(size))
    process = train(clock=training.fileno())
    parent.recv(64)
    with (tmp_path / "rows").open("rb") as file:
        socket.send_fds(parent, [b"go\n"], [file.fileno()])
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 1)
    assert f"do not fit a sequence length of {SEQUENCE}" in err


@pytest.mark.parametrize("answer", [b"", b"g", b"no\n"])
def test_a_parent_that_goes_away_or_says_something_else_is_an_error(train: Train, clock: Clock, answer: bytes) -> None:
    parent, training = clock
    process = train(clock=training.fileno())
    training.close()
    assert parent.recv(64) == b"begin\n"
    parent.sendall(answer)
    parent.close()
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 1)
    assert "ended before" in err
    assert "Traceback" not in err


def test_a_number_that_is_no_socket_is_a_sentence(train: Train) -> None:
    process = train(AUTORESEARCH_CLOCK_FD="95")
    _, err = process.communicate(timeout=20)
    assert "AUTORESEARCH_CLOCK_FD='95' is not an open socket" in err


def test_missing_data_are_a_sentence_with_the_command(train: Train, tmp_path: Path) -> None:
    process = train(cache=tmp_path)
    _, err = process.communicate(timeout=20)
    assert "run `python -m harness.prepare --source embedded --profile cpu --seq-len 16`" in err


def test_seed_budget_and_folder_come_from_the_environment_or_have_defaults(tmp_path: Path) -> None:
    program = "import harness; print(harness.seed(), harness.budget_seconds(), harness.out_folder())"

    def printed(**more: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            env=environment(tmp_path, **more),
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert printed() == "42 15.0 None\n"
    given = {"AUTORESEARCH_SEED": "7", "AUTORESEARCH_BUDGET": "2.5", "AUTORESEARCH_OUT": os.fspath(tmp_path)}
    assert printed(**given) == f"7 2.5 {tmp_path}\n"


def device_batch() -> int:
    return harness.device_batch(default_rows=64, step_rows=128)


@pytest.mark.parametrize(
    ("ask", "name", "value"),
    [
        (harness.seed, "SEED", "x"),
        *((harness.budget_seconds, "BUDGET", value) for value in ("0", "nan", "soon", "inf")),
        *((device_batch, "DEVICE_BATCH", value) for value in ("0", "-4", "half", "2.5")),
        (device_batch, "HALVE_BATCH", "2"),
    ],
)
def test_a_wrong_number_in_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object], name: str, value: str
) -> None:
    monkeypatch.setenv(f"AUTORESEARCH_{name}", value)
    with pytest.raises(harness.HarnessError, match=f"AUTORESEARCH_{name}='{value}'"):
        ask()


@pytest.mark.parametrize(
    ("batch", "halve", "default_rows", "step_rows", "rows"),
    [
        ("", "", 64, 128, 64),
        ("", "0", 64, 128, 64),
        ("", "1", 64, 128, 32),
        ("16", "", 64, 128, 16),
        ("16", "1", 64, 128, 8),
        ("100", "", 64, 128, 64),  # whole batches: a hundred rows do not divide a step
        ("1000", "1", 64, 128, 64),  # half of the step, which is all there is to hold
        ("", "1", 64, 32, 16),
        ("", "1", 1, 128, 1),
        ("", "", 0, 128, 1),  # a row is longer than what should be held at once
        ("", "1", 60, 90, 18),  # 45, then at most half of that
    ],
)
def test_the_device_batch_is_what_was_asked_for_in_whole_batches(
    monkeypatch: pytest.MonkeyPatch, batch: str, halve: str, default_rows: int, step_rows: int, rows: int
) -> None:
    monkeypatch.setenv("AUTORESEARCH_DEVICE_BATCH", batch)
    monkeypatch.setenv("AUTORESEARCH_HALVE_BATCH", halve)
    assert harness.device_batch(default_rows, step_rows) == rows


def test_a_step_of_nothing_is_refused() -> None:
    with pytest.raises(harness.HarnessError, match="at least 1"):
        harness.device_batch(64, 0)
