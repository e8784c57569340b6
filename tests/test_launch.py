"""How the training command is started: launchers, scripts and makefiles find the checkout's environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from repo import Repo

from pytest_autoresearch.core.errors import UserError
from pytest_autoresearch.runners.launch import find_launch

# Like the launcher it is named after: drops its own options, starts the program with the environment of the checkout.
LAUNCHER = """#!/bin/sh
shift
while :; do case "$1" in -e|--extra|-n|--project) shift 2;; -*) shift;; *) break;; esac; done
PATH="$PWD/.venv/bin:$PATH"
export PATH VIRTUAL_ENV="$PWD/.venv" SECRET_TOKEN=secret
case "$1" in *.py) exec python "$@";; esac
exec "$@"
"""
TRAIN = "ACTION = '1.0'\nimport only_here, sys\nprint(sys.prefix)\nprint('val_bpb: 1.0')\n"


@pytest.fixture
def checkout(repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Repo:
    """A repository whose packages are in `.venv`, and launchers on PATH."""
    venv.create(repo.path / ".venv", symlinks=True)
    (site,) = (repo.path / ".venv").glob("lib/python3*/site-packages")
    (site / "only_here.py").touch()
    tools = tmp_path.parent / f"{tmp_path.name}-tools"
    tools.mkdir()
    for name in ("uv", "poetry", "pdm", "pixi", "conda"):
        (tools / name).write_text(LAUNCHER)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    repo.write(".gitignore", (repo.path / ".gitignore").read_text() + ".venv\n")
    repo.write("train.py", TRAIN)
    repo.write("run.sh", "exec uv run train.py\n")
    repo.write("Makefile", "train:\n\tuv run python train.py\n")
    repo.commit("It needs a package of its environment")
    return repo


@pytest.mark.parametrize(
    "command",
    [
        "uv run train.py",
        "uv run --extra gpu --frozen -- python -u train.py",
        "poetry run python train.py",
        "pdm run train.py",
        "pixi run -e default python train.py",
        "conda run -n toy python3 train.py",
        ".venv/bin/python train.py",
    ],
)
def test_a_launcher_starts_the_python_of_the_checkout(checkout: Repo, command: str) -> None:
    launch = find_launch(tuple(command.split()), checkout.path)
    assert launch.command[0] == str(checkout.path / ".venv/bin/python")
    assert launch.command[-1] == "train.py"
    assert checkout.path / ".venv" in launch.readable
    assert "SECRET_TOKEN" not in launch.environment
    done = subprocess.run(launch.command, cwd=checkout.path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{checkout.path}/.venv\n")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.parametrize("command", ["uv run train.py", "bash run.sh"])
def test_a_baseline_with_a_launcher_runs_in_the_sandbox(checkout: Repo, command: str) -> None:
    if command == "bash run.sh":  # the stand-in looks for the environment where it is started
        checkout.write("run.sh", 'exec "$UV_PROJECT_ENVIRONMENT/bin/python" train.py\n')
    checkout.write("pytest.ini", f"[pytest]\nautoresearch_command = {command}\n")
    checkout.commit("A launcher")
    result = checkout.run("--max", "0", "--autoresearch-sandbox", "require", "--autoresearch-confirm", "off")
    assert checkout.statuses() == {0: "keep"}, result.stdout.str()


def test_scripts_and_makefiles_get_the_environment_of_the_checkout(checkout: Repo) -> None:
    for command in (("bash", "run.sh"), ("make", "train"), ("./run.sh",)):
        launch = find_launch(command, checkout.path, ["run.sh"])
        assert launch.command[1:] == command[1:]
        assert launch.environment["UV_PROJECT_ENVIRONMENT"] == str(checkout.path / ".venv")
        assert launch.environment["UV_NO_SYNC"] == "1"
        assert checkout.path / ".venv" in launch.readable
        assert Path(str(shutil.which("uv"))) in launch.readable
    assert find_launch(("./run.sh",), checkout.path, ["run.sh"]).command == ("./run.sh",)


def test_the_interpreter_of_the_session_is_first_on_path_for_scripts(
    checkout: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.prefix == sys.base_prefix:
        pytest.skip("this interpreter has no environment of its own")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert (
        find_launch(("sh", "run.sh"), checkout.path).environment["PATH"].startswith(f"{Path(sys.executable).parent}:")
    )


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("uv run --with numpy train.py", "--with installs packages at every start.*= .venv/bin/python train.py"),
        ("uv run alone.py", "alone.py lists its packages itself.*= .venv/bin/python train.py"),
        ("pixi run train", "train is no program of this environment.*= .venv/bin/python train.py"),
        ("poetry run", "name the script that it runs"),
        ("pipenv run python train.py", "starts no Python here"),
    ],
)
def test_what_cannot_work_is_one_sentence_with_the_words_to_use(checkout: Repo, command: str, sentence: str) -> None:
    checkout.write("alone.py", "# /// script\n# dependencies = []\n# ///\n")
    with pytest.raises(UserError, match=sentence):
        find_launch(tuple(command.split()), checkout.path)


def test_it_is_said_before_anything_is_trained(checkout: Repo) -> None:
    checkout.write("pytest.ini", "[pytest]\nautoresearch_command = pixi run train\n")
    checkout.commit("A task")
    result = checkout.run("--max", "1")
    result.stderr.fnmatch_lines(["ERROR: autoresearch_command = pixi run train: train is no program *"])
    assert not checkout.records()
