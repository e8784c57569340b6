"""`autoresearch run` and `prepare`: the checkout as it is, measured once, and nothing of it changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from repo import TRAIN, Repo

from pytest_autoresearch.cli import main, prepare, run

MODULES = (prepare, run)  # imported here: pytester forgets what is first imported in a test


@pytest.fixture(autouse=True)
def quick(repo: Repo) -> None:
    """No sandbox, which takes a second to be tried."""
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "autoresearch_sandbox = off\n")
    repo.commit("No sandbox")


def command(repo: Repo, *arguments: str) -> int:
    """The exit status of `autoresearch …` there."""
    return main(["-C", str(repo.path), *arguments])


def everything(repo: Repo) -> tuple[str, str, str]:
    """What a measurement may not touch: the checkout, its index, every ref."""
    return repo.checkout_hash(), repo.git("for-each-ref"), repo.git("status", "--porcelain", "--ignored")


def test_an_uncommitted_edit_is_measured_and_nothing_is_changed(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.write("train.py", TRAIN.replace('"1.0"', '"0.75"'))
    before = everything(repo)
    assert command(repo, "run") == 0
    said = capsys.readouterr().out
    assert said.startswith("val_bpb       0.750000\n")
    assert " s of 300 s\n" in said
    assert "uncommitted   train.py\n" in said
    assert "sandbox       none (switched off)\n" in said
    assert everything(repo) == before


def test_json_has_every_number(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(repo, "run", "--json", "--seed", "7", "--budget", "3") == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["metric"] == 1.0
    assert measured["metric_name"] == "val_bpb"
    assert measured["seed"] == 7
    assert measured["budget_seconds"] == 3.0
    assert measured["crash"] is None
    assert measured["uncommitted"] == []
    assert measured["metrics"]["peak_vram_mb"] == 2048.0
    assert "val_bpb" in Path(measured["log"]).read_text()


def test_the_seed_and_the_budget_reach_training(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import os; print('METRIC val_bpb=' + os.environ['AUTORESEARCH_SEED'] + os.environ['AUTORESEARCH_BUDGET'])"
    repo.write("train.py", code)
    assert command(repo, "run", "--json", "--seed", "7", "--budget", "3") == 0
    assert json.loads(capsys.readouterr().out)["metric"] == 73.0


def test_a_crash_is_told_with_the_end_of_its_log(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.write("train.py", TRAIN.replace('"1.0"', '"crash"'))
    assert command(repo, "run") == 1
    said = capsys.readouterr().out
    assert said.startswith("crash  exit 1: RuntimeError: the tensor is sad\n")
    assert "  | RuntimeError: the tensor is sad\n" in said
    assert command(repo, "run", "--json") == 1
    measured = json.loads(capsys.readouterr().out)
    assert measured["metric"] is None
    assert measured["crash"] == {"reason": "exit 1", "message": "RuntimeError: the tensor is sad"}
    assert "the tensor is sad" in measured["log_tail"]


def test_staged_files_take_part_and_strangers_do_not(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    look = "import os; print('METRIC val_bpb=' + str(sum(2 ** n for n, f in enumerate(FILES) if os.path.exists(f))))"
    repo.write("train.py", f"FILES = ['staged.py', 'stranger.py', 'ignored.log', 'program.md']\n{look}\n")
    repo.write(".git/info/exclude", "*.log\n")
    for name in ("staged.py", "stranger.py", "ignored.log"):
        repo.write(name, "")
    repo.git("add", "staged.py")
    (repo.path / "program.md").unlink()
    before = everything(repo)
    assert command(repo, "run", "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["metric"] == 1.0
    assert measured["uncommitted"] == ["program.md", "staged.py", "train.py"]
    assert everything(repo) == before


def test_a_new_editable_file_takes_part_at_once(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.write("pytest.ini", "[pytest]\nautoresearch_sandbox = off\nautoresearch_editable = train.py model/*.py\n")
    repo.write("model/width.py", "WIDTH = 64\n")
    repo.write("train.py", "from model.width import WIDTH\nprint(f'METRIC val_bpb={WIDTH}')\n")
    assert command(repo, "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metric"] == 64.0


def test_the_deadline_of_the_configuration_holds(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.write("train.py", TRAIN.replace('"1.0"', '"hang"'))
    repo.write("pytest.ini", (repo.path / "pytest.ini").read_text() + "timeout = 1\n")
    assert command(repo, "run", "--json") == 1
    assert json.loads(capsys.readouterr().out)["crash"]["reason"] == "timeout"


def test_an_interrupted_run_leaves_nothing_running(repo: Repo) -> None:
    repo.write("train.py", TRAIN.replace('"1.0"', '"hang"'))
    code = "import sys; from pytest_autoresearch.cli import main; sys.exit(main(['run']))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=repo.path, text=True, stdout=subprocess.PIPE)
    repo.wait_for(repo.training)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == ""
    assert not repo.training()


def test_a_scorer_measures_as_in_an_experiment(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    describe = {"score": ["python", "score.py"], "profile": "toy", "environment": {"TOY": "1"}, "budget_seconds": 5}
    repo.write("describe.py", f"import json\nprint(json.dumps({describe!r}))\n")
    repo.write(
        "score.py",
        """
        import os
        print("METRIC val_bpb=" + open(os.environ["AUTORESEARCH_OUT"] + "/model.pt").read())
        """,
    )
    repo.write(
        "train.py",
        """
        import os, socket
        clock = socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"]))
        clock.sendall(b"begin\\n")
        clock.recv(8)
        open(os.environ["AUTORESEARCH_OUT"] + "/model.pt", "w").write("0.5" + os.environ["TOY"])
        print("METRIC val_bpb=0.1")
        """,
    )
    repo.write("pytest.ini", "[pytest]\nautoresearch_sandbox = off\nautoresearch_describe = python describe.py\n")
    assert command(repo, "run", "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["metric"] == 0.51
    assert measured["budget_seconds"] == 5


def test_a_budget_that_is_none_is_refused(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command(repo, "run", "--budget", "never")
    assert refused.value.code == 2
    assert "argument --budget: give a number of seconds, more than 0" in capsys.readouterr().err


def test_prepare_hands_on_to_the_harness(repo: Repo, capfd: pytest.CaptureFixture[str]) -> None:
    repo.write("kitchen/__init__.py", "")
    repo.write("kitchen/prepare.py", "import sys\nprint('preparing', sys.argv[1:])\nsys.exit(3)\n")
    repo.write("pytest.ini", "[pytest]\nautoresearch_describe = python -m kitchen.describe\n")
    assert command(repo, "prepare", "--source", "embedded", "-h") == 3
    assert capfd.readouterr().out == "preparing ['--source', 'embedded', '-h']\n"
    assert command(repo, "prepare", "--json", "--force") == 3
    out, err = capfd.readouterr()
    assert json.loads(out) == {"command": "python -m kitchen.prepare --force", "exit_status": 3}
    assert err == "preparing ['--force']\n"


def test_prepare_without_a_harness_is_one_sentence(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(repo, "prepare") == 2
    assert capsys.readouterr().err == (
        "autoresearch prepare: this repository has no harness with data to prepare (autoresearch_describe "
        "names none): `python -S train.py` finds its own data\n"
    )


def test_a_running_session_is_pointed_out(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.plan("hang")
    process = repo.start("--max", "1")
    try:
        repo.wait_for(lambda: os.path.exists(repo.path / "experiments" / "runs" / "t" / "progress.json"))
        assert command(repo, "run") == 0
        out, err = capsys.readouterr()
    finally:
        repo.end(process, signal.SIGINT)
    assert err == "note: a session is running here: two runs at a time distort each other's numbers\n"
    assert "lane-0-1-run.log" in out


def test_a_missing_program_is_named(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(repo, "run") == 0  # leaves a tree, which the next run empties
    (tmp_path / "bin").mkdir()
    git = shutil.which("git")
    assert git is not None
    (tmp_path / "bin" / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    capsys.readouterr()
    assert command(repo, "run") == 2
    assert capsys.readouterr().err == (
        "autoresearch run: `find` is not on PATH: install it (findutils), or add its folder to PATH\n"
    )
