"""`autoresearch init`: a repository that knows nothing of campaigns can run one after it, and nothing of it is lost."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.cli import init, main, scaffold
from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.runners.summary import Summary

MODULES = (init, scaffold)  # imported here: pytester forgets what is first imported in a test

SORT = """
import random
GAP = 7
comparisons = 0
values = random.Random(0).sample(range(300), 300)
for gap in [GAP, 1]:
    for i in range(gap, len(values)):
        while i >= gap:
            comparisons += 1
            if values[i - gap] <= values[i]:
                break
            values[i], values[i - gap] = values[i - gap], values[i]
            i -= gap
assert values == sorted(values)
print(f"METRIC score={1e6 / comparisons}")
"""

EVERYTHING = (
    "program.md",
    "experiments/test_score.py",
    "pytest.ini",
    ".gitignore",
    ".github/workflows/autoresearch.yml",
)
OPTIONS = ("--command", "python sort.py", "--metric", "score", "--direction", "maximize")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh git repository with a script that sorts, not even committed."""
    path = tmp_path / "repo"
    path.mkdir()
    monkeypatch.chdir(path)
    git(path, "init", "-q", "-b", "main")
    git(path, "config", "user.name", "Ada")
    git(path, "config", "user.email", "ada@example.org")
    (path / "sort.py").write_text(SORT)
    return path


def git(folder: Path, *words: str) -> str:
    """What a git command prints; it must succeed."""
    return subprocess.run(["git", *words], cwd=folder, text=True, capture_output=True, check=True).stdout


def command(folder: Path, *arguments: str) -> int:
    """The exit status of `autoresearch init …` there."""
    return main(["-C", str(folder), "init", *arguments])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but git's own."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_after_it_a_fresh_repository_runs_experiments(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, *OPTIONS) == 0
    said = capsys.readouterr().out
    for name in EVERYTHING:
        assert f"wrote  {name} " in said
    *_, commit, session = said.splitlines()
    assert session.strip() == "pytest --autoresearch --max 1"
    subprocess.run(commit.strip(), shell=True, cwd=folder, check=True, capture_output=True)
    words = [sys.executable, "-m", *session.split(), "--autoresearch-tag", "t", "--autoresearch-sandbox", "off"]
    environment = {
        name: value for name, value in os.environ.items() if "ANTHROPIC" not in name and "PYTEST" not in name
    }
    done = subprocess.run(words, cwd=folder, env=environment, text=True, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0001" in git(folder, "for-each-ref", "refs/autoresearch/t/")
    assert git(folder, "status", "--porcelain") == ""


def test_a_second_call_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(folder, *OPTIONS)
    before = contents(folder)
    capsys.readouterr()
    assert command(folder, *OPTIONS) == 0
    assert command(folder) == 0
    assert contents(folder) == before
    assert capsys.readouterr().out.count("everything is already there; nothing was changed") == 2


def test_what_is_there_is_left_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = {
        "program.md": "Mine.\n",
        "experiments/test_mine.py": "def test_mine(experiment): assert experiment.gain > 0\n",
        "pytest.ini": "[pytest]\naddopts = -q\n",
        ".github/workflows/autoresearch.yml": "name: mine\n",
    }
    for name, text in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".gitignore").write_text("*.log\nresults.*")
    assert command(folder, *OPTIONS) == 0
    assert {name: (folder / name).read_text() for name in mine} == mine
    assert (folder / ".gitignore").read_text() == (
        "*.log\nresults.*\n__pycache__/\nreport.html\nprogress.png\nexperiments/runs/\n"
    )
    assert sorted(contents(folder)) == sorted(["sort.py", ".gitignore", *mine])
    said = capsys.readouterr().out
    assert "kept   experiments/test_mine.py" in said
    assert (
        "add to pytest.ini, under [pytest]:\n"
        "  autoresearch_command = python sort.py\n"
        "  autoresearch_editable = sort.py\n"
        "  autoresearch_metric = score\n"
        "  autoresearch_direction = maximize\n"
    ) in said


