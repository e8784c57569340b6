"""The wheel and the source archive: what is in them, and that the wheel alone serves a repository of others."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from repo import UNUSED, Repo

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pytest_autoresearch"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source archive and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and the packages of this one but not its checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    program = folder / "bin" / "python"
    site = subprocess.run(
        [str(program), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True, capture_output=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    (wheel,) = built.glob("*.whl")
    command = [sys.executable, "-m", "pip", "--python", str(program), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True)
    # A folder named in a .pth file is searched, but the .pth files in it, such as an editable install's, are not read.
    Path(site, "around.pth").write_text(sysconfig.get_path("purelib"))
    return program


def run(python: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *command], cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=120
    )


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {str(path.relative_to(ROOT)) for path in there}
    assert {"pytest_autoresearch/py.typed", "pytest_autoresearch/bundled/test_metric.py"} <= names
    assert "pytest_autoresearch/templates/autoresearch.yml" in names


def test_the_wheel_says_who_it_is(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    told = {name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "dist-info" in name}
    metadata = email.message_from_string(told["METADATA"])
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    classifiers = metadata.get_all("Classifier") or []
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)
    assert "MIT License" in told["LICENSE"]
    assert "autoresearch = pytest_autoresearch.plugin" in told["entry_points.txt"]
    assert "autoresearch = pytest_autoresearch.cli:main" in told["entry_points.txt"]
    assert "# pytest-autoresearch" in str(metadata.get_payload())


def test_the_source_archive_is_enough_to_work_on(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in ("train.py", "program.md", "harness/scorer.py", "tests/repo.py", "docs/reference.md", ".ci/run",
                 "constraints.txt", "CHANGELOG.md", "LICENSE", "experiments/test_val_bpb.py"):  # fmt: skip
        assert path in names, path
    assert not [name for name in names if "experiments/runs" in name or "__pycache__" in name]
    assert source.stat().st_size < 5_000_000


def test_the_wheel_alone_runs_a_campaign_in_a_fresh_repository(python: Path, repo: Repo) -> None:
    asked = "import importlib.util as u; print(*(u.find_spec(name) for name in ('pytest_autoresearch', 'harness')))"
    said = run(python, repo.path, "-c", asked).stdout.strip()
    assert f"'{next(python.parent.parent.glob('lib/*/site-packages'))}/pytest_autoresearch/__init__.py'" in said
    assert said.endswith(" None")
    repo.plan(0.9, 1.5)
    done = run(python, repo.path, "-m", "pytest", *repo.arguments("--max", "2"), *UNUSED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert repo.statuses() == {0: "keep", 1: "keep", 2: "discard"}
    repo.check_ledger()


def test_the_wheel_brings_its_own_rule_where_there_is_none(python: Path, repo: Repo) -> None:
    repo.git("rm", "-q", "-r", "experiments")
    repo.commit("No rule")
    repo.plan(0.9)
    done = run(python, repo.path, "-m", "pytest", *repo.arguments("--max", "1"), *UNUSED)
    assert "rule:     built in" in done.stdout
    assert repo.statuses() == {0: "keep", 1: "keep"}


def test_the_wheel_brings_the_command(python: Path, repo: Repo) -> None:
    program = python.parent / "autoresearch"
    done = subprocess.run([str(program), "--version"], cwd=repo.path, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "pytest-autoresearch 0.1.0"


def test_the_wheel_brings_the_workflow_that_init_writes(python: Path, repo: Repo) -> None:
    done = run(
        python, repo.path, "-c", "import sys; from pytest_autoresearch.cli import main; sys.exit(main(['init']))"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = repo.path / ".github" / "workflows" / "autoresearch.yml"
    assert written.read_bytes() == (PACKAGE / "templates" / "autoresearch.yml").read_bytes()
