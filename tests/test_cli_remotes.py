"""`autoresearch push` and `pull`: a campaign goes from clone to clone by way of a bare repository."""

from __future__ import annotations

import copy
import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from repo import Repo

from pytest_autoresearch.cli import main, pull, push

pytestmark = pytest.mark.flow

COMMANDS = {"push": push, "pull": pull}  # imported here: pytester forgets what is first imported in a test


@pytest.fixture
def remote(repo: Repo, tmp_path: Path) -> Path:
    """A bare repository, the origin of `repo`, which has a plan for two experiments and its branch main there."""
    repo.plan("0.9", "0.8")
    path = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", path], check=True)
    repo.git("remote", "add", "origin", str(path))
    repo.git("push", "-q", "origin", "main")
    return path


def clone(repo: Repo, remote: Path) -> Repo:
    """A fresh clone in which the same plan can go on."""
    other = copy.copy(repo)
    other.path = remote.with_name("clone")
    subprocess.run(["git", "clone", "-q", remote, other.path], check=True)
    shutil.copy(repo.path / ".git" / "plan.json", other.path / ".git")
    other.git("config", "user.name", "Grace")
    other.git("config", "user.email", "grace@example.org")
    return other


def session(repo: Repo, count: int) -> None:
    """So many experiments more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo.path)
        result = repo.run("--max", str(count))
    assert result.ret == 0, result.stdout.str()


def refs(folder: Path) -> dict[str, str]:
    """Everything of the campaign in a repository."""
    command = [
        "git",
        "for-each-ref",
        "--format=%(refname) %(objectname)",
        "refs/autoresearch",
        "refs/heads/autoresearch",
    ]
    said = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=True).stdout
    return dict(row.split() for row in said.splitlines())


def on(repo: Repo, *arguments: str) -> int:
    """The exit status of `autoresearch …` there."""
    return main(["-C", str(repo.path), *arguments])


def test_a_campaign_goes_on_in_a_fresh_clone_and_comes_back(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.plan("0.9", "1.2", "0.8", "0.7")
    session(repo, 2)
    assert on(repo, "push") == 0
    assert "pushed 0000 to 0002 of campaign t, and the branch autoresearch/t (" in capsys.readouterr().out
    assert refs(remote) == refs(repo.path)

    other = clone(repo, remote)
    assert on(other, "pull") == 0
    said = capsys.readouterr().out
    assert "pulled 0000 to 0002 of campaign t" in said
    assert "continue with: pytest --autoresearch --autoresearch-tag t" in said
    assert refs(other.path) == refs(repo.path)
    session(other, 2)
    assert other.statuses() == {0: "keep", 1: "keep", 2: "discard", 3: "keep", 4: "keep"}
    other.check_ledger()
    assert on(other, "push", "origin", "--tag", "t") == 0
    assert "pushed 0003 and 0004 of campaign t" in capsys.readouterr().out

    assert on(repo, "pull") == 0
    assert "pulled 0003 and 0004 of campaign t" in capsys.readouterr().out
    assert refs(repo.path) == refs(other.path) == refs(remote)
    assert repo.statuses() == other.statuses()


def test_a_second_push_and_pull_have_nothing_to_do(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(repo, 1)
    on(repo, "push")
    capsys.readouterr()
    before = refs(remote)
    assert on(repo, "push") == 0
    assert capsys.readouterr().out == "origin already has all of campaign t\n"
    assert on(repo, "pull") == 0
    assert "all of campaign t from origin is already here" in capsys.readouterr().out
    assert refs(remote) == refs(repo.path) == before


def test_json_says_what_was_brought_over(repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session(repo, 1)
    capsys.readouterr()
    assert on(repo, "push", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "tag": "t",
        "remote": "origin",
        "records": ["0000", "0001"],
        "branch": "autoresearch/t",
        "commit": repo.head(),
        "advanced": True,
    }


def test_two_that_took_the_same_number_are_both_left_as_they_are(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(repo, 1)
    on(repo, "push")
    other = clone(repo, remote)
    on(other, "pull")
    session(repo, 1)
    session(other, 1)
    on(repo, "push")
    capsys.readouterr()
    at_remote, here = refs(remote), refs(other.path)
    for verb in COMMANDS:
        assert on(other, verb) == 2
        said = capsys.readouterr().err
        name = "refs/autoresearch/t/0002"
        assert f"experiment 0002 of campaign t is {here[name][:7]} here and {at_remote[name][:7]} at origin" in said
        assert f"nothing was {verb}ed" in said
        assert said.count("\n") == 1
    assert refs(remote) == at_remote
    assert refs(other.path) == here


def test_a_remote_whose_branch_moved_on_is_pulled_from_first(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(repo, 1)
    on(repo, "push")
    other = clone(repo, remote)
    on(other, "pull")
    session(repo, 1)
    on(repo, "push")
    capsys.readouterr()
    before = refs(remote)
    assert on(other, "push") == 2
    assert "nothing was pushed: type `autoresearch pull origin --tag t` first" in capsys.readouterr().err
    assert refs(remote) == before
    assert on(other, "pull") == 0
    assert on(other, "push") == 0
    assert refs(other.path) == before


def test_what_is_ahead_here_is_not_moved_backwards(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(repo, 1)
    on(repo, "push")
    session(repo, 1)
    before = refs(repo.path)
    assert on(repo, "pull") == 0
    assert "is already here" in capsys.readouterr().out
    assert refs(repo.path) == before


def test_a_branch_that_leads_elsewhere_is_left_alone(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(repo, 1)
    on(repo, "push")
    other = clone(repo, remote)
    on(other, "pull")
    session(repo, 1)
    on(repo, "push")
    mine = other.git("commit-tree", "HEAD^{tree}", "-p", other.head(), "-m", "by hand")
    other.git("update-ref", "refs/heads/autoresearch/t", mine)
    before = refs(other.path)
    assert on(other, "pull") == 2
    assert "they have diverged, so nothing was pulled" in capsys.readouterr().err
    assert refs(other.path) == before


def test_a_branch_that_is_checked_out_is_not_moved_under_its_files(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session(repo, 1)
    on(repo, "push")
    other = clone(repo, remote)
    on(other, "pull")
    other.git("switch", "-q", "autoresearch/t")
    session(repo, 1)
    on(repo, "push")
    before = refs(other.path)
    assert on(other, "pull") == 2
    assert "switch --detach` first" in capsys.readouterr().err
    assert refs(other.path) == before


def test_nothing_is_pulled_while_a_session_runs(repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session(repo, 1)
    on(repo, "push")
    with (repo.path / ".git" / "autoresearch" / "campaign-t.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)  # as a session does
        assert on(repo, "pull") == 2
    assert "a session of the campaign t runs here" in capsys.readouterr().err


def test_a_remote_that_refuses_has_nothing_of_it(repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session(repo, 1)
    hook = remote / "hooks" / "update"
    hook.write_text('#!/bin/sh\ncase "$1" in *0001) echo "no more records today" >&2; exit 1;; esac\n')
    hook.chmod(0o755)
    assert on(repo, "push") == 2
    said = capsys.readouterr().err
    assert "origin refused it, and nothing was pushed: " in said
    assert said.count("\n") == 1
    assert refs(remote) == {}


def test_a_candidate_that_waits_here_and_there_stops_nothing(repo: Repo, remote: Path) -> None:
    session(repo, 1)
    record, baseline = (repo.git("rev-parse", f"refs/autoresearch/t/{name}") for name in ("0001", "0000"))
    repo.git("update-ref", "refs/autoresearch/t/waiting/abc", record)
    on(repo, "push")
    other = clone(repo, remote)
    on(other, "pull")
    assert refs(other.path) == refs(remote) == refs(repo.path)
    other.git("update-ref", "refs/autoresearch/t/waiting/abc", baseline)
    session(other, 1)
    assert on(other, "push") == 0
    assert on(other, "pull") == 0
    assert refs(remote)["refs/autoresearch/t/waiting/abc"] == record
    assert "refs/autoresearch/t/0002" in refs(remote)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("push",), "this repository has no remote: type `git remote add origin URL` first"),
        (("pull",), "this repository has no remote: type `git remote add origin URL` first"),
        (("push", "backup"), "there is no remote 'backup'; there is none"),
        (
            ("push", "file://ada:secret@nowhere/"),
            "file://nowhere/ cannot be reached: '/' does not appear to be a git repository",
        ),
        (("push", "./nowhere"), "./nowhere cannot be reached: './nowhere' does not appear to be a git repository"),
    ],
)
def test_without_a_remote_one_sentence_says_so(
    repo: Repo, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    repo.plan("0.9")
    session(repo, 1)
    assert on(repo, *arguments) == 2
    assert capsys.readouterr().err == f"autoresearch {arguments[0]}: {sentence}\n"


def test_which_campaign_is_pulled_is_asked_where_it_is_not_clear(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = clone(repo, remote)
    assert on(other, "pull") == 2
    assert "origin has no campaign: `autoresearch push` sends one there" in capsys.readouterr().err
    session(repo, 1)
    on(repo, "push")
    record = refs(repo.path)["refs/autoresearch/t/0000"]
    subprocess.run(["git", "update-ref", "refs/autoresearch/u/0000", record], cwd=remote, check=True)
    capsys.readouterr()
    assert on(other, "pull") == 2
    assert "origin has several campaigns: name one of t, u with --tag" in capsys.readouterr().err
    assert on(other, "pull", "--tag", "v") == 2
    assert "origin has no campaign 'v'; it has t, u" in capsys.readouterr().err
    assert on(other, "pull", "--tag", "t") == 0


def test_a_clone_of_a_remote_that_got_the_campaign_alone_is_told_what_to_check_out(
    repo: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.plan("0.9")
    session(repo, 1)
    bare = tmp_path / "alone.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
    assert on(repo, "push", str(bare)) == 0
    other = clone(repo, bare)
    for words in (["pull"], ["results"], ["watch"]):
        capsys.readouterr()
        assert on(other, *words) == 2
        said = capsys.readouterr().err
        assert "type `git switch -c main origin/autoresearch/t` first" in said
        assert "baseline" not in said
    other.git("switch", "-q", "-c", "main", "origin/autoresearch/t")
    assert on(other, "pull") == 0
    assert refs(other.path) == refs(repo.path)


def test_an_empty_repository_with_a_remote_is_not_told_to_begin_a_history_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "remote", "add", "night", "../night.git"], cwd=tmp_path, check=True)
    assert main(["-C", str(tmp_path), "pull"]) == 2
    assert "type `git fetch night` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("results",), ("best",), ("show", "1"), ("report",), ("push",), ("compare", "t", "u")]
)
def test_a_fresh_clone_with_the_branch_alone_is_told_to_pull(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    repo.git("push", "-q", "origin", "main:autoresearch/t")
    other = clone(repo, remote)
    assert main(["-C", str(other.path), *words]) == 2
    said = capsys.readouterr().err
    more = " --tag t" if words[0] == "compare" else ""
    assert f"but origin has autoresearch/t: type `autoresearch pull{more}` to fetch the records\n" in said


def test_what_is_told_to_be_typed_names_remote_and_campaign_where_they_are_not_clear(
    repo: Repo, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tag in ("t", "u"):
        repo.git("push", "-q", "origin", f"main:autoresearch/{tag}")
    other = clone(repo, remote)
    assert main(["-C", str(other.path), "results"]) == 2
    assert "autoresearch/t, autoresearch/u: type `autoresearch pull --tag t`" in capsys.readouterr().err
    other.git("remote", "rename", "origin", "lab")
    assert main(["-C", str(other.path), "results", "--tag", "u"]) == 2
    said = capsys.readouterr().err
    assert (
        "no campaign 'u' in this repository, but lab has autoresearch/u: type `autoresearch pull lab --tag u`" in said
    )
    assert main(["-C", str(other.path), "results", "--tag", "v"]) == 2
    assert "there is no campaign 'v' in this repository; it has none" in capsys.readouterr().err