@pytest.mark.parametrize(
    ("name", "text", "section", "line"),
    [
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\n",
            "[tool.pytest.ini_options]",
            'autoresearch_editable = ["sort.py"]',
        ),
        ("setup.cfg", "[tool:pytest]\naddopts = -q\n", "[tool:pytest]", "autoresearch_editable = sort.py"),
        ("tox.ini", "[pytest]\naddopts = -q\n", "[pytest]", "autoresearch_editable = sort.py"),
    ],
)
def test_lines_to_add_are_in_the_form_of_the_file_and_are_enough(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, section: str, line: str
) -> None:
    (folder / name).write_text(text)
    assert command(folder, *OPTIONS, "--json") == 0
    add = json.loads(capsys.readouterr().out)["add"]
    assert (add["file"], add["section"]) == (name, section)
    assert line in add["lines"]
    assert (folder / name).read_text() == text
    assert not (folder / "pytest.ini").exists()
    (folder / name).write_text(f"{text}{chr(10).join(add['lines'])}\n")
    assert command(folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["add"] is None


def test_a_pyproject_without_a_word_of_pytest_gets_a_file_beside_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pyproject.toml").write_text('[project]\nname = "sorting"\n')
    assert command(folder, *OPTIONS) == 0
    assert "wrote  pytest.ini" in capsys.readouterr().out
    assert (folder / "pytest.ini").read_text().startswith("[pytest]\nautoresearch_command = python sort.py\n")


def test_a_script_that_measures_another_is_frozen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "measure.py").write_text("import sort\n")
    assert command(folder, "--command", "python measure.py", "--editable", "sort.py", "--metric", "cpu_seconds") == 0
    assert (folder / "pytest.ini").read_text() == (
        "[pytest]\n"
        "autoresearch_command = python measure.py\n"
        "autoresearch_editable = sort.py\n"
        "autoresearch_frozen = measure.py\n"
        "autoresearch_metric = cpu_seconds\n"
    )
    assert "< experiment.best - experiment.margin" in (folder / "experiments" / "test_cpu_seconds.py").read_text()


def test_a_train_py_that_lowers_val_bpb_needs_no_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train.py").write_text("print('val_bpb: 1.0')\n")
    assert command(folder, "--no-workflow", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["wrote"] == ["program.md", "experiments/test_val_bpb.py", ".gitignore"]
    assert said["next"][-1] == "pytest --autoresearch --max 1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "there is no train.py here: name the script to run and measure, such as `autoresearch init "
             "--command 'python sort.py' --metric score`"),
        (("--editable", "other.py"), "there is no other.py here"),
        ((*OPTIONS, "--metric", "best"), "metric = best: an experiment has another attribute of this name"),
        ((*OPTIONS, "--metric", "f1:10"), "autoresearch_metric = f1:10: not a valid metric name"),
        (("--command", "python 'sort.py"), "cannot be split into words"),
        (("--command", "python nosuch.py"), "`python nosuch.py` runs nosuch.py, which does not exist here: name an "
         "existing file or name the files"),
        (("--command", "python -m pkg.train"), "runs pkg/train.py, which does not exist here"),
        (("--command", "make train"), "`make train` names no file of this repository: name the files"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    before = contents(folder)
    assert command(folder, *arguments) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert contents(folder) == before


def test_a_folder_without_git_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path) == 2
    assert "is not a git repository: type `git init` first" in capsys.readouterr().err


def test_a_metric_may_be_called_what_can_be_read_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        "a b",
        "f1@10",
        "../../x",
        "1st",
        "größe",
        "total_µs",
        "top-1",
        "a:b",
        "x" * 101,
        "ß" * 51,
        "f1/macro-top_5.0",
        "x" * 100,
    ):
        printed = Summary(name)
        printed.feed(f"METRIC {name}=1.5\n".encode())
        printed.finish()
        assert (command(folder, *OPTIONS, "--metric", name) == 0) == (printed.metric() == 1.5), name


@pytest.mark.parametrize("metric", ["val_bpb", "top-1", "lambda", "größe"])
def test_the_rule_is_a_test_whatever_the_metric_is_called(metric: str) -> None:
    for direction in Direction:
        tree = ast.parse(scaffold.rule(metric, direction))
        assert isinstance(tree.body[-1], ast.FunctionDef)
        assert tree.body[-1].name.startswith("test_")
    assert scaffold.rule_name(metric).removesuffix(".py").isidentifier()


def test_a_module_that_is_run_is_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pkg").mkdir()
    (folder / "pkg" / "train.py").write_text(SORT)
    assert command(folder, "--command", "python -m pkg.train", "--metric", "score") == 0
    assert "autoresearch_editable = pkg/train.py\n" in (folder / "pytest.ini").read_text()


def test_a_folder_of_other_experiments_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "experiments").mkdir()
    (folder / "experiments" / "test_ablation.py").write_text("raise RuntimeError('imported')\n")
    for _ in range(2):
        assert command(folder, *OPTIONS) == 0
    assert "; experiments/ holds other tests" in capsys.readouterr().out
    assert [path.name for path in (folder / "experiments").iterdir()] == ["test_ablation.py"]
    assert (folder / "research" / "test_score.py").is_file()
    assert "autoresearch_experiments = research\n" in (folder / "pytest.ini").read_text()
    assert "research/runs/\n" in (folder / ".gitignore").read_text()


def test_the_directions_are_said_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command(folder, "--direction", "up")
    said = capsys.readouterr().err
    assert "minimize" in said
    assert "<" not in said.partition("error:")[2]
