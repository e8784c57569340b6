"""`train.py` as a session and a user run it: real processes, real data, the clock held from outside."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness_data import CHECKOUT, environment, run, write_folder

import harness
import train
from harness.scorer import measure

pytestmark = pytest.mark.training

TRAIN = CHECKOUT / "train.py"
SUMMARY = (
    *("training_seconds", "total_seconds", "peak_vram_mb", "mfu_percent"),
    *("total_tokens_M", "num_steps", "num_params_M", "depth"),
)
PROGRESS = re.compile(
    r"step (?P<step>\d{5}) \((?P<percent>[\d.]+)%\) \| loss: (?P<loss>\d+\.\d{6}) \| lrm: \d\.\d\d \| dt: \d+ms \| "
    r"tok/sec: [\d,]+ \| mfu: [\d.]+% \| remaining: \d+s"
)


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with little text in it."""
    folder = tmp_path_factory.mktemp("small")
    source = write_folder(folder / "text", 20_000, 2_000)
    done = run("harness.prepare", "--source", str(source), env=environment(folder / "cache"))
    assert done.returncode == 0, done.stderr
    return folder / "cache"


@dataclass(frozen=True)
class Done:
    """A training process that ended, and what it printed, with each carriage return a line's end."""

    status: int
    lines: list[str]
    err: str

    @property
    def summary(self) -> dict[str, str]:
        return dict(line.split(": ") for line in self.lines[self.lines.index("---") + 1 :])


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a training script with the data of a cache folder and any warning an error; ends it with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(path: Path, cache: Path, *, clock: int | None = None, **more: str) -> "subprocess.Popen[bytes]":
        env = environment(cache, PYTHONPATH=str(CHECKOUT), **more)
        if clock is not None:
            env["AUTORESEARCH_CLOCK_FD"] = str(clock)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path)],
            env=env,
            pass_fds=[] if clock is None else [clock],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: "subprocess.Popen[bytes]") -> Done:
    """Wait for its end."""
    out, err = process.communicate(timeout=180)
    return Done(process.returncode, out.decode().replace("\r", "\n").splitlines(), err.decode())


@pytest.fixture
def clock() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The parent's and the child's end of the clock."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_importing_it_starts_nothing_and_costs_little(small_data: Path) -> None:
    code = (
        "import sys, train\n"
        "assert 'torch._dynamo' not in sys.modules, 'the compiler is seconds of every start'\n"
        "assert 'pyarrow' not in sys.modules and 'tokenizers' not in sys.modules\n"
        "import harness; harness.begin()\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    env = environment(small_data)
    done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_model_is_complete_before_the_budget_ends(
    small_data: Path, tmp_path: Path, start: Start, clock: tuple[socket.socket, socket.socket]
) -> None:
    budget, out = 4.0, tmp_path / "out"
    ours, theirs = clock
    fixed = {"AUTORESEARCH_BUDGET": str(budget), "AUTORESEARCH_OUT": str(out)}
    process = start(TRAIN, small_data, clock=theirs.fileno(), **fixed)
    ours.settimeout(120)
    assert ours.recv(64) == b"begin\n"
    assert list(out.iterdir()) == []
    begun = time.time_ns()
    ours.sendall(b"go\n")
    done = finish(process)
    assert (done.status, done.err) == (0, "")

    assert [path.name for path in out.iterdir()] == ["model.pt"]
    model_seconds = ((out / "model.pt").stat().st_ctime_ns - begun) / 1e9
    assert 0.4 * budget < model_seconds <= budget
    assert abs(float(done.summary["training_seconds"]) - model_seconds) < 0.5

    steps = [match for line in done.lines if (match := PROGRESS.fullmatch(line.rstrip()))]
    assert [int(step["step"]) for step in steps] == list(range(1, len(steps) + 1))
    assert float(steps[0]["percent"]) < 25 < 60 < float(steps[-1]["percent"]) <= 100
    assert float(steps[0]["loss"]) == pytest.approx(7.62, abs=0.05)  # ln 2048: the warm-up taught nothing
    assert float(steps[-1]["loss"]) < 7

    assert tuple(done.summary) == SUMMARY
    assert int(done.summary["num_steps"]) == len(steps)
    assert float(done.summary["total_tokens_M"]) == pytest.approx(len(steps) * 1024 / 1e6, abs=0.001)
    assert 100 < float(done.summary["peak_vram_mb"]) < 2000
    assert 0 < measure_in(small_data, out / "model.pt") < measure_in(small_data, untrained(small_data, tmp_path))


def test_a_loss_that_is_no_number_fails_at_once(small_data: Path, tmp_path: Path, start: Start) -> None:
    good, bad = "LOGIT_CAP = 15.0", "LOGIT_CAP = float('nan')"
    source = TRAIN.read_text(encoding="utf-8")
    assert good in source
    (tmp_path / "train.py").write_text(source.replace(good, bad), encoding="utf-8")
    done = finish(start(tmp_path / "train.py", small_data, AUTORESEARCH_OUT=str(tmp_path / "out")))
    assert (done.status, done.lines[-1], done.err) == (1, "FAIL", "")
    assert list((tmp_path / "out").iterdir()) == []


def test_without_data_a_sentence_says_what_to_type(tmp_path: Path, start: Start) -> None:
    done = finish(start(TRAIN, tmp_path / "empty", AUTORESEARCH_OUT=str(tmp_path / "out")))
    assert done.status == 1
    assert re.fullmatch(r"train\.py: .* no data .*; run `python -m harness\.prepare .*`\.\n", done.err)


def test_by_hand_it_learns_the_embedded_corpus_and_scores_itself(tmp_path: Path, start: Start) -> None:
    """In the real budget of the CPU profile: near 2.5 on idle cores, more on busy ones; an untrained model has 4.0."""
    cache = tmp_path / "cache"
    prepared = run("harness.prepare", "--source", "embedded", env=environment(cache))
    assert prepared.returncode == 0, prepared.stderr
    (tmp_path / "train.py").write_bytes(TRAIN.read_bytes())
    done = finish(start(tmp_path / "train.py", cache))
    assert (done.status, done.err) == (0, "")
    assert tuple(done.summary) == ("val_bpb", *SUMMARY)
    assert float(done.summary["training_seconds"]) <= 15

    trained = tmp_path / "experiments" / "runs" / "by-hand" / "model.pt"
    val_bpb = float(done.summary["val_bpb"])
    assert val_bpb == pytest.approx(measure_in(cache, trained), abs=1e-4)
    assert val_bpb < 3.5


def untrained(cache: Path, folder: Path) -> Path:
    """A model as it is before the first step."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(cache).items():
            patch.setenv(name, value)
        train.Trainer(harness.profile(), seed=1).save(folder / "untrained.pt")
    return folder / "untrained.pt"


def measure_in(cache: Path, model: Path) -> float:
    """The scorer's metric of a model, with the data in that cache."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(cache).items():
            patch.setenv(name, value)
        return measure(model, TRAIN).val_bpb
