"""What a run imports is the lane's code, however the user has installed the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from repo import CONFIG, Repo

MODEL = "VALUE = 1.0\n"
TRAIN = "from toyp.model import VALUE\nprint('val_bpb:', VALUE)\n"
PROPOSE = """
from pytest_autoresearch import Proposal

def pytest_autoresearch_propose(context, failure):
    model = next(context.folder.rglob("model.py"))
    model.write_text(f"VALUE = {1 - context.number / 10}\\n")
    return Proposal(f"a better model {context.number}")
"""
FINDER = """
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "toyp":
            folder = {folder!r}
            return spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])

sys.meta_path.{how}
"""


def package(repo: Repo, python: Path, *, command: str = "train.py", source: str = "src") -> Repo:
    """A repository whose model is a module of a package that another folder than the script's holds."""
    repo.write(f"{source}/toyp/__init__.py", "")
    repo.write(f"{source}/toyp/model.py", MODEL)
    repo.write("train.py", TRAIN)
    repo.write("conftest.py", PROPOSE)
    repo.write("pyproject.toml", "[project]\nname = 'toyp'\nversion = '1'\n")
    repo.write(
        "pytest.ini", CONFIG.replace("python -S train.py", f"{python} {command}") + "autoresearch_editable = src/toyp\n"
    )
    repo.commit("A package")
    return repo


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a new virtual environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return tmp_path / "venv" / "bin" / "python"


def site(python: Path) -> Path:
    return next(python.parent.parent.glob("lib/python*/site-packages"))


def installed(python: Path, url: str, *files: str) -> None:
    """The metadata of an installed package toyp."""
    folder = site(python) / "toyp-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toyp\nVersion: 1\n")
    (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    (folder / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {"editable": True}}))


def copied(python: Path, model: str = MODEL) -> None:
    """An installed copy of the package."""
    folder = site(python) / "toyp"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "model.py").write_text(model)


def finder(repo: Repo, python: Path, how: str) -> None:
    (site(python) / "toyp_finder.py").write_text(
        dedent(FINDER).replace("{folder!r}", repr(str(repo.path / "src/toyp"))).replace("{how}", how)
    )
    (site(python) / "toyp.pth").write_text("import toyp_finder\n")


