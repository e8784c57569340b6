"""The keep rule: its steps, its words, and what must hold for any numbers whatever."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.noise import NO_PRIOR, VAL_BPB_ON_A_GPU, Noise, Prior, Sample, pooled
from pytest_autoresearch.keeprule.rule import (
    LEAN,
    OFF,
    STANDARD,
    STRICT,
    Action,
    Credit,
    Evidence,
    Incumbent,
    Rule,
    Step,
    needed,
    next_action,
    rule_of,
    simplification_left,
)  # fmt: skip

MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE
NOISE = Noise(2, 0.0004 * math.sqrt(2), VAL_BPB_ON_A_GPU)
HEAD = Incumbent(3, 0.9716)
START = Evidence(STANDARD, MINIMIZE, NOISE, HEAD)

RULES = st.sampled_from([OFF, STANDARD, STRICT, LEAN, rule_of("1"), rule_of("4")])
NUMBERS = st.one_of(
    st.floats(-5, 5), st.integers(-3, 3), st.sampled_from([0.0, -0.0, 1e300, -1e300, 1e-300, 5e-324, 0.1 + 0.2]),
    st.floats(allow_nan=True, allow_infinity=True),
)  # fmt: skip
NOISES = st.builds(
    Noise, st.integers(0, 40), st.one_of(st.floats(0, 10), st.sampled_from([0.0, 5e-324, 1e300, math.inf])),
    st.sampled_from([NO_PRIOR, VAL_BPB_ON_A_GPU, Prior(0.3, 4)]), st.booleans(),
)  # fmt: skip
EVIDENCE = st.builds(
    Evidence, RULES, st.sampled_from(Direction), NOISES,
    st.builds(Incumbent, st.integers(1, 6), NUMBERS), NUMBERS,
    st.lists(NUMBERS, max_size=6).map(tuple), st.integers(0, 1), st.booleans(), st.none() | NUMBERS,
    st.integers(0, 20), st.integers(20, 100),
)  # fmt: skip


def after(screen: float | None, *confirmations: float, **changes: object) -> Action:
    return next_action(replace(START, screen=screen, confirmations=confirmations, **changes))  # type: ignore[arg-type]


def passes(action: Action) -> bool:
    """What the acceptance test asserts."""
    val_bpb, best, margin = action.metric, action.best, action.margin
    return val_bpb < best - margin if action.evidence.direction is MINIMIZE else val_bpb > best + margin


def play(
    evidence: Evidence, candidate: Iterator[float], incumbent: Iterator[float], asked: list[Evidence] | None = None
) -> Action:
    """A whole experiment; the noise stays what it is. What the candidate was run on goes to `asked`."""
    while (action := next_action(evidence)).step not in (Step.KEEP, Step.DROP):
        if action.step is Step.RUN_INCUMBENT:
            head = evidence.incumbent
            mean = head.mean + (next(incumbent) - head.mean) / (head.runs + 1)
            renewed = evidence.renewed + bool(evidence.confirmations)
            evidence = replace(evidence, incumbent=Incumbent(head.runs + 1, mean), renewed=renewed)
            continue
        if asked is not None:
            asked.append(evidence)
        if evidence.screen is None:
            evidence = replace(evidence, screen=next(candidate))
        else:
            confirmations = (*evidence.confirmations, next(candidate))
            evidence = replace(evidence, confirmations=confirmations, renewed=0)
    return action


def test_a_candidate_is_screened_first() -> None:
    assert after(None).step is Step.RUN_CANDIDATE


def test_a_first_run_that_is_no_better_decides() -> None:
    for screen in (0.9717, 0.9716):
        action = after(screen)
        assert (action.step, action.reason, action.margin) == (Step.DROP, "regression", 0.0)
        assert not passes(action)
    assert after(0.9715).step is Step.RUN_CANDIDATE


def test_a_clear_gain_is_kept_after_one_confirmation() -> None:
    action = after(0.9700, 0.9702)
    assert (action.step, action.reason) == (Step.KEEP, "improved")
    assert action.metric == pytest.approx((0.5 * 0.9700 + 0.9702) / 1.5)
    error = NOISE.sd * math.sqrt(1.25 / 1.5**2 + 1 / 3)
    assert action.margin == pytest.approx(student_t.quantile(0.90, 6) * error)
    assert action.p == pytest.approx(student_t.cdf((0.9716 - action.metric) / error, 6))


def test_an_undecided_candidate_has_the_incumbent_run_again_before_its_next_confirmation() -> None:
    assert after(0.9712, 0.9713).step is Step.RUN_INCUMBENT
    again = Incumbent(4, 0.9716)
    assert after(0.9712, 0.9713, incumbent=again, renewed=1).step is Step.RUN_CANDIDATE
    assert after(0.9712, 0.9713, incumbent=again).step is Step.RUN_CANDIDATE  # it has its four runs
    assert after(0.9712, 0.9713, 0.9713, incumbent=again).step is Step.KEEP
    assert after(0.9712, 0.9713, 0.9717, incumbent=again).step is Step.DROP


def test_an_incumbent_that_turns_out_better_ends_it_early() -> None:
    action = after(0.9712, 0.9713, incumbent=Incumbent(4, 0.9708), renewed=1)
    assert (action.step, action.reason) == (Step.DROP, "within-noise")


def test_one_that_disappoints_is_dropped_at_once() -> None:
    action = after(0.9712, 0.9722)
    assert (action.step, action.reason) == (Step.DROP, "within-noise")
    assert action.p < 0.40


def test_a_new_incumbent_is_run_once_more_before_anything_else() -> None:
    action = after(None, incumbent=Incumbent(2, 0.97, due=True))
    assert action.step is Step.RUN_INCUMBENT


def test_the_evidence_is_put_in_a_sentence() -> None:
    assert after(0.9711, 0.9714, 0.9717, incumbent=Incumbent(4, 0.9716)).sentence == (
        "0.9715 against 0.9716 ± 0.0004: within noise after 2 confirmations (P = 0.64)"
    )
    assert after(0.9700, 0.9702).sentence == "0.9701 against 0.9716 ± 0.0004: better after 1 confirmation (P = 0.99)"
    assert after(0.9717).sentence == "0.9717 against 0.9716 ± 0.0005: not better in its first run"
    assert after(math.nan).sentence == "nan against 0.9716 ± 0.0005: not a finite number in its first run"
    exact = pooled([Sample.of([17] * 5)])
    assert after(18, direction=MAXIMIZE, noise=exact, incumbent=Incumbent(5, 17)).sentence == (
        "18 against 17: better in its first run"
    )


def test_upstreams_rule_is_one_comparison() -> None:
    for screen, step in ((0.97159999, Step.KEEP), (0.9716, Step.DROP), (0.98, Step.DROP)):
        action = after(screen, rule=OFF, incumbent=Incumbent(1, 0.9716))
        assert (action.step, action.margin) == (step, 0.0)


def test_the_strict_rule_asks_for_more() -> None:
    wanted = {0: 0.97, 1: 0.93, 2: 0.88}
    for more, p in wanted.items():
        action = after(0.90, *(0.90 for _ in range(1 + more)), rule=STRICT)
        assert action.margin == pytest.approx(student_t.quantile(p, 6) * action.evidence.error)
    assert after(0.9714, 0.97155, 0.97155, rule=STRICT, incumbent=Incumbent(4, 0.9716)).step is Step.RUN_CANDIDATE
    assert after(0.9714, 0.97165, 0.9717, rule=STRICT, incumbent=Incumbent(4, 0.9716)).step is Step.DROP  # under 0.55


def test_a_number_is_the_largest_number_of_confirmations() -> None:
    assert rule_of("2").keep == STANDARD.keep
    assert rule_of("1").keep == (0.90,)
    assert rule_of("3").keep == (0.90, 0.80, 0.70)
    assert rule_of("3").drop == (0.40, 0.40)
    assert [rule_of(name) for name in ("off", "standard", "strict", "lean")] == [OFF, STANDARD, STRICT, LEAN]
    for wrong in ("0", "-1", "2.5", "lenient", "²", ""):
        with pytest.raises(ValueError, match="neither"):
            rule_of(wrong)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("level", [0.0, 0.9979, -40.0, 17, 1e300, 1e-300])
def test_a_deterministic_metric_needs_no_confirmation(direction: Direction, level: float) -> None:
    exact = pooled([Sample.of([level] * 5)])
    better = math.nextafter(level, -math.inf if direction is MINIMIZE else math.inf)
    worse = math.nextafter(level, math.inf if direction is MINIMIZE else -math.inf)
    start = replace(START, direction=direction, noise=exact, incumbent=Incumbent(5, level, due=True))
    assert next_action(start).step is Step.RUN_CANDIDATE
    for metric, step in ((better, Step.KEEP), (level, Step.DROP), (worse, Step.DROP)):
        action = next_action(replace(start, screen=metric))
        assert action.step is step
        assert passes(action) is (step is Step.KEEP)


def test_integers_are_metrics() -> None:
    noise = pooled([Sample.of([41, 40, 43, 41, 42])])
    evidence = Evidence(STANDARD, MAXIMIZE, noise, Incumbent(5, 41.4))
    assert play(evidence, iter([50, 52]), iter([])).step is Step.KEEP
    assert play(evidence, iter([41]), iter([])).step is Step.DROP


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_dropped_whichever_way_it_points(direction: Direction, metric: float) -> None:
    for screen, confirmations in ((metric, ()), (0.9, (metric,))):
        action = after(screen, *confirmations, direction=direction)
        assert (action.step, action.reason) == (Step.DROP, "not-finite")
        assert not passes(action)


def test_where_nothing_is_known_of_the_noise_it_is_measured_first() -> None:
    unknown = replace(START, noise=Noise(), incumbent=Incumbent(1, 0.9716), screen=0.5)
    assert next_action(unknown).step is Step.RUN_INCUMBENT
    action = play(replace(unknown, incumbent=Incumbent(4, 0.9716)), iter([0.5] * 9), iter([]))
    assert (action.step, passes(action)) == (Step.DROP, False)  # and without it, nothing is kept


@given(EVIDENCE)
def test_the_acceptance_test_and_the_state_machine_never_disagree(evidence: Evidence) -> None:
    action = next_action(evidence)
    if action.step in (Step.KEEP, Step.DROP):
        assert passes(action) is (action.step is Step.KEEP)
        assert not math.isnan(action.margin)
        assert action.sentence
    if action.step is Step.KEEP:
        assert math.isfinite(action.metric)


@given(EVIDENCE, st.lists(NUMBERS, min_size=40, max_size=40), st.lists(NUMBERS, min_size=10, max_size=10))
def test_every_experiment_ends(evidence: Evidence, candidate: list[float], incumbent: list[float]) -> None:
    action = play(replace(evidence, screen=None, confirmations=(), renewed=0), iter(candidate), iter(incumbent))
    looks = 6 if evidence.simpler else evidence.rule.looks
    assert len(action.evidence.confirmations) <= looks


ORDINARY = st.builds(
    Evidence, RULES, st.sampled_from(Direction), st.builds(Noise, st.integers(2, 40), st.floats(0.1, 10)),
    st.builds(Incumbent, st.integers(1, 4), st.floats(-5, 5)), simpler=st.booleans(), kept=st.integers(0, 9),
    tried=st.integers(9, 50),
)  # fmt: skip
RUNS = st.lists(st.floats(-5, 5), min_size=8, max_size=8)


def is_clear(evidence: Evidence, candidate: list[float], incumbent: list[float]) -> bool:
    """Whether nothing hangs on the last bits: the steps are the same a little to either side."""

    def steps(shift: float) -> list[object]:
        action = play(evidence, (x + shift for x in candidate), iter(incumbent))
        return [action.step, action.reason, len(action.evidence.confirmations), action.evidence.incumbent.runs]

    return steps(1e-6) == steps(-1e-6)


@given(ORDINARY, RUNS, RUNS, st.floats(-100, 100), st.floats(0.01, 100))
def test_shift_and_scale_of_the_metric_change_nothing(
    evidence: Evidence, candidate: list[float], incumbent: list[float], shift: float, scale: float
) -> None:
    assume(is_clear(evidence, candidate, incumbent))
    prior = Prior(0.3, 4)
    evidence = replace(evidence, noise=replace(evidence.noise, prior=prior))
    assume(is_clear(evidence, candidate, incumbent))
    moved = replace(
        evidence,
        noise=Noise(evidence.noise.freedom, evidence.noise.spread * scale, Prior(prior.sd * scale, prior.freedom)),
        incumbent=replace(evidence.incumbent, mean=evidence.incumbent.mean * scale + shift),
    )
    one = play(evidence, iter(candidate), iter(incumbent))
    other = play(moved, (x * scale + shift for x in candidate), (x * scale + shift for x in incumbent))
    assert (one.step, one.reason) == (other.step, other.reason)
    assert other.margin == pytest.approx(one.margin * scale, rel=1e-6, abs=1e-9)


@given(ORDINARY, RUNS, RUNS)
def test_the_direction_is_only_a_sign(evidence: Evidence, candidate: list[float], incumbent: list[float]) -> None:
    mirrored = replace(
        evidence,
        direction=MAXIMIZE if evidence.direction is MINIMIZE else MINIMIZE,
        incumbent=replace(evidence.incumbent, mean=-evidence.incumbent.mean),
    )
    one = play(evidence, iter(candidate), iter(incumbent))
    other = play(mirrored, (-x for x in candidate), (-x for x in incumbent))
    assert (one.step, one.reason, one.margin, one.p) == (other.step, other.reason, other.margin, other.p)


@given(ORDINARY, RUNS, RUNS, st.lists(st.floats(0, 3), min_size=16, max_size=16))
def test_more_evidence_in_favour_never_turns_a_keep_into_a_drop(
    evidence: Evidence, candidate: list[float], incumbent: list[float], favours: list[float]
) -> None:
    assume(play(evidence, iter(candidate), iter(incumbent)).step is Step.KEEP)
    sign = -1 if evidence.direction is MINIMIZE else 1
    better = [x + sign * favour for x, favour in zip(candidate, favours[:8], strict=True)]
    worse = [x - sign * favour for x, favour in zip(incumbent, favours[8:], strict=True)]
    assert play(evidence, iter(better), iter(incumbent)).step is Step.KEEP
    assert play(evidence, iter(candidate), iter(worse)).step is Step.KEEP


@given(ORDINARY, RUNS, RUNS)
def test_a_run_that_misses_what_is_needed_is_the_end_and_one_that_beats_it_is_not(
    evidence: Evidence, candidate: list[float], incumbent: list[float]
) -> None:
    asked: list[Evidence] = []
    play(evidence, iter(candidate), iter(incumbent), asked)
    for before in asked:
        bar = needed(before)
        for metric in (bar - 1e-6, bar + 1e-6, -8.0, 8.0):
            if before.screen is None:
                told = replace(before, screen=metric)
            else:
                told = replace(before, confirmations=(*before.confirmations, metric), renewed=0)
            beats = metric < bar if evidence.direction is MINIMIZE else metric > bar
            assert (next_action(told).step is Step.DROP) is not beats


def test_the_screening_run_counts_half() -> None:
    assert after(0.0, 3.0).metric == pytest.approx(2.0)
    assert after(0.0, 3.0, 3.0).metric == pytest.approx(2.4)
    assert after(0.3, 0.3, 0.3).metric == 0.3


def test_a_campaign_that_keeps_a_lot_believes_a_gain_more_readily() -> None:
    rule = Rule("", (0.6,), credit=Credit(2.0, 20))
    asked = [rule.threshold(1, kept, 20) for kept in (0, 2, 5, 20)]
    assert asked == pytest.approx([0.95, 0.85, 0.70, 0.60])
    assert rule.threshold(1, 0, 180) == pytest.approx(0.99)  # and the longer nothing helps, the less


# ------------------------------------------------------------------------------------------------------ simplification

SIMPLER = replace(START, simpler=True)


def test_a_simpler_program_is_screened_with_two_standard_deviations_to_spare() -> None:
    assert next_action(replace(SIMPLER, screen=0.9716 + 1.9 * NOISE.sd)).step is Step.RUN_CANDIDATE
    action = next_action(replace(SIMPLER, screen=0.9716 + 2.1 * NOISE.sd))
    assert (action.step, action.margin) == (Step.DROP, -2 * NOISE.sd)
    assert not passes(action)


def test_a_simpler_program_is_kept_where_it_is_surely_not_much_worse() -> None:
    known = Noise(60, 0.0004 * math.sqrt(60))
    evidence = replace(SIMPLER, noise=known, incumbent=Incumbent(6, 0.9716))
    action = play(evidence, iter([0.9716] * 8), iter([0.9716] * 8))
    assert (action.step, action.reason) == (Step.KEEP, "simpler")
    assert action.margin < 0
    assert action.evidence.p_of_losing_less_than(known.sd) >= 0.95
    assert play(evidence, iter([0.9716 + 1.5 * known.sd] * 8), iter([0.9716] * 8)).reason == "within-noise"


def test_a_simpler_program_that_is_better_is_an_improvement() -> None:
    assert play(SIMPLER, iter([0.9700] * 2), iter([])).reason == "improved"


def test_simpler_programs_together_may_cost_two_standard_deviations() -> None:
    down = replace(SIMPLER, incumbent=Incumbent(4, 0.9716), reference=0.9716 - 2.1 * NOISE.sd)
    assert simplification_left(down) < 0
    assert next_action(replace(down, screen=0.9716)).reason == "regression"
    assert simplification_left(SIMPLER) == pytest.approx(2 * NOISE.sd)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("level", [0.0, 17, -2.5])
def test_of_a_deterministic_metric_an_equal_result_from_simpler_code_is_kept(
    direction: Direction, level: float
) -> None:
    exact = pooled([Sample.of([level] * 5)])
    evidence = replace(SIMPLER, direction=direction, noise=exact, incumbent=Incumbent(5, level))
    action = next_action(replace(evidence, screen=level))
    assert (action.step, action.reason, passes(action)) == (Step.KEEP, "simpler", True)
    assert action.margin < 0
    worse = level + (0.1 if direction is MINIMIZE else -0.1)
    assert next_action(replace(evidence, screen=worse)).step is Step.DROP
