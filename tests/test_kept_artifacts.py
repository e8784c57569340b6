"""`--autoresearch-keep-artifacts`: the files of discards go first, and records never."""

from __future__ import annotations

import argparse

import pytest
from repo import Repo

from pytest_autoresearch.core.option_values import size

BIG = "do:print('x' * 99 + '\\n', end=''); block({metric})"  # a log of more than a hundred bytes


def folders(repo: Repo) -> list[str]:
    return sorted(path.name for path in (repo.path / "experiments/runs/t").iterdir() if path.name.isdecimal())


def test_files_of_discards_go_before_those_of_keeps_and_records_stay(repo: Repo) -> None:
    repo.plan(*(BIG.format(metric=metric) for metric in (1.5, 0.9, 1.6, 0.8, 1.7)))
    assert repo.run("--max", "2", "--autoresearch-keep-artifacts", "500MB").ret == 0
    assert folders(repo) == ["0000", "0001", "0002"]
    for number in ("0000", "0001", "0002"):
        (repo.path / "experiments/runs/t" / number / "model.pt").write_bytes(bytes(600_000))
    result = repo.run("--max", "1", "--autoresearch-keep-artifacts", "1.5MB")
    assert folders(repo) == ["0000", "0002", "0003"]
    result.stdout.fnmatch_lines(["*the files of 0001 were deleted (--autoresearch-keep-artifacts)*"])
    repo.run("--max", "2", "--autoresearch-keep-artifacts", "0.00001MB")
    assert folders(repo) == ["0005"]
    assert repo.statuses() == {0: "keep", 1: "discard", 2: "keep", 3: "discard", 4: "keep", 5: "discard"}
    repo.check_ledger()


def test_a_size_has_a_unit() -> None:
    assert [size(given) for given in ("500MB", "1.5 gb", "2TB")] == [500_000_000, 1_500_000_000, 2_000_000_000_000]
    for wrong in ("", "5", "GB", "-1GB", "5 apples"):
        with pytest.raises(argparse.ArgumentTypeError, match="500MB"):
            size(wrong)
