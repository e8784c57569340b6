"""`autoresearch doctor`: what a machine has, what it lacks, and what puts that right."""

from __future__ import annotations

import _ctypes
import json
import os
import shutil
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml
from repo import Repo

from pytest_autoresearch.cli import doctor, doctor_checks, main
from pytest_autoresearch.hardware.gpu import Gpu

pytestmark = pytest.mark.flow

ROOT = Path(__file__).parent.parent
MODULES = (doctor,)  # imported here: pytester forgets what is first imported in a test

TORCH = """
from types import SimpleNamespace
__version__ = "2.99.0"
version = SimpleNamespace(cuda={cuda!r})
cuda = SimpleNamespace(is_available=lambda: {usable})
"""


@pytest.fixture(autouse=True)
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PyTorch that is imported at once; this process has its own. No GPU, but where a test adds one."""
    file = tmp_path / "packages" / "torch.py"
    file.parent.mkdir()
    file.write_text(TORCH.format(cuda="12.8", usable=False))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(file.parent), str(ROOT)]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    return file


@pytest.fixture
def gpu(tmp_path: Path, torch: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """One H200, which PyTorch can use."""
    fake = FakeNvml(tmp_path)
    fake.use(monkeypatch)
    torch.write_text(TORCH.format(cuda="12.8", usable=True))
    return fake


def look(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """The exit status of `autoresearch doctor --json` there, what it said, and its checks by name."""
    status = main(["-C", str(folder), "doctor", "--json"])
    said = json.loads(capsys.readouterr().out)
    return status, said, {check["name"]: check for check in said["checks"]}


@pytest.mark.usefixtures("gpu")
def test_a_machine_with_a_gpu_is_ready(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    status, said, checks = look(repo.path, capsys)
    assert (status, said["ready"]) == (0, True)
    assert said["gpu_name"] == "NVIDIA H200"
    assert said["vram_mb"] == 143771
    assert said["driver"] == "580.159.04"
    assert said["cuda_version"] == "12.8"
    assert said["torch_version"] == "2.99.0"
    assert said["python_ok"] is True
    assert said["profile"] == "h200"
    assert said["disk_free_mb"] > 0
    assert checks["gpu"]["status"] == "ok"
    assert main(["-C", str(repo.path), "doctor"]) == 0
    text = capsys.readouterr().out
    assert "gpu         NVIDIA H200, 143771 MB, driver 580.159.04\n" in text
    assert text.endswith("ready, profile h200: pytest --autoresearch --max 3\n")


def test_no_gpu_is_no_failure(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    status, said, checks = look(repo.path, capsys)
    assert (status, said["ready"], said["profile"]) == (0, True, "cpu")
    assert said["gpu_name"] is said["vram_mb"] is said["cuda_version"] is None
    assert checks["gpu"]["status"] == "note"
    assert "training runs on the CPU, with the profile cpu" in checks["gpu"]["said"]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("cuda", "why", "remedy"),
    [
        (None, "built for CPUs, so it cannot use the GPU", "pip install --force-reinstall torch"),
        ("99.9", "built for CUDA 99.9, but it cannot use the GPU", "update the driver"),
    ],
)
def test_a_pytorch_that_cannot_use_the_gpu_is_not_ready(
    repo: Repo, torch: Path, capsys: pytest.CaptureFixture[str], cuda: str | None, why: str, remedy: str
) -> None:
    torch.write_text(TORCH.format(cuda=cuda, usable=False))
    status, said, checks = look(repo.path, capsys)
    assert (status, said["ready"], said["cuda_version"]) == (1, False, None)
    assert why in checks["pytorch"]["said"]
    assert checks["pytorch"]["remedy"].startswith(remedy)
    assert main(["-C", str(repo.path), "doctor"]) == 1
    assert capsys.readouterr().out.endswith("not ready: pytorch\n")


def test_a_pytorch_that_cannot_be_imported_is_told_with_its_error(
    repo: Repo, torch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.write_text("raise OSError('libcudart.so.12: cannot open shared object file')\n")
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert checks["pytorch"]["said"] == "OSError: libcudart.so.12: cannot open shared object file"
    torch.write_text("import os\nos.abort()\n")
    assert look(repo.path, capsys)[2]["pytorch"]["said"] == "importing it ended Python with exit status -6"


def test_a_pytorch_whose_libraries_can_be_loaded_is_not_imported(tmp_path: Path, torch: Path) -> None:
    torch.unlink()
    package = torch.with_suffix("")
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text("raise OSError('its modules were imported')\n")
    (package / "version.py").write_text("__version__ = '2.98.0'\ncuda = None\n")
    extension = f"_C{EXTENSION_SUFFIXES[0]}"
    (package / extension).touch()
    (package / "lib" / "libtorch.so").symlink_to(_ctypes.__file__)  # any library
    assert doctor_checks.ask_torch({}) == {"version": "2.98.0", "cuda": None, "usable": False}
    (package / extension).unlink()
    assert doctor_checks.ask_torch({}) == {"error": "OSError: its modules were imported"}


def test_a_repository_that_needs_no_pytorch_does_without(
    repo: Repo, torch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.write_text("raise ModuleNotFoundError('torch')\n")
    status, said, checks = look(repo.path, capsys)
    assert (status, said["torch_version"]) == (0, None)
    assert (checks["pytorch"]["status"], checks["pytorch"]["remedy"]) == ("note", "pip install torch")


def test_what_is_not_on_path_is_named_with_the_command_that_installs_it(
    repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, said, checks = look(repo.path, capsys)
    assert (status, said["git_version"]) == (1, None)
    assert (checks["git"]["status"], checks["git"]["remedy"]) == ("failed", "apt install git")
    assert (checks["sandbox"]["status"], checks["sandbox"]["remedy"]) == ("note", "apt install bubblewrap")
    assert said["sandbox"].startswith("none (bubblewrap is not installed")


def test_a_git_that_is_too_old_is_not_ready(
    repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, old = shutil.which("git"), tmp_path / "git"
    old.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo "git version 2.17.1" || exec {real} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert checks["git"]["said"] == "2.17.1 is too old: 2.31 or newer is needed"


def test_a_sandbox_that_is_required_has_to_be_there(
    repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(tmp_path))
    repo.write("pytest.ini", "[pytest]\nautoresearch_sandbox = require\n")
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert (checks["sandbox"]["status"], checks["sandbox"]["remedy"]) == ("failed", "apt install bubblewrap")


def test_a_key_is_seen_and_never_printed(
    repo: Repo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-very-secret")
    assert main(["-C", str(repo.path), "doctor"]) == 0
    text = capsys.readouterr().out
    assert "key         ANTHROPIC_API_KEY is set\n" in text
    _, said, _ = look(repo.path, capsys)
    assert said["key"] is True
    assert "secret" not in text + json.dumps(said)


def test_a_proposer_that_needs_a_key_is_not_ready_without(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.write("pytest.ini", "[pytest]\nautoresearch_proposer = anthropic\n")
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert (checks["key"]["status"], checks["key"]["remedy"]) == ("failed", "export ANTHROPIC_API_KEY=...")


def test_the_profile_is_the_harness_s_own_where_it_has_one(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.write("describe.py", 'print(\'{"profile": "rtx-24", "budget_seconds": 20}\')\n')
    repo.write("pytest.ini", f"[pytest]\nautoresearch_describe = {sys.executable} describe.py\n")
    repo.commit()
    status, said, checks = look(repo.path, capsys)
    assert (status, said["profile"]) == (0, "rtx-24")
    assert checks["harness"]["said"] == "profile rtx-24, 20 s of training per run"
    repo.write("describe.py", "raise SystemExit('the shards are missing')\n")
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert checks["harness"]["status"] == "failed"
    assert checks["harness"]["remedy"].startswith("autoresearch prepare")


def test_outside_of_a_repository_the_machine_alone_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said, checks = look(tmp_path, capsys)
    assert (status, said["ready"]) == (0, True)
    assert checks["repository"]["status"] == "note"
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("cd to a repository and type `autoresearch init`\n")


def test_a_repository_without_a_commit_or_a_script_is_told_what_to_type(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    (repo.path / "train.py").unlink()
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert checks["repository"]["said"].endswith("has no train.py, the file that experiments change")
    assert checks["repository"]["remedy"].startswith("autoresearch init --command")
    repo.git("update-ref", "-d", "HEAD")
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert checks["repository"]["remedy"] == "git add -A && git commit -m baseline"


def test_a_folder_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-C", "/no/such/folder", "doctor"]) == 2
    assert capsys.readouterr().err.startswith("autoresearch doctor: -C /no/such/folder: ")


@pytest.mark.parametrize(
    ("name", "memory_mb", "profile"),
    [
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40"),
        ("NVIDIA GeForce RTX 4090", 24564, "rtx-24"),
        ("NVIDIA GeForce RTX 3060", 12288, "rtx-12"),
        ("NVIDIA GeForce GTX 1660", 6144, "gtx-6"),
        ("NVIDIA GeForce GTX 1050", 2048, "cpu"),
        ("NVIDIA GB10", None, "cpu"),
    ],
)
def test_the_profile_follows_from_the_memory_where_nothing_says_it(
    name: str, memory_mb: float | None, profile: str
) -> None:
    assert doctor_checks.profile(Gpu(name, "GPU-1", "580", memory_mb)) == profile


def breaks(repo: Repo, name: str, text: str) -> None:
    """A committed file that keeps a session from beginning."""
    repo.write(name, text)
    repo.commit()


INI = "[pytest]\ntestpaths = tests\nautoresearch_command = python -S train.py\n"
NOT_READY = {
    "no program": (lambda repo: repo.git("rm", "-q", "program.md"), "there is no program.md, "),
    "uncommitted rule": (lambda repo: repo.write("experiments/test_b.py", ""), "experiments/test_b.py decides what is"),
    "no such program": (
        lambda repo: breaks(repo, "pytest.ini", "[pytest]\nautoresearch_command = nothing\n"),
        "the training command 'nothing' starts no program on PATH",
    ),
    "workers": (
        lambda repo: breaks(repo, "pytest.ini", f"{INI}addopts = -n 2\n"),
        "--autoresearch cannot be combined with -n: ",
    ),
    "no proposal": (lambda repo: breaks(repo, "conftest.py", ""), "search finds no constant to vary in train.py"),
    "no rule": (
        lambda repo: breaks(repo, "pytest.ini", f"{INI}python_functions = it_*\n"),
        "pytest collected no test from experiments/",
    ),
    "a foreign branch": (lambda repo: repo.git("branch", "autoresearch/t"), "there is a branch autoresearch/t, but no"),
    "a rule that cannot be imported": (
        lambda repo: breaks(repo, "experiments/test_val_bpb.py", "import nowhere\n"),
        "ERROR experiments/test_val_bpb.py",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", NOT_READY)
def test_what_a_session_refuses_is_not_ready(repo: Repo, capsys: pytest.CaptureFixture[str], what: str) -> None:
    prepare, said = NOT_READY[what]
    breaks(repo, "train.py", "ACTION = 'one'\nprint('val_bpb: 1')\n")
    prepare(repo)
    with (repo.path / "pytest.ini").open("a") as file:
        file.write("autoresearch_tag = t\nautoresearch_sandbox = off\n")
    repo.git("commit", "-qm", "A tag", "pytest.ini")
    before = repo.checkout_hash(), repo.git("for-each-ref")
    status, _, checks = look(repo.path, capsys)
    assert status == 1
    assert checks["session"]["status"] == "failed"
    assert checks["session"]["said"].startswith(said)
    assert (repo.checkout_hash(), repo.git("for-each-ref")) == before
    assert not (repo.path / "results.xml").exists()


def test_a_campaign_that_began_in_another_setting_is_not_ready(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.plan(0.9)
    repo.run("--max", "1")
    capsys.readouterr()
    assert look(repo.path, capsys)[2]["session"]["status"] == "ok"
    breaks(repo, "pytest.ini", f"{INI}autoresearch_budget = 7\nautoresearch_tag = t\n")
    session = look(repo.path, capsys)[2]["session"]
    assert session["status"] == "failed"
    assert session["said"].startswith("the campaign t began with other training seconds (300, now 7)")
