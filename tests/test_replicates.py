"""What a campaign knows of commits that were run more than once, and how far its keeps can be believed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from places import attempt, judged

from pytest_autoresearch.core.experiment import Decision, Experiment, Reason, Status, Verdict
from pytest_autoresearch.core.run import Role, Run
from pytest_autoresearch.keeprule import replicates
from pytest_autoresearch.keeprule.blocks import Block, Observation
from pytest_autoresearch.keeprule.noise import NO_PRIOR, VAL_BPB_ON_A_GPU
from pytest_autoresearch.keeprule.rule import kept_by_chance
from pytest_autoresearch.keeprule.verdict import kept
from pytest_autoresearch.reports.summary import kept_text


def record(number: int, *runs: Run, **fields: object) -> Experiment:
    return replace(judged(attempt(number)), runs=runs, **fields)  # type: ignore[arg-type]


def test_a_run_that_chose_or_that_was_disturbed_is_no_replicate() -> None:
    one = record(
        1, Run(42, 1.0, role=Role.SCREEN), Run(43, 2.0, role=Role.CONFIRM),
        Run(44, 9.0, role=Role.CONFIRM, inconclusive="hot"), Run(44, 3.0, role=Role.CONFIRM),
    )  # fmt: skip
    assert replicates.samples([one])[one.commit].mean == 2.5


def test_an_observation_is_any_run_that_counts_and_one_that_chose_counts_half() -> None:
    one = record(
        1, Run(42, 1.0, role=Role.SCREEN, block="a"), Run(43, 2.0, role=Role.CONFIRM, block="a"),
        Run(44, 9.0, role=Role.CONFIRM, inconclusive="hot"), Run(44, None, role=Role.CONFIRM),
        Run(45, math.inf, role=Role.CONFIRM), Run(43, 2.5, role=Role.INCUMBENT, commit="b" * 40),
    )  # fmt: skip
    again = record(2, Run(43, 7.0, role=Role.INCUMBENT, commit=one.commit, block="a"))  # another lane ran it, too
    later = record(3, Run(43, 2.2, role=Role.INCUMBENT, commit=one.commit, block="b"))
    assert replicates.observations([one, again, later]) == [
        Observation(one.commit, Block(42, "a"), 1.0, 0.5), Observation(one.commit, Block(43, "a"), 2.0),
        Observation("b" * 40, Block(43), 2.5), Observation(one.commit, Block(43, "b"), 2.2),
    ]  # fmt: skip


def test_a_session_that_follows_soon_goes_on_in_the_same_time() -> None:
    last = record(1, Run(42, 1.0, block="a"), finished_at=1000.0)
    assert replicates.time_of([last, record(0, Run(42, 1.0, block="b"), finished_at=10.0)], 1060.0) == "a"
    assert replicates.time_of([last], 1000.0 + 3600) == ""
    assert replicates.time_of([last], 900.0) == ""  # the clock was set back
    assert replicates.time_of([], 1000.0) == replicates.time_of([record(1, finished_at=999.0)], 1000.0) == ""


def test_a_new_incumbent_is_due_for_a_run_until_it_has_one() -> None:
    head = record(1, Run(42, 1.0), Run(43, 1.0, role=Role.CONFIRM))
    assert replicates.is_due(head, [head])
    assert not replicates.is_due(head, [head, record(2, Run(44, 1.0, role=Role.INCUMBENT, commit=head.commit))])
    assert not replicates.is_due(record(0), [record(0)])


def test_one_seed_of_one_commit_counts_once_though_two_lanes_ran_it() -> None:
    head = record(1, Run(43, 2.0, role=Role.CONFIRM))
    others = [record(n, Run(44, metric, role=Role.INCUMBENT, commit=head.commit)) for n, metric in ((2, 2.1), (3, 2.2))]
    assert replicates.samples([head, *others])[head.commit].runs == 2


def test_what_a_proposer_is_shown_is_in_steps_of_half_a_deviation_with_one_digit() -> None:
    baseline = record(0, *(Run(42 + k, metric, role=Role.BASELINE) for k, metric in enumerate((0.98, 0.9804, 0.9808))))
    assert replicates.resolution(baseline, NO_PRIOR) == 0.0002
    assert replicates.resolution(baseline, VAL_BPB_ON_A_GPU) == 0.0003
    assert replicates.resolution(None, VAL_BPB_ON_A_GPU) == 0.0
    exact = record(0, *(Run(42 + k, 0.98, role=Role.BASELINE) for k in range(5)))
    assert replicates.resolution(exact, NO_PRIOR) == 0.0


def test_luck_is_what_the_keeps_leave_open_and_what_chance_alone_would_keep() -> None:
    first = record(0, verdict=Verdict(Status.KEEP, "baseline", ""))
    kept = record(
        1, base=first.commit, commit="b" * 40, decision=Decision(rule="standard", probability=0.9),
        verdict=Verdict(Status.KEEP, "improved", ""),
    )  # fmt: skip
    simpler = record(
        2, base=kept.commit, commit="c" * 40,
        decision=Decision(rule="standard", probability=0.2, decided=Reason.SIMPLER),
        verdict=Verdict(Status.KEEP, "simpler", ""),
    )  # fmt: skip
    lost = [
        record(n, decision=Decision(rule="standard"), verdict=Verdict(Status.DISCARD, "regression", ""))
        for n in range(3, 101)
    ]
    known = replicates.luck([first, kept, simpler, *lost])
    assert known.nothing == pytest.approx(0.1)
    assert (known.chance, known.tried) == (pytest.approx(100 * kept_by_chance("standard")), 100)
    assert replicates.luck([first]).nothing is None


@pytest.mark.parametrize(
    ("probabilities", "text"),
    [
        ((0.99,), "1 kept, probably not by luck"),
        ((0.99, 0.98), "2 kept; probably none of them is luck"),
        ((0.8, 0.7, 0.6), "3 kept; about 1 of them is probably luck"),
        ((0.6,) * 6, "6 kept; about 2 of them are probably luck"),
        ((None,), "1 kept, each measured once: part of the gain may be luck"),
    ],
)
def test_the_summary_says_how_many_keeps_are_probably_luck(probabilities: tuple[float | None, ...], text: str) -> None:
    noisy = record(0, Run(42, 0.98, role="baseline"), Run(43, 0.99, role="baseline"))
    assert kept_text(line_of(noisy, *probabilities)) == text


def test_luck_is_no_subject_where_the_metric_has_no_noise() -> None:
    exact = record(0, *(Run(42 + k, 0.98, role=Role.BASELINE) for k in range(5)))
    assert kept_text(line_of(exact, 0.5, 0.5)) == "2 kept"


def test_a_metric_that_is_the_same_on_all_seeds_is_said_to_be_so() -> None:
    exact = record(0, *(Run(42 + k, 0.98, role=Role.BASELINE) for k in range(5)))
    assert kept(exact).message == "val_bpb 0.980000, deterministic, or AUTORESEARCH_SEED is not read"
    assert kept(record(0, Run(42, 0.98, role=Role.BASELINE))).message == "val_bpb 0.980000"


def line_of(first: Experiment, *probabilities: float | None) -> list[Experiment]:
    """The baseline, and one keep for each probability."""
    line = [replace(first, verdict=Verdict(Status.KEEP, "baseline", ""))]
    for n, probability in enumerate(probabilities, 1):
        keep = record(
            n, base=line[-1].commit, commit=f"{n:040x}", decision=Decision(rule="standard", probability=probability),
            verdict=Verdict(Status.KEEP, "improved", ""),
        )  # fmt: skip
        line.append(keep)
    return line
