"""What the page says of a verdict: the numbers of the record, and no more than they show."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest

from pytest_autoresearch.core.experiment import Decision, Direction, Experiment, Proposal, Reason, Status, Verdict
from pytest_autoresearch.core.run import Crash, CrashClass, Role, Run
from pytest_autoresearch.keeprule import verdict
from pytest_autoresearch.keeprule.noise import NO_PRIOR, VAL_BPB_ON_A_GPU
from pytest_autoresearch.keeprule.rule import OFF, STANDARD, Rule
from pytest_autoresearch.measure import confirm
from pytest_autoresearch.measure.confirm import RunOnce, Wanted
from pytest_autoresearch.reports.page.sentence import number, sentence
from pytest_autoresearch.reports.points import decimals, limits, noise_of, points

LIKE = Experiment(0, "t", "a", "a", "t", Proposal("baseline"))


def run(*metrics: float) -> RunOnce:
    """A runner that gives these metrics in turn."""
    left = list(metrics)

    def once(wanted: Wanted, next_ones: Iterable[Wanted] = ()) -> tuple[Run, ...]:
        commit = wanted.commit if wanted.role is Role.INCUMBENT else ""
        return (Run(wanted.seed, left.pop(0), role=wanted.role, commit=commit),)

    return once


def baseline(*metrics: float, **more: object) -> Experiment:
    like = replace(LIKE, **more)  # type: ignore[arg-type]
    once, seeds = run(*metrics), iter(range(42, 99))

    def several(count: int) -> tuple[Run, ...]:
        return sum((once(Wanted(like.commit, next(seeds), Role.BASELINE), ()) for _ in range(count)), ())

    made = confirm.baseline(like, STANDARD, VAL_BPB_ON_A_GPU, several)
    return made.judged(verdict.kept(made), 1.0)


def tried(first: Experiment, *metrics: float, rule: Rule = STANDARD, assertion: str = "") -> Experiment:
    """A candidate with these metrics beside the baseline, judged by the rule."""
    like = replace(first, number=1, commit="b", base="a", runs=(), verdict=None)
    prior = VAL_BPB_ON_A_GPU if rule.looks else NO_PRIOR
    made = confirm.candidate(like, first, [first], rule, prior, run(*metrics), lambda: 99)
    won = made.gain > made.margin and not assertion
    return made.judged(verdict.kept(made) if won else verdict.discarded(made, assertion), 2.0)


def test_a_baseline_says_its_spread() -> None:
    said = sentence(baseline(1.0, 1.001, 0.999), 5)
    assert said == (
        "The baseline: val_bpb 1.00000, the mean of 3 runs on different seeds. The standard deviation of one run is "
        "0.00100 (2 degrees of freedom)."
    )
    assert "in each of 3 runs: deterministic, or AUTORESEARCH_SEED is not read." in sentence(baseline(1.0, 1.0, 1.0), 5)
    once = replace(LIKE, runs=(Run(1, 1.0),), verdict=Verdict(Status.KEEP, "", ""))
    assert "The noise was not measured" in sentence(once, 2)


def test_a_keep_says_how_sure_it_is_and_that_it_was_selected() -> None:
    kept = tried(baseline(1.0, 1.0005, 0.9995), 0.99, 0.992)
    assert kept.verdict is not None
    assert kept.verdict.status is Status.KEEP
    said = sentence(kept, 4)
    assert said.startswith(
        "Kept. 2 runs on different seeds (the first has half weight, because that run selected the change) put val_bpb "
        "at 0.9913, 0.0087 better than the best so far (1.0000)."
    )
    assert f"the probability that it is truly better is {kept.decision.probability:.4f}"[:-2] in said
    assert f"the rule required a gain above {kept.margin:.4f}" in said
    assert "an audit measures it again" in said


def test_a_keep_of_one_run_claims_no_probability() -> None:
    said = sentence(tried(baseline(1.0, 1.1, 0.9), 0.5, rule=OFF), 3)
    assert said.startswith("Kept. One run gave val_bpb 0.500, 0.500 better than the best so far (1.000).")
    assert "one run cannot tell a gain from a lucky seed" in said


def test_a_first_run_that_is_not_better_ends_it() -> None:
    said = sentence(tried(baseline(1.0, 1.0005, 0.9995), 1.01), 3)
    assert said.startswith("Discarded. One run gave val_bpb 1.010, 0.010 worse than the best so far (1.000).")
    assert "it was not run again" in said


def test_within_noise_is_not_said_to_be_no_effect() -> None:
    said = sentence(tried(baseline(1.0, 1.0005, 0.9995), 0.9999, 1.001), 5)
    assert "This does not show that the change has no effect" in said
    assert "The probability that it is better is 0." in said


def test_a_test_that_said_no_is_quoted() -> None:
    said = sentence(tried(baseline(1.0, 1.0005, 0.9995), 0.99, 0.99, assertion="peak_memory_mb is 90000"), 4)
    assert said.startswith("Discarded. 2 runs")
    assert said.endswith("peak_memory_mb is 90000.")


def test_crashes_and_refusals_have_no_number() -> None:
    crash = Crash(CrashClass.OOM, "CUDA out of memory\nat line 3")
    crashed = replace(LIKE, number=1, runs=(Run(1, None, crash=crash),)).judged(verdict.crashed(crash), 1.0)
    assert sentence(crashed, 4) == "Crashed (oom), so there is no metric to judge. CUDA out of memory at line 3."
    refusal = Crash(CrashClass.REFUSED, "it changes nothing")
    refused = replace(LIKE, number=2, refusal=refusal).judged(verdict.crashed(refusal), 1.0)
    assert sentence(refused, 4) == "Refused before any run (refused). It changes nothing."


def test_a_run_that_was_ended_early_leaves_no_number_but_says_what_runs_before_it_gave() -> None:
    first = baseline(1.0, 1.0005, 0.9995)
    screen = Run(1, 0.99, role=Role.SCREEN)
    for seconds, saved in ((100.0, ", which saved 200 s"), (300.0, "")):
        ended = Run(2, None, role=Role.CONFIRM, training_seconds=seconds, hopeless="its loss was far behind")
        record = replace(
            first, number=1, commit="b", base="a", runs=(screen, ended), decision=Decision(1.0, decided=Reason.HOPELESS)
        )
        said = sentence(record.judged(verdict.stopped(record), 2.0), 3)
        assert said.startswith("Stopped early. Its loss was far behind.")
        assert f"{seconds:.0f} of 300 training seconds{saved}. There is no final metric" in said
        assert said.endswith("Earlier runs of it gave 0.990.")
        assert "nan" not in said


def test_a_metric_to_maximize_is_better_when_higher() -> None:
    first = baseline(10.0, 10.1, 9.9, direction=Direction.MAXIMIZE)
    assert "5.0 better than the best so far" in sentence(tried(first, 15.0, 15.0), 1)
    assert "1.1 worse than the best so far (10.1)" in sentence(tried(first, 9.0), 1)


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.97, 5, "0.97000"), (1.5e-7, 5, "less than 0.00001"), (3e12, 2, "3e+12"), (math.inf, 3, "inf"),
        (0.0, 2, "0.00"), (1234567.0, 0, "1234567"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_long_as_they_mean_something(value: float, places: int, text: str) -> None:
    assert number(value, places) == text


def test_decimals_follow_the_noise() -> None:
    quiet, loud = [baseline(1.0, 1.0001, 0.9999)], [baseline(100.0, 110.0, 90.0)]
    assert decimals(quiet, noise_of(quiet)) == 5
    assert decimals(loud, noise_of(loud)) == 0
    exact = [baseline(0.5, 0.5, 0.5)]
    assert decimals(exact, noise_of(exact)) == 6


def test_the_best_so_far_follows_what_it_was_measured_as_later() -> None:
    first = baseline(1.0, 1.0005, 0.9995)
    kept = tried(first, 0.98, 0.98)
    again = tuple(Run(run.seed, 1.0 - 0.01, role=Role.INCUMBENT, commit="b") for run in first.runs[:1])
    later = replace(kept, number=2, commit="c", base="b", runs=again, decision=Decision(0.985)).judged(
        Verdict(Status.DISCARD, "", ""), 3.0
    )
    best = [point.best for point in points([first, kept, later])]
    assert best[0] == 1.0
    assert best[1] == best[2]
    assert 0.98 < best[1] < 0.99  # type: ignore[operator]


def test_error_bars_stand_where_there_are_repeats() -> None:
    first = baseline(1.0, 1.001, 0.999)
    shown = points([first, tried(first, 1.5)])
    assert shown[0].error == pytest.approx(0.001 / math.sqrt(3))
    assert shown[1].error is None


def test_results_far_off_do_not_flatten_the_rest() -> None:
    first = baseline(1.0, 1.001, 0.999)
    many = [replace(tried(first, 1.01 + number / 1000), number=number) for number in range(1, 30)]
    low, high = limits(points([first, *many, replace(tried(first, 500.0), number=30)]), Direction.MINIMIZE)
    assert low < 1.0
    assert 1.03 < high < 2.0
