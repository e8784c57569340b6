"""The wheel and the source archive: what is in them, and that the wheel alone serves a repository of others."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from repo import UNUSED, Repo

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pytest_autoresearch"
EXTRAS = {"anthropic", "httpx2", "huggingface_hub", "matplotlib", "numpy", "optuna", "pyarrow", "shtab", "tokenizers",
          "torch", "tqdm"}  # fmt: skip
HALVES = """
def sort(values):
    if len(values) > 1:
        middle = len(values) // 2
        left, right = values[:middle], values[middle:]
        sort(left)
        sort(right)
        place = 0
        while left and right:
            values[place] = right.pop(0) if right[0] < left[0] else left.pop(0)
            place += 1
        values[place:] = left + right
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source archive and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def environment(built: Path, folder: Path, packages: Path) -> Path:
    """The interpreter of an environment in a new folder that has the wheel, and what lies in a folder of packages."""
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
    Path(site, "around.pth").write_text(str(packages))
    return program


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and the packages of this one but not its checkout."""
    return environment(built, tmp_path_factory.mktemp("environment"), Path(sysconfig.get_path("purelib")))


@pytest.fixture(scope="module")
def bare_python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has what `pip install` of the wheel brings, without any extra."""
    packages = tmp_path_factory.mktemp("packages")
    for one in brought(built):
        top = {Path(file.parts[0]) for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}
        for name in top:
            (packages / name).symlink_to(one.locate_file(name))
    return environment(built, tmp_path_factory.mktemp("bare"), packages)


def brought(built: Path) -> list[Distribution]:
    """The installed distributions that the wheel requires, with those that they require."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        waiting = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    found: dict[str, Distribution] = {}
    while waiting:
        required = Requirement(waiting.pop())
        if required.name not in found and (required.marker is None or required.marker.evaluate({"extra": ""})):
            found[required.name] = distribution(required.name)
            waiting += found[required.name].requires or []
    return list(found.values())


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
    assert {"Typing :: Typed", "Operating System :: POSIX :: Linux"} <= set(classifiers)
    required = {
        Requirement(one).name.lower() for one in metadata.get_all("Requires-Dist") or [] if "extra ==" not in one
    }
    assert not required & EXTRAS
    assert metadata.get_all("Project-URL")
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


# -------------------------------------------------------------------------------------------------- without any extra


def refused(bare_python: Path, folder: Path, *command: str, status: int) -> str:
    """The one sentence of a command that needs a library which is not there."""
    done = run(bare_python, folder, *command)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stdout == ""
    (sentence,) = done.stderr.strip().splitlines()
    return sentence


def test_without_extras_none_of_their_libraries_is_there(bare_python: Path, tmp_path: Path) -> None:
    asked = f"import importlib.util as u; print(*(name for name in {sorted(EXTRAS)} if u.find_spec(name)))"
    assert run(bare_python, tmp_path, "-c", asked).stdout.strip() == ""


def test_without_extras_a_sorting_routine_is_made_to_compare_less_from_a_queue(
    bare_python: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "sorting"
    shutil.copytree(ROOT / "examples" / "sorting", copy, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A baseline"]):
        subprocess.run([*git, *command], cwd=copy, check=True)
    program = (copy / "sort.py").read_text()
    queue = copy / "experiments" / "queue"
    queue.mkdir()
    (copy / "sort.py").write_text(HALVES)
    patch = subprocess.check_output(["git", "diff"], cwd=copy)
    (copy / "sort.py").write_text(program)
    (queue / "1-merge.patch").write_bytes(patch)
    options = ("--autoresearch-proposer=queue", "--autoresearch-confirm=off", "--autoresearch-tag=t")
    done = run(bare_python, copy, "-m", "pytest", "--autoresearch", *options, "--max=2")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("\t") for line in (copy / "results.tsv").read_text().splitlines()[1:]]
    assert [row[3] for row in rows] == ["keep", "keep"]
    assert float(rows[1][1]) < float(rows[0][1])
    assert (copy / "report.html").exists()
    for command in ("results", "show", "best", "report"):
        words = ["import sys; from pytest_autoresearch.cli import main; sys.exit(main(sys.argv[1:]))", command]
        done = run(bare_python, copy, "-c", *words, *(["1"] if command == "show" else []))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("proposer", "extra", "library"), [("search", "search", "optuna"), ("anthropic", "anthropic", "anthropic")]
)
def test_without_its_extra_a_proposer_says_what_to_install(
    bare_python: Path, repo: Repo, proposer: str, extra: str, library: str
) -> None:
    before = repo.checkout_hash()
    arguments = repo.arguments("--max", "1", "--autoresearch-proposer", proposer)
    assert refused(bare_python, repo.path, "-m", "pytest", *arguments, status=4) == (
        f"ERROR: the proposer {proposer} needs {library}, which is not installed: type `pip install "
        f"'pytest-autoresearch[{extra}]'`, or choose another --autoresearch-proposer"
    )
    assert repo.checkout_hash() == before
    assert not repo.git("for-each-ref", "refs/autoresearch")


def test_without_its_extra_the_completion_says_what_to_install(bare_python: Path, repo: Repo) -> None:
    program = "import sys; from pytest_autoresearch.cli import main; sys.exit(main(['completion', 'bash']))"
    assert refused(bare_python, repo.path, "-c", program, status=2) == (
        "autoresearch completion: the completion needs shtab, which is not installed: type `pip install "
        "'pytest-autoresearch[completion]'`"
    )


@pytest.mark.parametrize("command", ["prepare", "describe"])
def test_without_its_extra_the_harness_says_what_to_install(bare_python: Path, tmp_path: Path, command: str) -> None:
    shutil.copytree(ROOT / "harness", tmp_path / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    assert refused(bare_python, tmp_path, "-m", f"harness.{command}", status=1) == (
        "harness: numpy is not installed: type `pip install -e '.[harness]'`"
    )
