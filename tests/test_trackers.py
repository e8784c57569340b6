"""The trackers of examples/trackers are told every experiment of a real campaign, and what they wrote can be read."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from repo import PROPOSE, UNUSED, Repo

HERE = Path(__file__).parent
TRACKERS = HERE.parent / "examples" / "trackers"
DESCRIPTIONS = {0: "baseline", 1: "action 1: 0.9", 2: "action 2: 1.5", 3: "action 3: crash"}
METRICS = {0: 1.0, 1: 0.9, 2: 1.5, 3: None}
STATUSES = {0: "keep", 1: "keep", 2: "discard", 3: "crash"}


@pytest.fixture(autouse=True)
def nowhere_else(repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the person who runs this sends anything anywhere."""
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    for variable in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


def tracked(repo: Repo, tracker: str, *packages: str) -> dict[int, dict[str, Any]]:
    """What the tracker holds, by number, after a campaign of two sessions: a keep, then a discard and a crash."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; docs/trackers.md says how")
    repo.write("conftest.py", f"{PROPOSE}\n{(TRACKERS / f'{tracker}_conftest.py').read_text()}")
    repo.write(
        ".gitignore", "__pycache__/\nresults.*\nreport.html\nprogress.png\nmlflow.db\nwandb/\nexperiments/runs/\n"
    )
    repo.commit("A tracker")
    repo.plan(0.9, 1.5, "crash")
    # What the packages warn of is not ours to mend.
    lenient = ("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning")
    for count in ("1", "2"):
        command = [sys.executable, "-m", "pytest", *repo.arguments("--max", count), *lenient, *UNUSED]
        done = subprocess.run(command, cwd=repo.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "pytest_autoresearch_record raised" not in done.stdout, done.stdout
    assert repo.statuses() == STATUSES
    assert repo.git("status", "--porcelain") == ""
    read = [sys.executable, "-W", "ignore", str(HERE / "read_trackers.py"), tracker, str(repo.path), "t"]
    said = subprocess.run(read, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return {int(number): values for number, values in json.loads(said.stdout).items()}


def column(found: dict[int, dict[str, Any]], name: str) -> dict[int, Any]:
    return {number: values.get(name) for number, values in found.items()}


def test_mlflow_has_a_run_for_each_experiment(repo: Repo) -> None:
    found = tracked(repo, "mlflow", "mlflow")
    assert column(found, "status") == STATUSES
    assert column(found, "mlflow.note.content") == DESCRIPTIONS
    assert column(found, "val_bpb") == METRICS
    assert found[1]["gain"] == pytest.approx(0.1)
    assert found[3]["reason"] == "exit 1"
    assert found[1]["commit"] == repo.records()[1].commit


def test_weights_and_biases_has_a_step_for_each_experiment(repo: Repo) -> None:
    found = tracked(repo, "wandb", "wandb")
    assert column(found, "status") == STATUSES
    assert column(found, "description") == DESCRIPTIONS
    assert column(found, "val_bpb") == METRICS
    assert set(column(found, "run").values()) == {"autoresearch-t"}
    assert len(set(column(found, "file").values())) == 2  # two sessions, each in a file, of one run


def test_tensorboard_has_a_curve_over_the_experiments(repo: Repo) -> None:
    found = tracked(repo, "tensorboard", "tensorboardX", "tensorboard")
    assert column(found, "status") == STATUSES
    assert column(found, "text") == {number: f"{number:04d} {words}" for number, words in DESCRIPTIONS.items()}
    assert column(found, "val_bpb") == METRICS
    assert all(seconds is not None for seconds in column(found, "training_seconds").values())
