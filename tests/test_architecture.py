"""The floors of docs/design.md hold, and the check that says so can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter with this project's contracts, over the packages in a folder."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PATH": "", "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages to break."""
    for package in ("pytest_autoresearch", "harness"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("pytest_autoresearch/core/run.py", "", "2 kept, 0 broken"),
        ("pytest_autoresearch/core/run.py", "from pytest_autoresearch.ledger import git", "core is not allowed"),
        (
            "pytest_autoresearch/keeprule/rule.py",
            "from pytest_autoresearch.source import guard",
            "keeprule is not allowed",
        ),
        ("harness/metric.py", "import pytest_autoresearch.core.run", "harness is not allowed to import"),
        (
            "pytest_autoresearch/ledger/git.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pytest_autoresearch.campaign",
            "ledger is not allowed",
        ),
    ],
)
def test_an_arrow_that_is_turned_round_breaks_the_contract(copy: Path, module: str, line: str, said: str) -> None:
    path = copy / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    done = lint(copy)
    assert (done.returncode == 0) == (not line), done.stdout
    assert said in " ".join(done.stdout.split()), done.stdout


def test_the_pure_core_imports_neither_pytest_nor_git() -> None:
    code = "import pytest_autoresearch.core.experiment, pytest_autoresearch.keeprule.verdict, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"pytest", "git", "psutil", "torch"} & set(done.stdout.split())


@pytest.mark.parametrize("package", ["pytest_autoresearch", "harness"])
def test_the_design_page_names_every_module(package: str) -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    modules = {path.stem for path in (ROOT / package).rglob("*.py")} - {"__init__", "__main__", "test_metric"}
    assert {name for name in modules if not re.search(rf"`{name}(\.py)?`", page)} == set()


def test_the_design_page_names_no_module_that_is_gone() -> None:
    plan = (ROOT / "docs" / "design.md").read_text().split("## The house")[1].split("## The life of")[0]
    cells = [line.split("|")[1] for line in plan.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    modules = {path.stem for package in ("pytest_autoresearch", "harness") for path in (ROOT / package).rglob("*.py")}
    assert named - modules == set()
