"""`autoresearch compare`: two campaigns side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nights import document, night, refused, said, typed
from repo import Repo

from pytest_autoresearch.cli.compare import sums_of
from pytest_autoresearch.core.conditions import differences
from pytest_autoresearch.core.experiment import Direction, Usage


def test_two_campaigns_stand_side_by_side(repo: Repo) -> None:
    night(repo)
    lines = typed("compare", "t", "u").splitlines()
    cells = {" ".join(line.split()[:-2]): line.split()[-2:] for line in lines[:13]}
    assert cells["val_bpb"] == ["t", "u"]
    assert cells["baseline"] == ["1.000000", "1.000000"]
    assert cells["best"] == ["0.850000", "1.000000"]
    assert cells["gain"] == ["+0.150000", "+0.000000"]
    assert cells["best after 1"] == ["0.900000", "1.000000"]
    assert cells["experiments"] == ["4", "1"]
    assert cells["kept"] == ["2", "0"]
    assert cells["discarded"] == ["1", "1"]
    assert cells["crashed"] == ["1", "0"]
    assert cells["acceptance"] == ["50.0%", "0.0%"]
    assert cells["cost"] == ["$0.00", "$0.00"]
    assert lines[-1] == ("The numbers are not comparable: the campaigns have different training seconds (300 and 5).")


def test_json_has_the_same_numbers(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    found = document(capsys, "compare", "t", "u", "--json")
    assert found["comparable"] is False
    assert found["differences"] == {"training seconds": ["300", "5"]}
    one, other = found["campaigns"]
    assert (one["tag"], one["keeps"], one["discards"], one["crashes"]) == ("t", 2, 1, 1)
    assert one["best_after"] == {"experiments": 1, "metric": 0.9}
    assert other["acceptance"] == 0.0
    assert 0 < one["hours"] < 1


def test_everything_that_forbids_a_comparison_is_named(repo: Repo) -> None:
    night(repo)
    one = repo.records("t")[0]
    setting = replace(one.setting, hardware_key="H100", data_hash="d", harness_hash="h")
    other = replace(one, setting=setting, metric_name="score", direction=Direction.MAXIMIZE)
    assert differences(one, one) == []
    found = [difference.what for difference in differences(one, other)]
    assert found == ["hardware", "harness", "data", "metric", "direction"]


def test_the_gain_is_positive_where_more_is_better_and_unknown_prices_are_not_nothing(repo: Repo) -> None:
    night(repo)
    records = [replace(one, direction=Direction.MAXIMIZE) for one in repo.records("t")]
    assert sums_of("t", records).gain == pytest.approx(-0.15)
    records[1] = replace(records[1], usage=Usage("some-model", 1, 10, 10, cost_usd=None))
    assert sums_of("t", records).cost_usd is None


def test_campaigns_that_compare_need_no_sentence(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    for ref in repo.git("for-each-ref", "--format=%(refname)", "refs/autoresearch/t/").split():
        repo.git("update-ref", ref.replace("/t/", "/v/"), ref)
    text = said(capsys, "compare", "t", "v")
    assert "compare" not in text
    assert "best after" not in text


def test_what_cannot_be_compared_is_refused(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    night(repo)
    assert "no campaign 'x'" in refused(capsys, "compare", "t", "x")
    assert "two different campaigns" in refused(capsys, "compare", "t", "t")


ONE_MORE = "name one more campaign of {}: for example, type `autoresearch compare {}`"


def test_the_campaigns_that_are_missing_are_named(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert "this repository has no campaign: run another one first" in refused(capsys, "compare")
    night(repo)
    assert ONE_MORE.format("u", "t u") in refused(capsys, "compare", "t")
    assert "name two campaigns of t, u: for example, type `autoresearch compare t u`" in refused(capsys, "compare")
    assert "3 campaigns are named: name two" in refused(capsys, "compare", "t", "u", "t")
    assert "no campaign 'x' in this repository; it has t, u" in refused(capsys, "compare", "x")
