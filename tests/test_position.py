"""Where a session is: which experiment of how many, how long it still takes, what it has cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from repo import Repo

from pytest_autoresearch.core.experiment import Experiment, Proposal
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.reports.position import Position, rough, seconds_of_an_experiment
from pytest_autoresearch.reports.summary import run_words

SCORE = "print('val_bpb: 1.0')"
TRAIN = "import os\nopen(os.environ['AUTORESEARCH_OUT'] + '/model.pt', 'w').close()\n"


def experiment(number: int, *seconds: float, **timings: float) -> Experiment:
    """One with runs of so many seconds, each with another metric."""
    runs = tuple(Run(seed, 1.0 + seed / 100, total_seconds=each) for seed, each in enumerate(seconds))
    runs = tuple(replace(run, role=Role.SCREEN if number else Role.BASELINE) for run in runs)
    return Experiment(number, "t", "c", "b", "e", Proposal("x"), runs=runs, timings=timings)


@pytest.mark.parametrize(
    ("position", "short", "sentence"),
    [
        (Position(0, 3), "0 of 3", "3 experiments to begin"),
        (Position(0, 1, 100.0), "0 of 1, about 2 min left", "1 experiment to begin, about 2 min left"),
        (Position(0, None), "0 so far", "no experiment yet"),
        (Position(3, 97, 22_900.0, 4.1), *["{}3 of 100, about 6 h 20 min left, $4.10 so far"] * 2),
        (Position(3, 0, 10.0), *["{}3 of 3, under a minute left"] * 2),
        (Position(12, None, None, 0.5), "12 so far, $0.50 so far", "experiment 12, $0.50 so far"),
    ],
)
def test_a_position_in_words(position: Position, short: str, sentence: str) -> None:
    assert str(position) == short.format("")
    assert position.sentence == sentence.format("experiment ")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "under a minute"), (49, "under a minute"), (50, "about 1 min"), (89, "about 1 min"), (240, "about 4 min"),
        (3_570, "about 1 h"), (3_700, "about 1 h"), (22_900, "about 6 h 20 min"), (28_700, "about 8 h"),
        (86_300, "about 24 h"), (111_000, "about 31 h"),
    ],
)  # fmt: skip
def test_a_rough_duration(seconds: float, said: str) -> None:
    assert rough(seconds) == said


def test_the_time_of_an_experiment_comes_from_the_last_ones_and_first_from_the_baseline() -> None:
    baseline = experiment(0, 20.0, 22.0, 18.0, 20.0, 20.0, run=100.0)
    assert seconds_of_an_experiment([]) is None
    assert seconds_of_an_experiment([baseline]) == 30.0  # one and a half runs
    assert seconds_of_an_experiment([experiment(0, 20.0, run=20.0)]) == 20.0  # one run decides
    exact = replace(baseline, runs=tuple(replace(run, metric=1.0) for run in baseline.runs))
    assert seconds_of_an_experiment([exact]) == 20.0  # the metric has no noise
    tried = [experiment(1, 20.0, run=20.0, propose=5.0, wait=60.0), experiment(2, 20.0, run=40.0)]
    assert seconds_of_an_experiment([baseline, *tried]) == 32.5
    many = [experiment(number, 10.0, run=10.0) for number in range(3, 23)]
    assert seconds_of_an_experiment([baseline, *tried, *many]) == 10.0


@pytest.mark.parametrize(
    ("name", "runs", "said"),
    [
        ("", 5, "baseline 1 of 5"), ("baseline-2", 5, "baseline 2 of 5"), ("", 1, ""),
        ("confirm-1", None, "confirming (1)"),
        ("baseline-2-again-1", 5, "baseline 2 of 5, repeated"), ("train-again-1", 1, "repeated"),
        ("merged-1-confirm-2", None, "confirming (2), on the new head"), ("merged-1-train", None, "on the new head"),
    ],
)  # fmt: skip
def test_a_run_in_words(name: str, runs: int | None, said: str) -> None:
    assert run_words(name, runs) == said


def times(repo: Repo, *arguments: str) -> list[str]:
    """What the header says about time."""
    return [line.partition("time:")[2].strip() for line in repo.run(*arguments).outlines if line.startswith("  time:")]


def test_the_header_says_that_the_baseline_runs_first_and_why(repo: Repo) -> None:
    repo.plan(1.5, 1.6, 1.7)
    standard = ("--autoresearch-confirm", "standard")
    assert times(repo, "--max", "1", *standard) == ["5 runs of the baseline first, to measure the noise"]
    assert times(repo, "--max", "2", *standard) in (["under a minute"], ["about 1 min"])
    assert times(repo, "--max", "0", *standard, "--autoresearch-hours", "7.99") == ["about 8 h"]


def test_the_header_of_a_harness_that_keeps_the_clock_says_how_long_it_takes(repo: Repo) -> None:
    repo.scored_by(SCORE, TRAIN, budget_seconds=15)
    said = times(repo, "--max", "3", "--autoresearch-confirm", "standard")
    assert said == ["5 runs of the baseline first, to measure the noise; about 3 min in all"]


def test_a_short_campaign_without_a_keep_says_that_this_is_usual(repo: Repo) -> None:
    repo.plan(1.5, 1.6)
    usual = "that is usual after {}, because most changes do not help"
    assert usual.format("1 experiment") in repo.run("--max", "1").outlines
    assert usual.format("2 experiments") in repo.run("--max", "1").outlines
