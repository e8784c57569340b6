"""`autoresearch watch`: a session in another process is looked at while it runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from repo import Repo

from pytest_autoresearch.cli import main
from pytest_autoresearch.cli.watch import sparkline
from pytest_autoresearch.core.artifacts import Artifacts, campaign
from pytest_autoresearch.session import live

# Prints a loss that falls, and then waits.
FALLING = """do:
for step in range(40):
    print(f"step {step} loss: {4.0 - step / 20}", flush=True)
    time.sleep(0.1)
time.sleep(1000)"""


def command(repo: Repo, *arguments: str) -> int:
    """The exit status of `autoresearch watch …` there."""
    return main(["-C", str(repo.path), "watch", *arguments])


def file(repo: Repo) -> Path:
    """What the session writes."""
    return campaign(repo.path / "experiments", "t").live


@pytest.fixture
def running(repo: Repo) -> Iterator[subprocess.Popen[str]]:
    """A session with a baseline and one experiment behind it, in the midst of its second."""
    repo.plan("0.9", FALLING, "0.8")
    process = repo.start("--max", "3")

    def has_a_curve() -> bool:
        now = live.session(Artifacts(file(repo).parent))
        return bool(now) and any(one["number"] == 2 and len(one["curve"]) > 3 for one in now["running"])

    try:
        repo.wait_for(has_a_curve)
        yield process
    finally:
        if process.poll() is None:
            repo.end(process, signal.SIGINT)


@pytest.mark.usefixtures("running")
def test_one_look_has_the_step_the_curve_and_the_last_verdicts(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(repo, "--once") == 0
    said = capsys.readouterr().out
    assert said.startswith("campaign t, running for ")
    assert re.search(r"^this session: experiment 2 of 3, (under a minute|about \d+ min) left$", said, re.MULTILINE)
    assert "1 experiment in the campaign; best: " in said
    assert "best: val_bpb 0.900000 (0001 action 1: 0.9)" in said
    assert "0002 training · step " in said
    assert re.search(r"^     █\S+▁  loss \S+ -> \S+$", said, re.MULTILINE)
    assert " 0000  keep         1.000000" in said
    assert " 0001  keep         0.900000" in said


@pytest.mark.lanes
def test_what_runs_on_several_lanes_is_shown_with_its_lane(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.plan("hang", FALLING)
    process = repo.start("--max", "2", "--autoresearch-lanes", "2")
    try:
        repo.wait_for(
            lambda: (
                sum(
                    one["step"] is not None
                    for one in (live.session(Artifacts(file(repo).parent)) or {"running": []})["running"]
                )
                == 2
            )
        )
        assert command(repo, "--once") == 0
        said = capsys.readouterr().out
        assert command(repo, "--json") == 0
        look = json.loads(capsys.readouterr().out)
    finally:
        repo.end(process, signal.SIGINT)
    assert {f"{one['number']:04d} lane {one['lane']} · training" in said for one in look["running"]} == {True}
    assert {one["lane"] for one in look["running"]} == {0, 1}
    assert len(look["lanes"]) == 2


@pytest.mark.usefixtures("running")
def test_json_has_the_same_for_programs(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(repo, "--json", "--tag", "t") == 0
    look = json.loads(capsys.readouterr().out)
    assert look["tag"] == "t"
    assert look["experiments"] == 1
    assert (look["position"]["begun"], look["left"]) == (2, 1)
    assert look["best"]["metric"] == 0.9
    running = next(one for one in look["running"] if one["number"] == 2)
    assert running["phase"] == "training"
    assert all(loss == 4.0 - step / 20 for step, loss in running["curve"])
    assert [one["number"] for one in look["last"]] == [0, 1]


@pytest.mark.kill
def test_watching_ends_with_the_session_and_its_file_is_gone(repo: Repo, running: subprocess.Popen[str]) -> None:
    code = "import sys; from pytest_autoresearch.cli import main; sys.exit(main(['watch']))"
    watching = subprocess.Popen([sys.executable, "-c", code], cwd=repo.path, text=True, stdout=subprocess.PIPE)
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith("campaign t, running for ")
    repo.end(running, signal.SIGINT)
    said, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert "the session is over: `autoresearch results --tag t`" in said
    assert not file(repo).exists()


@pytest.mark.kill
def test_a_session_that_was_killed_is_not_taken_for_one_that_runs(
    repo: Repo, running: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    repo.end(running, signal.SIGKILL)
    assert file(repo).exists()
    assert command(repo, "--once") == 1
    assert capsys.readouterr().out.startswith("no session is running here: type `pytest --autoresearch` to begin one.")


COMMANDS = (["results"], ["show", "1"], ["report"], ["best"], ["results", "--tag", "t"])


def test_while_the_baseline_runs_commands_say_so(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.write("train.py", (repo.path / "train.py").read_text().replace('ACTION = "1.0"', 'ACTION = "hang"'))
    repo.commit("A slow program")
    process = repo.start("--max", "2", "--autoresearch-confirm", "standard", "--autoresearch-lanes", "1")
    try:
        repo.wait_for(lambda: (live.session(Artifacts(file(repo).parent)) or {"running": []})["running"])
        assert command(repo, "--once") == 0
        watched = capsys.readouterr().out
        said = [(main(["-C", str(repo.path), *one]), capsys.readouterr().err) for one in COMMANDS]
        other = main(["-C", str(repo.path), "results", "--tag", "other"]), capsys.readouterr().err
    finally:
        repo.end(process, signal.SIGINT)
    assert "this session: 2 experiments to begin\n" in watched
    assert re.search(r"^0000 \w+ · baseline 1 of 5", watched, re.MULTILINE)
    for status, text in said:
        assert status == 2
        assert f"its baseline is running in process {process.pid} (baseline 1 of 5); `autoresearch watch`" in text
    assert other[0] == 2
    assert "there is no campaign 'other'" in other[1]


def test_without_a_session_one_sentence_says_so(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(repo) == 1
    assert capsys.readouterr().out == "no session is running here: type `pytest --autoresearch` to begin one.\n"
    assert command(repo, "--json") == 1
    assert capsys.readouterr().out == "null\n"


def test_what_waits_in_the_queue_is_shown_and_hostile_text_is_made_plain(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.write("conftest.py", "")
    for number, action in enumerate(("hang", "0.9", "0.8"), start=1):
        repo.write("train.py", (repo.path / "train.py").read_text().replace('ACTION = "1.0"', f'ACTION = "{action}"'))
        patch = repo.git("diff", "-U1", "train.py")
        repo.git("checkout", "-q", "train.py")
        repo.write(f"experiments/queue/{number:03d}-try-{number}\x1b[31m.patch", "").write_text(f"{patch}\n")
    repo.commit("A queue")
    process = repo.start("--max", "3", "--autoresearch-proposer", "queue", "--autoresearch-lanes", "1")
    try:
        repo.wait_for(
            lambda: any(
                one["step"] for one in (live.session(Artifacts(file(repo).parent)) or {"running": []})["running"]
            )
        )
        assert command(repo, "--once") == 0
        said = capsys.readouterr().out
    finally:
        repo.end(process, signal.SIGINT)
    assert "waiting: try 2 [31m; try 3 [31m\n" in said
    assert "\x1b" not in said
    assert "this session: experiment 1 of 3" in said


def test_a_file_that_cannot_be_written_does_not_stop_the_session(repo: Repo) -> None:
    repo.hooks(
        """
        import pytest_autoresearch.session.live as live
        def broken(self, *given):
            raise RuntimeError("the disk is on fire")
        live.Live._write = broken
        """
    )
    repo.plan("0.9")
    result = repo.spawn("--max", "1")
    assert result.ret == 0
    assert repo.statuses() == {0: "keep", 1: "keep"}
    assert not file(repo).exists()


def test_a_session_on_another_machine_is_known_by_the_age_of_its_file(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)

    def write(age: float) -> None:
        look = {"machine": "elsewhere", "pid": 1, "started": 0.0, "written": time.time() - age, "began": 0.0}
        artifacts.live.write_text(json.dumps(look))

    write(1.0)
    assert live.session(artifacts)
    write(60.0)
    assert live.session(artifacts) is None
    artifacts.live.write_text("[1, 2")
    assert live.session(artifacts) is None


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "█▇▆▅▄▃▂▁"),
        ([1.0, 1.0, 1.0], "▁▁▁"),
        ([1e308, -1e308], "▁▁"),
        ([5.0], "▁"),
    ],
)
def test_a_curve_is_drawn_between_its_lowest_and_its_highest(values: list[float], line: str) -> None:
    assert sparkline(values) == line


def test_a_long_curve_is_as_wide_as_it_may_be() -> None:
    assert sparkline([float(1000 - n) for n in range(1000)], width=4) == "█▆▃▁"
