"""The user's git settings change nothing: patches are read and written in one form, whatever the configuration says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from nights import said
from repo import Repo

SETTINGS = {
    "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.external": "false", "diff.context": "0",
    "diff.interHunkContext": "9", "diff.algorithm": "patience", "diff.renames": "copies", "diff.relative": "true",
    "diff.orderFile": "/nonexistent", "diff.suppressBlankEmpty": "true", "diff.colorMoved": "zebra",
    "diff.submodule": "log", "diff.ignoreSubmodules": "all", "diff.wsErrorHighlight": "all", "diff.srcPrefix": "x/",
    "diff.better.command": "false", "diff.better.textconv": "rev <", "color.ui": "always", "color.diff": "always",
    "core.pager": "false", "core.quotePath": "false", "core.bigFileThreshold": "1", "core.abbrev": "4",
    "core.whitespace": "tab-in-indent", "core.safecrlf": "true", "apply.whitespace": "error",
    "apply.ignoreWhitespace": "change", "i18n.commitEncoding": "latin1", "i18n.logOutputEncoding": "latin1",
    "log.showSignature": "true", "commit.gpgSign": "true", "tag.gpgSign": "true", "gpg.program": "false",
    "merge.conflictStyle": "diff3", "rerere.enabled": "true", "status.branch": "true", "column.ui": "always",
}  # fmt: skip


def applies(repo: Repo, patch: str, *more: str) -> None:
    """The user's own `git apply` takes the patch, under settings of git's own."""
    done = subprocess.run(
        ["git", "apply", "--check", *more], cwd=repo.path, input=patch.encode(), capture_output=True, check=False,
        env={"PATH": "/usr/bin:/bin", "GIT_CONFIG_GLOBAL": "/dev/null"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode() + patch


def queue(repo: Repo, name: str, before: str, after: str, *options: str) -> None:
    """A patch in the queue, as `git diff` writes it here."""
    train = repo.path / "train.py"
    whole = train.read_bytes()
    train.write_bytes(whole.replace(before.encode(), after.encode()))
    assert train.read_bytes() != whole
    patch = subprocess.run(["git", "diff", *options], cwd=repo.path, capture_output=True, check=True).stdout
    train.write_bytes(whole)
    folder = repo.path / "experiments/queue"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(patch)


def from_queue(repo: Repo, *arguments: str) -> pytest.RunResult:
    """A night of the queue's patches."""
    return repo.run("--autoresearch-proposer", "queue", *arguments)


@pytest.fixture
def queued(repo: Repo) -> Repo:
    """A repository without hooks, so that the proposer that is named proposes."""
    repo.write("conftest.py", "")
    repo.write(".gitattributes", "*.py diff=better\n")
    repo.commit("No hooks")
    return repo


def test_no_setting_of_git_changes_a_patch(
    queued: Repo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    queue(queued, "1-größer.patch", '"1.0"', '"0.9"', "--no-textconv", "--no-ext-diff")
    queue(queued, "2.patch", "loss: 2.5", "loss: 2.4", "--no-textconv", "--no-ext-diff", "--no-prefix")
    for key, value in SETTINGS.items():
        queued.git("config", key, value)
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER"):
        monkeypatch.setenv(name, "false")
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    result = from_queue(queued, "--max", "2")
    assert queued.statuses() == {0: "keep", 1: "keep", 2: "discard"}, result.stdout.str()
    first = queued.records()[1]
    assert (first.lines_added, first.lines_removed) == (1, 1)
    assert first.comparable
    applies(queued, said(capsys, "show", "1", "--tag", "t", "--diff"))
    assert '\n \n-ACTION = "1.0"\n+ACTION = "0.9"\n' in said(capsys, "show", "1", "--tag", "t", "--diff")
    raw = queued.git("cat-file", "commit", first.commit)
    assert "encoding" not in raw
    assert "größer" in raw


@pytest.mark.parametrize("attribute", ["-diff", "binary", "-text"])
def test_a_file_that_an_attribute_calls_binary_has_a_patch_too(
    queued: Repo, attribute: str, capsys: pytest.CaptureFixture[str]
) -> None:
    queued.write(".gitattributes", f"*.py {attribute}\n")
    queued.commit("An attribute")
    queue(queued, "1.patch", '"1.0"', '"0.9"', "--text")
    from_queue(queued, "--max", "1")
    assert queued.statuses() == {0: "keep", 1: "keep"}
    applies(queued, said(capsys, "show", "1", "--tag", "t", "--diff"))


def test_a_patch_of_a_file_with_carriage_returns_can_be_applied(
    queued: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    train = queued.path / "train.py"
    train.write_bytes(train.read_bytes().replace(b"\n", b"\r\n"))
    queued.commit("Windows")
    queue(queued, "1.patch", '"1.0"', '"0.9"')
    from_queue(queued, "--max", "1")
    assert queued.statuses() == {0: "keep", 1: "keep"}
    applies(queued, said(capsys, "show", "1", "--tag", "t", "--diff"))


def test_a_patch_without_prefixes_adds_and_deletes_files(queued: Repo) -> None:
    ini = (queued.path / "pytest.ini").read_text()
    queued.write("pytest.ini", f"{ini}autoresearch_editable = train.py parts/*.py\n")
    queued.write("parts/old.py", "x = 1\n")
    queued.commit("Parts")
    Path(queued.path, "parts/new.py").write_text("y = 2\n")
    queued.git("add", "-N", "parts/new.py")
    Path(queued.path, "parts/old.py").unlink()
    queue(queued, "1.patch", '"1.0"', '"0.9"', "--no-prefix")
    queued.git("reset", "-q", "--hard")
    Path(queued.path, "parts/new.py").unlink(missing_ok=True)
    from_queue(queued, "--max", "1")
    assert queued.statuses() == {0: "keep", 1: "keep"}
    assert queued.git("ls-tree", "--name-only", "autoresearch/t:parts") == "new.py"
