"""The keep rule's numbers and words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from places import attempt

from pytest_autoresearch.core.experiment import Decision, Direction, Experiment, Status, Verdict
from pytest_autoresearch.core.run import Crash, CrashClass, Run
from pytest_autoresearch.keeprule import verdict
from pytest_autoresearch.session.measured import Measured

quick = settings(deadline=None)
METRICS = st.floats(-1e6, 1e6).map(lambda metric: metric + 0.0)  # no negative zero: it is printed with its sign
ANY_METRIC = st.floats()


def measured(
    metric: float | None, incumbent: float | None = 1.0, direction: Direction = Direction.MINIMIZE
) -> Experiment:
    return attempt(runs=(Run(42, metric),), decision=Decision(incumbent), direction=direction)


def mirrored(experiment: Experiment) -> Experiment:
    """The same experiment where more is better."""
    runs = tuple(replace(run, metric=None if run.metric is None else -run.metric) for run in experiment.runs)
    decision = Decision(None if experiment.decision.best is None else -experiment.decision.best)
    return replace(experiment, runs=runs, decision=decision, direction=Direction.MAXIMIZE)


def same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


RULINGS = [
    verdict.kept,
    lambda experiment: verdict.discarded(experiment, "assert 1 < 0"),
    lambda experiment: verdict.undecided(experiment, "skip", "no GPU"),
    lambda experiment: verdict.veto(experiment, None),
]


@quick
@given(ANY_METRIC, st.none() | ANY_METRIC, st.sampled_from(RULINGS))
def test_a_metric_to_be_maximised_is_judged_as_its_mirror_image(metric, incumbent, ruling) -> None:  # type: ignore[no-untyped-def]
    less = measured(metric, incumbent)
    more = mirrored(less)
    assert same(less.gain, more.gain)
    one, other = ruling(less), ruling(more)
    assert (one is None) == (other is None)
    if one is not None:
        assert (one.status, one.reason) == (other.status, other.reason)
        assert same(one.gain, other.gain)


@quick
@given(METRICS, METRICS)
def test_a_gain_is_positive_when_and_only_when_the_metric_is_better(metric: float, best: float) -> None:
    assert (measured(metric, best).gain > 0) == (metric < best)
    assert (measured(metric, best, Direction.MAXIMIZE).gain > 0) == (metric > best)


@quick
@given(METRICS, st.sampled_from(Direction))
def test_every_finite_baseline_improves_on_nothing(metric: float, direction: Direction) -> None:
    first = replace(measured(metric, None, direction), number=0)
    assert first.gain > first.margin
    assert verdict.veto(first, None) is None
    assert verdict.kept(first) == Verdict(Status.KEEP, "baseline", f"val_bpb {metric:.6f}")


@quick
@given(st.lists(st.none() | METRICS, max_size=5))
def test_the_estimate_is_the_mean_of_the_runs_that_have_a_metric(metrics: list[float | None]) -> None:
    experiment = attempt(runs=tuple(Run(42, metric) for metric in metrics))
    values = [metric for metric in metrics if metric is not None]
    if not values:
        assert math.isnan(experiment.metric)
        return
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= experiment.metric <= max(values) + slack
    assert Measured(experiment).val_bpb == experiment.metric


def test_a_number_whose_name_is_no_python_name_is_read_by_it() -> None:
    printed = {"recall@1": 0.5, "total_µs": 12.0, "f1-score": 0.25}
    measured_one = Measured(attempt(runs=(Run(42, 1.0, metrics=printed),)))
    assert [measured_one[name] for name in printed] == [0.5, 12.0, 0.25]
    assert measured_one["val_bpb"] == 1.0
    assert measured_one.total_µs == 12.0  # Python reads this name with a Greek letter
    with pytest.raises(KeyError, match="the run printed no 'recall@5'"):
        measured_one["recall@5"]


# ------------------------------------------------------------------------------------------------------------ veto


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("direction", list(Direction))
def test_what_is_not_finite_is_never_kept(metric: float | None, direction: Direction) -> None:
    given_up = verdict.veto(measured(metric, 1.0, direction), "b" * 40)
    assert given_up is not None
    assert (given_up.status, given_up.reason) == (Status.DISCARD, "not-finite")
    assert "val_bpb is" in given_up.message


def test_a_result_on_another_base_is_never_kept() -> None:
    assert verdict.veto(measured(0.9), "b" * 40) is None
    stale = verdict.veto(measured(0.9), "e" * 40)
    assert stale is not None
    assert (stale.status, stale.reason) == (Status.DISCARD, "stale")
    assert stale.message == "measured on bbbbbbb, but the branch is at eeeeeee now: it will be measured again"
    assert stale.gain == pytest.approx(0.1)


@quick
@given(ANY_METRIC, st.none() | ANY_METRIC, st.none() | st.sampled_from(["b" * 40, "e" * 40]))
def test_a_veto_only_ever_discards(metric: float, incumbent: float | None, head: str | None) -> None:
    given_up = verdict.veto(measured(metric, incumbent), head)
    assert given_up is None or given_up.status is Status.DISCARD
    assert (given_up is None) == (math.isfinite(metric) and head != "e" * 40)


# ----------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (0.9, "keep: val_bpb 0.900000, best 1.000000 (-0.100000)"),
        (1.0, "keep: val_bpb 1.000000, best 1.000000 (+0.000000)"),
        (1.25, "keep: val_bpb 1.250000, best 1.000000 (+0.250000)"),
    ],
)
def test_the_message_of_a_keep_begins_with_the_verdict_and_the_numbers(metric: float, said: str) -> None:
    kept = verdict.kept(measured(metric))
    assert str(kept) == said
    assert kept.reason == ("improved" if metric < 1 else "accepted")


def test_a_discard_that_did_not_improve_says_so_and_no_more() -> None:
    lost = verdict.discarded(measured(1.1), "assert 1.1 < 1.0")
    assert str(lost) == "discard: val_bpb 1.100000, best 1.000000 (+0.100000)"
    assert lost.reason == "not-improved"
    assert lost.gain == pytest.approx(-0.1)


def test_a_discard_that_improved_names_the_assertion_that_stood_against_it() -> None:
    lost = verdict.discarded(measured(0.9), "assert 9000 < 8000")
    assert str(lost) == "discard: val_bpb 0.900000, best 1.000000 (-0.100000); assert 9000 < 8000"
    assert lost.reason == "assertion"


@pytest.mark.parametrize("word", ["skip", "xfail", "xpass"])
def test_a_test_that_did_not_decide_is_a_discard_with_its_reason(word: str) -> None:
    lost = verdict.undecided(measured(0.9), word, "no GPU here")
    assert (lost.status, lost.reason) == (Status.DISCARD, word)
    assert str(lost) == f"discard: val_bpb 0.900000, best 1.000000 (-0.100000); {word}: no GPU here"


def test_a_crash_says_its_class_and_its_sentence() -> None:
    lost = verdict.crashed(Crash(CrashClass.OOM, "CUDA out of memory"))
    assert str(lost) == "crash: oom: CUDA out of memory"
    assert (lost.reason, lost.gain) == ("oom", None)


@quick
@given(ANY_METRIC, st.none() | ANY_METRIC, st.text(max_size=20))
def test_every_message_begins_with_the_verdict_and_the_metric(metric: float, best: float | None, said: str) -> None:
    experiment = measured(metric, best)
    for ruling in (
        verdict.kept(experiment), verdict.discarded(experiment, said), verdict.undecided(experiment, "skip", said)
    ):  # fmt: skip
        assert str(ruling).startswith(f"{ruling.status}: val_bpb {experiment.metric:.6f}")


@quick
@given(METRICS, METRICS)
def test_a_gain_that_is_no_number_is_not_recorded(metric: float, best: float) -> None:
    assume(metric != best)
    assert verdict.discarded(measured(metric, best), "x").gain == best - metric
    assert verdict.discarded(measured(metric, None), "x").gain is None
    assert verdict.discarded(measured(None, best), "x").gain is None
