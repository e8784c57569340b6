"""Whole campaigns: what is kept, what is not, and what is left behind."""

from __future__ import annotations

from repo import Repo


def test_each_outcome_is_a_report_a_row_and_a_ref(repo: Repo) -> None:
    repo.plan(1.5, "crash", 0.9)
    result = repo.run("--max", "3")
    print(result.stdout.str(), result.stderr.str())
    result.assert_outcomes(passed=2, failed=1, errors=1)
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "crash", 3: "keep"}
    repo.check_ledger()
    assert result.ret == 0
