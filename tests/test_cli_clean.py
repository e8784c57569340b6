"""`autoresearch clean`: what no session uses is listed, and deleted with `--yes` alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from nights import document, night, refused, said, typed
from repo import Repo


def refs(repo: Repo) -> str:
    return repo.git("for-each-ref")


def test_it_lists_first_and_deletes_only_with_yes(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    home, runs, before = repo.path / ".git/autoresearch", repo.path / "experiments/runs", refs(repo)
    (runs / "t" / "notes.md").write_text("a note")
    (runs / "t" / "stock.json").write_text("[]")
    (home / "lane-0" / "locked").mkdir(exist_ok=True)
    (home / "lane-0" / "locked" / "file").write_text("x" * 3_000_000)
    (home / "lane-0" / "locked").chmod(0)
    listed = document(capsys, "clean", "--json")
    assert [(one["kind"], one["name"], one["used"], one["deleted"]) for one in listed] == [
        ("files", "t", False, False),
        ("files", "u", False, False),
        ("worktree", "lane-0", False, False),
    ]
    assert "--yes" in said(capsys, "clean")
    assert (runs / "t" / "0001" / "train.log").exists()
    assert (home / "lane-0").exists()
    assert "deleted" in said(capsys, "clean", "t", "--yes")
    assert sorted(path.name for path in (runs / "t").iterdir() if not path.name.startswith("packages")) == [
        "notes.md",
        "stock.json",
    ]
    assert (runs / "u" / "0001").exists()
    assert (home / "lane-0").exists()
    said(capsys, "clean", "--yes")
    assert not list((runs / "u").glob("0*"))
    assert not [path for path in home.glob("lane-*") if path.suffix != ".lock"]
    assert refs(repo) == before
    assert str(home) not in repo.git("worktree", "list")
    assert "nothing to delete" in said(capsys, "clean", status=1)
    repo.plan(0.9, "crash", 0.95, 0.85, 0.8)
    assert repo.run("--max", "1").ret == 0
    repo.check_ledger()


def test_a_campaign_without_files_is_one_sentence(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    assert "the campaign x has no files here" in refused(capsys, "clean", "x", "--yes")


def test_what_a_running_session_uses_is_named_and_left_alone(repo: Repo) -> None:
    night(repo)
    repo.plan("do:import time; time.sleep(1)", *[1.5] * 4, "hang")
    session = repo.start("--max", "2")
    folder = repo.path / "experiments/runs/t"
    while not (folder / "progress.json").exists():
        time.sleep(0.05)
    told = typed("clean", "--yes")
    assert "a session uses the files t: left alone" in told
    assert "a session uses the worktree lane-0: left alone" in told
    assert (folder / "0001").exists()
    assert Path(repo.path, ".git/autoresearch/lane-0").exists()
    assert not list((repo.path / "experiments/runs/u").glob("0*"))
    session.kill()
    session.communicate()
