"""Every example outside machine learning does what its README says, in a copy, with real measurements."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.ledger.ratchet import Ratchet

pytestmark = pytest.mark.typed

EXAMPLES = Path(__file__).parent.parent / "examples"


def followed(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """The records, after the commands of the example's README were typed in a copy of the repository's folder."""
    shutil.copytree(EXAMPLES, folder / "clone" / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for variable in ("PYTEST_TIMEOUT", "PYTEST_PLUGINS", "CI", "GITHUB_ACTIONS", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("PYTEST_ADDOPTS", "--autoresearch-confirm off --autoresearch-tag t -p no:xdist")  # one run each
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")
    blocks = re.findall(r"^```bash\n(.*?)^```", (EXAMPLES / name / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        ["bash", "-euc", "\n".join(blocks)], cwd=folder / "clone", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    copy = folder / name
    assert subprocess.check_output(["git", "status", "--porcelain"], cwd=copy, text=True) == ""
    return Ratchet(copy).records("t")


def statuses(records: list[Experiment]) -> list[str]:
    return [str(record.verdict.status) for record in records if record.verdict]


def test_a_sorting_routine_is_made_to_compare_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = followed(tmp_path, "sorting", monkeypatch)
    assert len(records) == 7
    assert "keep" in statuses(records)[1:]
    assert "crash" not in statuses(records)
    assert records[0].metric == 43535  # it is counted: the same on every machine
    assert min(record.metric for record in records) < 40000
    assert records[0].metrics["milliseconds"] > 0


def test_a_sort_that_leaves_the_work_to_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "sorting"
    shutil.copytree(EXAMPLES / "sorting", copy, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A baseline"]):
        subprocess.run([*git, *command], cwd=copy, check=True)
    (copy / "experiments" / "queue").mkdir()
    (copy / "sort.py").write_text("def sort(values):\n    values.sort()\n")
    patch = subprocess.check_output(["git", "diff"], cwd=copy, text=True)
    (copy / "experiments" / "queue" / "1-cheat.patch").write_text(patch)
    subprocess.run(["git", "checkout", "-q", "."], cwd=copy, check=True)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    options = ("--autoresearch-proposer", "queue", "--autoresearch-confirm", "off", "--autoresearch-tag", "t")
    subprocess.run(
        [sys.executable, "-m", "pytest", "--autoresearch", *options], cwd=copy, capture_output=True, check=True
    )
    refusal = Ratchet(copy).records("t")[1].refusal
    assert refusal is not None
    assert "it calls Python's own sort" in refusal.message


def test_a_test_suite_is_made_faster_and_still_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = followed(tmp_path, "test-suite-time", monkeypatch)
    assert statuses(records)[1] == "keep"
    assert [record.proposal.description for record in records[1:]] == [
        "Add all goods in one transaction",
        "Make the catalogue once and copy it",
    ]
    assert {record.metrics["passed"] for record in records} == {10}
    assert min(record.metric for record in records) < 0.8 * records[0].metric


@pytest.mark.parametrize("name", ["sorting", "test-suite-time"])
def test_a_readme_of_an_example_is_ten_lines(name: str) -> None:
    assert len((EXAMPLES / name / "README.md").read_text().splitlines()) <= 12