def install(repo: Repo, python: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead Python to the checkout's own copy, or to another one."""
    checkout = repo.path / "src"
    match how:
        case "a path file":
            (site(python) / "toyp.pth").write_text(f"{checkout}\n")
        case "a finder":
            finder(repo, python, "append(Finder)")
        case "a link":
            (site(python) / "toyp").symlink_to(checkout / "toyp")
        case "PYTHONPATH":
            monkeypatch.setenv("PYTHONPATH", str(checkout))
        case "a relative PYTHONPATH":
            monkeypatch.setenv("PYTHONPATH", "src")
        case "an installed copy":
            copied(python)
            installed(python, f"file://{repo.path}", "toyp/__init__.py", "toyp/model.py")
        case "a stale release":
            copied(python, "VALUE = 5.0\n")
            installed(python, "", "toyp/__init__.py", "toyp/model.py")


WAYS = (
    *("a path file", "a finder", "a link", "PYTHONPATH", "a relative PYTHONPATH"),
    *("an installed copy", "a stale release"),
)


@pytest.mark.parametrize("how", WAYS)
def test_the_edited_module_is_what_runs(repo: Repo, python: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package(repo, python)
    install(repo, python, how, monkeypatch)
    result = repo.run("--max", "2")
    assert result.ret == 0
    assert [record.metric for record in repo.records()] == [1.0, 0.9, 0.8]


@pytest.mark.parametrize("command", ["-m toyp.train", "-W error src/toyp/train.py", "-u train.py"])
def test_however_the_command_starts_python(
    repo: Repo, python: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(repo, python, command=command)
    repo.write("src/toyp/train.py", TRAIN)
    repo.commit("An entry")
    install(repo, python, "a path file", monkeypatch)
    assert repo.run("--max", "1").ret == 0
    assert [record.metric for record in repo.records()] == [1.0, 0.9]


def test_a_console_script_is_measured_too(repo: Repo, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = python.with_name("toyp-train")
    script.write_text(f"#!{python}\nfrom toyp.main import main\nmain()\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{python.parent}:{os.environ['PATH']}")
    package(repo, python)
    repo.write("src/toyp/main.py", "def main():\n    from toyp.model import VALUE\n    print('val_bpb:', VALUE)\n")
    repo.write("pytest.ini", CONFIG.replace("python -S train.py", "toyp-train") + "autoresearch_editable = src/toyp\n")
    repo.commit("An entry point")
    install(repo, python, "a path file", monkeypatch)
    assert repo.run("--max", "1").ret == 0
    assert [record.metric for record in repo.records()] == [1.0, 0.9]


@pytest.mark.parametrize("why", ["a finder that comes first", "an isolated interpreter"])
def test_a_copy_that_cannot_be_avoided_is_refused_before_the_baseline(repo: Repo, python: Path, why: str) -> None:
    package(repo, python, command="-I train.py" if why == "an isolated interpreter" else "train.py")
    if why == "an isolated interpreter":
        (site(python) / "toyp.pth").write_text(f"{repo.path / 'src'}\n")
    else:
        finder(repo, python, "insert(0, Finder)")
    result = repo.run("--max", "1")
    assert result.ret == 4
    said = result.stderr.str()
    assert f"`import toyp` runs {repo.path}/src/toyp/__init__.py and not the experiment's src/toyp/__init__.py" in said
    assert "set PYTHONPATH=src, and leave -I and -E out of the command" in said
    assert repo.records() == []


def test_a_module_of_the_same_name_that_is_no_copy_stays_where_it_is(repo: Repo, python: Path) -> None:
    """An editable `lib/json.py` that the program imports as `lib.json` must not take the place of Python's own."""
    package(repo, python)
    repo.write("src/toyp/json.py", "raise RuntimeError('not this one')\n")
    repo.write("src/toyp/helper.py", "WHO = 'ours'\n")
    (site(python) / "helper.py").write_text("WHO = 'theirs'\n")
    repo.write(
        "train.py",
        "import sys\nsys.path.insert(0, 'src')\nimport json, helper\nassert helper.WHO == 'theirs'\n" + TRAIN,
    )
    repo.commit("Other modules of these names")
    assert repo.run("--max", "1").ret == 0
    assert [record.metric for record in repo.records()] == [1.0, 0.9]


def test_the_sandbox_shows_the_lane_and_not_the_checkout(
    repo: Repo, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(repo, python)
    install(repo, python, "a path file", monkeypatch)
    monkeypatch.setenv("VIRTUAL_ENV", str(python.parent.parent))
    repo.write(
        "pytest.ini", (repo.path / "pytest.ini").read_text() + f"autoresearch_readable = {python.parent.parent}\n"
    )
    repo.commit("What it needs")
    result = repo.run("--max", "1", "--autoresearch-sandbox", "auto")
    if "sandbox:  none" in result.stdout.str():
        pytest.skip("there is no sandbox here")
    assert [record.metric for record in repo.records()] == [1.0, 0.9]


@pytest.mark.parametrize("noisy", [True, False])
def test_edits_without_any_effect_on_a_noisy_metric_are_a_warning(repo: Repo, noisy: bool) -> None:
    """The check before the baseline cannot see a program that finds its modules by itself."""
    repo.write(
        "train.py",
        f"""
        import os
        ACTION = "0"
        print("val_bpb:", 1 + {"int(os.environ['AUTORESEARCH_SEED'])" if noisy else "1"} / 1000)
        """,
    )
    repo.commit("A program without effect")
    repo.plan(1, 2, 3, 4)
    said = repo.run("--max", "4", "--autoresearch-confirm", "standard").stdout.str()
    assert ("0003: the last 3 edits gave exactly the val_bpb of the best on the same seed" in said) == noisy
    assert "the last 2 edits" not in said
