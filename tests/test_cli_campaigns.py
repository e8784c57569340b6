"""`autoresearch campaigns`: the list, and a campaign that is deleted and brought back."""

from __future__ import annotations

import shlex

import pytest
from nights import document, night, refused, typed
from repo import Repo


def refs(repo: Repo) -> str:
    return repo.git("for-each-ref", "refs/autoresearch", "refs/heads/autoresearch")


def test_each_campaign_is_a_row_the_last_one_first(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    lines = typed("campaigns").splitlines()
    assert [line.split()[0] for line in lines] == ["campaign", "u", "t"]
    assert lines[2].split()[1:6] == [
        repo.git("rev-parse", "--short=7", "autoresearch/t"),
        "4",
        "2",
        "0.850000",
        "val_bpb",
    ]
    found = document(capsys, "campaigns", "--json")
    assert [(one["tag"], one["experiments"], one["kept"], one["pid"]) for one in found] == [
        ("u", 1, 0, None),
        ("t", 4, 2, None),
    ]


def test_no_campaign_is_one_sentence_and_status_1(repo: Repo) -> None:
    assert "pytest --autoresearch" in typed("campaigns", status=1)


def test_a_deleted_campaign_comes_back_with_the_printed_command(repo: Repo) -> None:
    night(repo)
    before = refs(repo)
    said = typed("campaigns", "--delete", "t", "--yes")
    assert "5 records" in said
    assert "/t" not in refs(repo)
    assert [line.split()[0] for line in typed("campaigns").splitlines()[1:]] == ["u"]
    repo.git("gc", "--quiet", "--prune=now")
    command = said.splitlines()[-1].partition(": ")[2]
    repo.git(*shlex.split(command)[1:])
    assert refs(repo) == before
    assert repo.statuses()[1] == "keep"
    repo.git("fsck", "--strict")


def test_nothing_is_deleted_without_the_tag(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    before = refs(repo)
    assert "add --yes" in refused(capsys, "campaigns", "--delete", "t")
    assert "no campaign 'x'" in refused(capsys, "campaigns", "--delete", "x", "--yes")
    repo.git("checkout", "-q", "autoresearch/t")
    assert "checked out" in refused(capsys, "campaigns", "--delete", "t", "--yes")
    assert refs(repo) == before
