"""`autoresearch best`: the best program, and how to take it without losing anything."""

from __future__ import annotations

import fcntl

import pytest
from nights import document, night, refused, said, typed
from repo import Repo


def test_the_best_is_shown_with_the_keeps_that_led_to_it(repo: Repo) -> None:
    night(repo)
    first, best = repo.records()[0], repo.records()[4]
    lines = typed("best", "--tag", "t").splitlines()
    assert lines[0] == "best of t: val_bpb 0.850000, -0.150000 since the baseline"
    assert lines[1] == "not audited: `autoresearch audit t` measures a gain that may be quoted"
    assert lines[2] == f"commit {best.commit} (0004)"
    assert [line.split()[:3] for line in lines[5:8]] == [
        ["0000", "1.000000", first.commit[:7]],
        ["0001", "0.900000", "-0.100000"],
        ["0004", "0.850000", "-0.050000"],
    ]
    assert f"full diff  git diff {first.commit[:7]} {best.commit[:7]}" in lines


def test_the_best_of_a_campaign_that_kept_nothing_is_its_baseline(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    assert "val_bpb 1.000000, the baseline" in said(capsys, "best")
    assert document(capsys, "best", "--json")["number"] == 0


def test_json_has_the_line_and_the_way_back(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    found = document(capsys, "best", "--tag", "t", "--json")
    assert [one["number"] for one in found["line"]] == [0, 1, 4]
    assert "branch" not in found
    found = document(capsys, "best", "--tag", "t", "--json", "--checkout")
    assert (found["branch"], found["back"]) == ("best/t", "git switch main")


def test_the_checkout_goes_to_a_branch_of_its_own_and_back(repo: Repo) -> None:
    night(repo)
    before, best = repo.checkout_hash(), repo.head()
    text = typed("best", "--tag", "t", "--checkout")
    assert "this checkout is now on the branch best/t\nto go back: git switch main\n" in text
    assert repo.git("symbolic-ref", "HEAD") == "refs/heads/best/t"
    assert repo.git("rev-parse", "HEAD") == best == repo.head()
    assert "ACTION = '0.85'" in (repo.path / "train.py").read_text()
    repo.git("switch", "-q", "main")
    repo.git("update-index", "-q", "--refresh")
    assert repo.git("status", "--porcelain") == ""
    assert "1.0" in (repo.path / "train.py").read_text()
    assert before


def test_a_detached_checkout_is_told_its_commit(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    repo.git("checkout", "-q", "--detach")
    head = repo.git("rev-parse", "HEAD")
    assert f"back: git switch --detach {head}" in said(capsys, "best", "--tag", "t", "--checkout")


def test_a_branch_that_only_lags_is_moved_and_one_with_own_commits_left_alone(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    repo.git("branch", "best/t", repo.records()[1].commit)
    said(capsys, "best", "--tag", "t", "--checkout")
    assert repo.git("rev-parse", "best/t") == repo.head()
    repo.write("mine.txt", "precious")
    mine = repo.commit("Mine")
    text = said(capsys, "best", "--tag", "t", "--checkout")
    assert "now on the branch best/t-2\nto go back: git switch best/t\n" in text
    assert repo.git("rev-parse", "best/t") == mine
    assert repo.git("rev-parse", "HEAD") == repo.head()


def test_on_its_own_branch_it_goes_forward_and_a_second_time_stays(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    old = repo.records()[1].commit
    repo.git("switch", "-q", "-c", "best/t", old)
    assert f"back: git reset --keep {old}" in said(capsys, "best", "--tag", "t", "--checkout")
    assert repo.git("rev-parse", "HEAD") == repo.head()
    assert repo.git("symbolic-ref", "HEAD") == "refs/heads/best/t"
    said(capsys, "best", "--tag", "t", "--checkout")
    assert repo.git("rev-parse", "HEAD") == repo.head()


def test_a_branch_called_best_is_in_nobodys_way(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    repo.git("branch", "best")
    assert "now on the branch best-t" in said(capsys, "best", "--tag", "t", "--checkout")


@pytest.mark.parametrize("staged", [False, True])
def test_uncommitted_changes_are_refused_and_kept(staged: bool, repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    repo.write("train.py", "precious")
    if staged:
        repo.git("add", "train.py")
    before = repo.checkout_hash()
    assert "train.py has uncommitted changes: type `git stash`" in refused(capsys, "best", "--tag", "t", "--checkout")
    assert repo.checkout_hash() == before


@pytest.mark.parametrize("ignored", [False, True])
def test_a_file_that_git_does_not_know_is_never_overwritten(
    ignored: bool, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    night(repo)
    repo.git("switch", "-q", "-c", "other", repo.records()[0].commit)
    repo.git("rm", "-q", "program.md")
    repo.git("commit", "-qm", "Without a program")
    if ignored:
        (repo.path / ".git" / "info" / "exclude").write_text("program.md\n")
    repo.write("program.md", "precious")
    before = repo.checkout_hash()
    assert "git did not change this checkout" in refused(capsys, "best", "--tag", "t", "--checkout")
    assert (repo.path / "program.md").read_text() == "precious"
    assert repo.checkout_hash() == before


def test_while_a_session_runs_the_checkout_is_left_alone(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    with (repo.path / ".git" / "autoresearch" / "campaign-u.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # what a session holds
        assert "a session of the campaign u runs here" in refused(capsys, "best", "--tag", "t", "--checkout")
        assert "best of t" in said(capsys, "best", "--tag", "t")
    assert "now on the branch best/t" in said(capsys, "best", "--tag", "t", "--checkout")
