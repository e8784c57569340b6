"""What compilers keep is copied before training has seen data, and goes to the runs that may have it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from repo import Repo
from runner_bench import Bench

from pytest_autoresearch.runners import compile_cache
from pytest_autoresearch.runners.local import LocalRunner
from pytest_autoresearch.sandboxes.bubblewrap import installed

NUMBERS = ("0000", "0001", "0002")

BEGIN = """
import os, socket, pathlib
cache = pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
cache.mkdir(parents=True, exist_ok=True)
def begin():
    with socket.socket(fileno=int(os.environ["AUTORESEARCH_CLOCK_FD"])) as parent:
        parent.sendall(b"begin\\n")
        assert parent.recv(16) == b"go\\n"
"""


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_plain_files_are_copied_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "kernel").write_text("binary")
    (source / "link").symlink_to("/etc/passwd")
    (source / "folder").symlink_to("/etc")
    os.mkfifo(source / "pipe")
    assert compile_cache.copy(source, tmp_path / "target")
    assert tree(tmp_path / "target") == {"a/b/kernel": "binary"}
    assert not (tmp_path / "target" / "link").exists()


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_becomes_a_link_at_the_moment_of_its_copy_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    source, target, secret = tmp_path / "source", tmp_path / "target", tmp_path / "secret"
    for folder in (source / "folder", secret):
        folder.mkdir(parents=True)
        (folder / "kernel").write_text(folder.name)
    (source / "file").write_text("mine")
    really_open = os.open

    def swap_and_open(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == what and dir_fd is not None:
            os.rename(source / what, source / "away")
            os.symlink(secret if what == "folder" else secret / "kernel", source / what)
        return really_open(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_and_open)
    compile_cache.copy(source, target)
    assert "secret" not in (tree(target).values() if target.exists() else ())
    assert not target.exists()


def test_our_own_disk_is_no_fault_of_the_candidate(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "kernel").write_text("x")
    assert not compile_cache.copy(tmp_path / "source", tmp_path / "file" / "kept")


def test_too_much_is_not_kept_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "MOST_FILES", 2)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in "abc":
        (source / name).write_text(name)
    assert not compile_cache.copy(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_nesting_without_end_is_not_kept(tmp_path: Path) -> None:
    deep = tmp_path / "source"
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    assert not compile_cache.copy(tmp_path / "source", tmp_path / "target")


@pytest.fixture(params=[None, "bubblewrap"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    sandbox = installed() if request.param else None
    if request.param and sandbox is None:
        pytest.skip("bubblewrap is not installed")
    return Bench(tmp_path, LocalRunner(sandbox=sandbox))


def run(bench: Bench, script: str) -> Path:
    """Where what the script's compilers made is kept."""
    cache, kept = bench.folder / "cache", bench.folder / "kept"
    cache.mkdir()
    job = bench.job(BEGIN + script, scorer="print('val_bpb: 1.0')")
    bench.runner.run(replace(job, cache=cache, keep_cache=kept), lambda progress: None)
    return kept


def test_what_is_written_before_the_clock_is_kept_and_what_comes_later_is_not(bench: Bench) -> None:
    kept = run(bench, "(cache / 'kernel').write_text('compiled')\nbegin()\n(cache / 'weights').write_text('data')\n")
    assert tree(kept) == {"inductor/kernel": "compiled"}


def test_training_that_never_asks_for_the_clock_leaves_nothing(bench: Bench) -> None:
    assert not run(bench, "(cache / 'kernel').write_text('compiled')").exists()


TRAIN = (
    """
ACTION = "1.0"
"""
    + BEGIN
    + """
print("found", sorted(path.name for path in cache.iterdir()), flush=True)
(cache / ACTION).write_text("compiled")
begin()
(cache / ("late" + ACTION)).write_text("has seen data")
pathlib.Path(os.environ["AUTORESEARCH_OUT"], "model.pt").write_text(ACTION)
"""
)
SCORE = """
import os, pathlib
print("val_bpb:", pathlib.Path(os.environ["AUTORESEARCH_OUT"], "model.pt").read_text())
"""


@pytest.mark.parametrize("policy", ["off", "auto"])
def test_every_run_starts_from_the_baselines_compilations_and_from_nobody_elses(repo: Repo, policy: str) -> None:
    repo.scored_by(SCORE, TRAIN)
    repo.plan("0.9", "0.8")
    assert repo.run("--max", "2", "--autoresearch-sandbox", policy).ret == 0
    logs = [(repo.path / "experiments" / "runs" / "t" / number / "train.log").read_text() for number in NUMBERS]
    assert [log.splitlines()[0] for log in logs] == ["found []", "found ['1.0']", "found ['1.0']"]


def test_what_a_candidate_compiled_is_gone_when_it_runs_again(repo: Repo) -> None:
    score = SCORE.replace(".read_text())", '.read_text() + os.environ["AUTORESEARCH_SEED"][-1:])')
    repo.scored_by(score, TRAIN)
    repo.plan("0.5", "0.7")
    assert repo.run("--max", "2", "--autoresearch-confirm", "standard").ret == 0
    logs = list((repo.path / "experiments" / "runs" / "t").glob("*/*.log"))
    assert {run.role for record in repo.records() for run in record.runs} >= {"confirm", "incumbent"}
    found = [path.read_text().splitlines()[0] for path in logs]
    assert found.count("found []") == 1
    assert found.count("found ['1.0']") == len(found) - 1
