"""The keep rule: its steps, its words, and what must hold for any numbers whatever."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.keeprule import student_t
from pytest_autoresearch.keeprule.blocks import Block, Observation
from pytest_autoresearch.keeprule.decision import Action, Step, needed, next_action, simplification_left
from pytest_autoresearch.keeprule.evidence import Evidence
from pytest_autoresearch.keeprule.noise import NO_PRIOR, VAL_BPB_ON_A_GPU, Prior
from pytest_autoresearch.keeprule.rule import LEAN, OFF, STANDARD, STRICT, Credit, Rule, rule_of

MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE
HEAD, NEW = "head", "new"
# The seeds' parts are large, and known from twelve earlier programs; the residual's sd is nearly 0.0004.
SEEDS = {1: 0.0, 2: 0.002, 3: -0.0015, 4: 0.0005}
RESIDUALS = ((1, -1, 1, -1), (-1, 1, 0, 0), (0, 0, -1, 1)) * 4
OTHERS = tuple(
    Observation(f"other {at}", Block(seed), 0.98 + at / 1000 + SEEDS[seed] + 0.0004 * away)
    for at, row in enumerate(RESIDUALS)
    for seed, away in zip(SEEDS, row, strict=True)
)


def head(*seeds: int, level: float = 0.9716) -> tuple[Observation, ...]:
    """The incumbent's unselected runs on these seeds."""
    return tuple(Observation(HEAD, Block(seed), level + SEEDS.get(seed, 0.0)) for seed in seeds)


START = Evidence(STANDARD, MINIMIZE, (*OTHERS, *head(1, 2, 3)), HEAD, NEW, prior=VAL_BPB_ON_A_GPU)


def after(*gains: float, **changes: object) -> Action:
    """The next step after runs of the candidate on the seeds that the rule wants, so much better than the incumbent."""
    evidence = replace(START, **changes)  # type: ignore[arg-type]
    sign = -1 if evidence.direction is MINIMIZE else 1
    for gain in gains:
        action = next_action(evidence)
        assert action.step is Step.RUN_CANDIDATE, action
        assert action.seed is not None
        evidence = evidence.plus(action.seed, 0.9716 + SEEDS.get(action.seed, 0.0) + sign * gain)
    return next_action(evidence)


def passes(action: Action) -> bool:
    """What the acceptance test asserts."""
    val_bpb, best, margin = action.metric, action.best, action.margin
    return val_bpb < best - margin if action.evidence.direction is MINIMIZE else val_bpb > best + margin


def play(
    evidence: Evidence, candidate: Callable[[int], float], incumbent: Callable[[int], float],
    asked: list[tuple[Evidence, int]] | None = None,
) -> Action:  # fmt: skip
    """A whole experiment; metrics by seed. What the candidate was run on goes to `asked`."""
    fresh = iter(range(1000, 1100))
    while (action := next_action(evidence)).step not in (Step.KEEP, Step.DROP):
        seed = next(fresh) if action.seed is None else action.seed
        if action.step is Step.RUN_INCUMBENT:
            evidence = evidence.plus_incumbent(seed, incumbent(seed))
            continue
        if asked is not None:
            asked.append((evidence, seed))
        evidence = evidence.plus(seed, candidate(seed))
    return action


def test_a_candidate_is_screened_first() -> None:
    action = after()
    assert (action.step, action.seed) == (Step.RUN_CANDIDATE, 1)


def test_every_run_of_a_candidate_is_on_another_seed_that_the_incumbent_has() -> None:
    seeds = [after(*gains).seed for gains in ((), (0.0003,), (0.0003, 0.0003))]
    assert seeds == [1, 2, 3]


def test_another_seed_screens_the_next_candidate() -> None:
    assert [after(number=number).seed for number in range(6)] == [1, 2, 3, 1, 2, 3]


def test_a_first_run_that_is_no_better_on_its_seed_decides() -> None:
    for number in range(3):  # whatever the seed
        for gain in (-0.0004, -0.0001):
            action = after(gain, number=number)
            assert (action.step, action.reason, action.margin) == (Step.DROP, "regression", 0.0)
            assert not passes(action)
        assert after(0.0001, number=number).step is Step.RUN_CANDIDATE


def test_a_clear_gain_is_kept_after_one_confirmation() -> None:
    action = after(0.0015, 0.0015)
    assert (action.step, action.reason) == (Step.KEEP, "improved")
    contrast = action.evidence.contrast
    assert contrast.difference == pytest.approx(-0.0015, abs=1e-4)
    assert action.best == pytest.approx(action.metric + 0.0015, abs=1e-4)  # not the mean of the incumbent's seeds
    assert action.margin == pytest.approx(student_t.quantile(STANDARD.keep[0], contrast.degrees) * contrast.error)
    assert action.p == pytest.approx(student_t.cdf(-contrast.difference / contrast.error, contrast.degrees))


def test_an_undecided_candidate_is_confirmed_again() -> None:
    assert after(0.0003, 0.0002).step is Step.RUN_CANDIDATE
    assert after(0.0003, 0.0002, 0.0006).step is Step.KEEP
    assert after(0.0003, 0.0002, -0.0006).step is Step.DROP


def test_the_incumbent_runs_on_a_new_seed_where_it_has_no_other_in_common() -> None:
    few = (*OTHERS, *head(1, 2))
    action = after(0.0003, 0.0002, known=few)
    assert (action.step, action.seed) == (Step.RUN_INCUMBENT, None)
    # A run of the incumbent is not a look: the candidate runs next, whatever the incumbent's metric says.
    for metric in (0.5, 1.5):
        ran = next_action(action.evidence.plus_incumbent(77, metric))
        assert (ran.step, ran.seed) == (Step.RUN_CANDIDATE, 77)


def test_the_run_that_selected_the_incumbent_is_no_common_seed() -> None:
    selected = Observation(HEAD, Block(4), 0.97, 0.5)
    assert {after(known=(*OTHERS, selected, *head(1, 2)), number=number).seed for number in range(4)} == {1, 2}
    assert after(known=(*OTHERS, selected)).step is Step.RUN_INCUMBENT


def test_after_a_pause_the_incumbent_runs_again_before_a_candidate_on_the_same_seed() -> None:
    action = after(time="later")
    assert (action.step, action.seed) == (Step.RUN_INCUMBENT, 1)
    ran = next_action(action.evidence.plus_incumbent(1, 0.98))
    assert (ran.step, ran.seed) == (Step.RUN_CANDIDATE, 1)
    told = next_action(ran.evidence.plus(1, 0.9801))  # better than before the pause, not than now
    assert told.reason == "regression"


def test_a_candidate_goes_on_alone_where_the_incumbent_crashes() -> None:
    action = after(known=(*OTHERS, Observation(HEAD, Block(4), 0.97, 0.5)), alone=True)
    assert (action.step, action.seed) == (Step.RUN_CANDIDATE, None)


def test_a_repeated_candidate_gets_other_seeds_than_those_by_which_it_was_selected() -> None:
    assert after(avoided=frozenset({1})).seed in (2, 3)
    assert after(avoided=frozenset({1, 2, 3})).step is Step.RUN_INCUMBENT


def test_one_that_disappoints_is_dropped_at_once() -> None:
    action = after(0.0004, -0.0006)
    assert (action.step, action.reason) == (Step.DROP, "within-noise")
    assert action.p < 0.40


def test_a_new_incumbent_is_run_once_more_on_a_seed_of_an_earlier_one() -> None:
    line = ("other 0", "other 1", HEAD)
    for number in range(4):
        action = after(known=(*OTHERS, *head(1, 2)), due=True, line=line, number=number)
        assert action.step is Step.RUN_INCUMBENT
        assert action.seed in (3, 4)
    action = after(known=(*OTHERS, *head(1, 2, 3, 4)), due=True, line=line)
    assert (action.step, action.seed) == (Step.RUN_INCUMBENT, None)


def test_the_evidence_is_put_in_a_sentence() -> None:
    assert after(0.0004, 0.0002, -0.0002).sentence == (
        "0.9717 against 0.9718 on the same three seeds ± 0.0004: within noise after 2 confirmations (P = 0.58)"
    )
    assert after(0.0015, 0.0015).sentence == (
        "0.9714 against 0.9729 on the same two seeds ± 0.0005: better after 1 confirmation (P = 1.00)"
    )
    assert after(-0.0001).sentence == "0.9717 against 0.9716 on the same seed ± 0.0007: not better in its first run"
    alone = START.plus(9, 0.98)
    assert next_action(alone).sentence == "0.980 against 0.972 ± 0.002: not better in its first run"
    assert after(math.nan).sentence == "nan against 0.9716 on the same seed: not a finite number in its first run"
    assert exact(17).plus(1, 18).direction is MINIMIZE
    assert next_action(replace(exact(17), direction=MAXIMIZE).plus(1, 18)).sentence == (
        "18 against 17: better in its first run"
    )


def exact(level: float, direction: Direction = MINIMIZE) -> Evidence:
    """A deterministic metric of this level."""
    known = tuple(Observation(HEAD, Block(seed), level) for seed in range(1, 6))
    return Evidence(STANDARD, direction, known, HEAD, NEW, exact=True)


def test_upstreams_rule_is_one_comparison_on_one_seed() -> None:
    known = (Observation(HEAD, Block(5), 0.9716, 0.5),)
    for number, (metric, step) in enumerate(((0.97159999, Step.KEEP), (0.9716, Step.DROP), (0.98, Step.DROP))):
        start = next_action(Evidence(OFF, MINIMIZE, known, HEAD, NEW, number=number, time="later"))
        assert (start.step, start.seed) == (Step.RUN_CANDIDATE, 5)
        action = next_action(start.evidence.plus(5, metric))
        assert (action.step, action.margin, action.best) == (step, 0.0, 0.9716)


def test_the_strict_rule_asks_for_more() -> None:
    for looks, p in enumerate((0.98, 0.95, 0.90), 1):
        evidence = replace(START, rule=STRICT, known=(*OTHERS, *head(1, 2, 3, 4)))
        for seed in range(1, looks + 2):
            evidence = evidence.plus(seed, 0.9)
        contrast = evidence.contrast
        assert next_action(evidence).margin == pytest.approx(student_t.quantile(p, contrast.degrees) * contrast.error)
    assert after(0.00034, 0.00034, 0.00034).step is Step.KEEP
    assert after(0.00034, 0.00034, 0.00034, rule=STRICT).step is Step.RUN_INCUMBENT


def test_a_number_is_the_largest_number_of_confirmations() -> None:
    assert rule_of("2").keep == STANDARD.keep
    assert rule_of("1").keep == (0.88,)
    assert rule_of("3").keep == (0.88, 0.765, 0.65)
    assert rule_of("3").drop == (0.40, 0.40)
    assert [rule_of(name) for name in ("off", "standard", "strict", "lean")] == [OFF, STANDARD, STRICT, LEAN]
    for wrong in ("0", "-1", "2.5", "lenient", "²", ""):
        with pytest.raises(ValueError, match="neither"):
            rule_of(wrong)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("level", [0.0, 0.9979, -40.0, 17, 1e300, 1e-300])
def test_a_deterministic_metric_needs_no_confirmation(direction: Direction, level: float) -> None:
    better = math.nextafter(level, -math.inf if direction is MINIMIZE else math.inf)
    worse = math.nextafter(level, math.inf if direction is MINIMIZE else -math.inf)
    start = replace(exact(level, direction), due=True)
    assert next_action(start).step is Step.RUN_CANDIDATE
    for metric, step in ((better, Step.KEEP), (level, Step.DROP), (worse, Step.DROP)):
        action = next_action(start.plus(1, metric))
        assert action.step is step
        assert passes(action) is (step is Step.KEEP)


def test_integers_are_metrics() -> None:
    known = tuple(Observation(HEAD, Block(seed), metric) for seed, metric in enumerate([41, 40, 43, 41, 42]))
    evidence = Evidence(STANDARD, MAXIMIZE, known, HEAD, NEW)
    assert play(evidence, lambda seed: 60 + seed % 2, lambda seed: 41).step is Step.KEEP
    assert play(evidence, lambda seed: 40, lambda seed: 41).step is Step.DROP


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_dropped_whichever_way_it_points(direction: Direction, metric: float) -> None:
    start = replace(START, direction=direction)
    for runs in ((metric,), (0.9 if direction is MINIMIZE else 1.1, metric)):
        for seed, value in enumerate(runs, 1):
            start = start.plus(seed, value)
        action = next_action(start)
        assert (action.step, action.reason) == (Step.DROP, "not-finite")
        assert not passes(action)
        start = replace(START, direction=direction)


def test_where_nothing_is_known_of_the_noise_confirmations_measure_it() -> None:
    start = Evidence(STANDARD, MINIMIZE, (Observation(HEAD, Block(1), 0.9716),), HEAD, NEW)
    asked: list[tuple[Evidence, int]] = []
    action = play(start, lambda seed: 0.5 + seed / 1e6, lambda seed: 0.9716 + seed / 1e6, asked)
    assert action.step is Step.KEEP
    assert len(asked) == 2
    assert math.isnan(start.plus(1, 0.5).p)  # and before them, nothing is kept


# ----------------------------------------------------------------------------------------------------- for any numbers

RULES = st.sampled_from([OFF, STANDARD, STRICT, LEAN, rule_of("1"), rule_of("4")])
NUMBERS = st.one_of(
    st.floats(-5, 5), st.integers(-3, 3), st.sampled_from([0.0, -0.0, 1e300, -1e300, 1e-300, 5e-324, 0.1 + 0.2]),
    st.floats(allow_nan=True, allow_infinity=True),
)  # fmt: skip
FINITE = NUMBERS.filter(math.isfinite)
PRIORS = st.sampled_from([NO_PRIOR, VAL_BPB_ON_A_GPU, Prior(0.3, 4)])


def evidence_of(numbers: st.SearchStrategy[float], **fields: st.SearchStrategy[object]) -> st.SearchStrategy[Evidence]:
    """Evidence before a candidate's first run: the incumbent has one run at least."""

    def known(own: Sequence[tuple[int, float, float]], others: Sequence[tuple[str, int, float]]) -> object:
        runs = [Observation(HEAD, Block(seed), metric, weight) for seed, metric, weight in own]
        runs += [Observation(program, Block(seed), metric) for program, seed, metric in others]
        return tuple({(run.program, run.block): run for run in runs}.values())

    own = st.lists(st.tuples(st.integers(1, 6), numbers, st.sampled_from([0.5, 1.0])), min_size=1, max_size=6)
    others = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 6), numbers), max_size=12)
    return st.builds(
        Evidence, RULES, st.sampled_from(Direction), st.builds(known, own, others), st.just(HEAD), st.just(NEW),
        number=st.integers(0, 9), line=st.sampled_from([(), ("a", "b", HEAD)]), due=st.booleans(),
        kept=st.integers(0, 20), tried=st.integers(20, 100), **fields,
    )  # fmt: skip


ANY = evidence_of(FINITE, prior=PRIORS, exact=st.booleans(), simpler=st.booleans(), alone=st.booleans())
ORDINARY = evidence_of(
    st.floats(-5, 5).map(lambda metric: round(metric, 3)), prior=st.just(Prior(0.3, 4)), simpler=st.booleans()
)
TABLE = st.lists(st.floats(-5, 5).map(lambda metric: round(metric, 3)), min_size=16, max_size=16)


@given(ANY, st.lists(NUMBERS, max_size=6))
def test_the_acceptance_test_and_the_state_machine_never_disagree(evidence: Evidence, metrics: list[float]) -> None:
    for seed, metric in enumerate(metrics, 1):
        evidence = evidence.plus(seed, metric)
    action = next_action(evidence)
    if action.step in (Step.KEEP, Step.DROP):
        assert passes(action) is (action.step is Step.KEEP)
        assert not math.isnan(action.margin)
        assert action.sentence
    if action.step is Step.KEEP:
        assert math.isfinite(action.metric)


@given(ANY, st.lists(NUMBERS, min_size=16, max_size=16), st.lists(FINITE, min_size=16, max_size=16))
def test_every_experiment_ends(evidence: Evidence, candidate: list[float], incumbent: list[float]) -> None:
    action = play(evidence, lambda seed: candidate[seed % 16], lambda seed: incumbent[seed % 16])
    assert action.evidence.looks <= (6 if evidence.simpler else evidence.rule.looks)


def steps(evidence: Evidence, candidate: Callable[[int], float], incumbent: Callable[[int], float]) -> list[object]:
    action = play(evidence, candidate, incumbent)
    return [action.step, action.reason, [run.block for run in action.evidence.runs], len(action.evidence.known)]


def is_clear(evidence: Evidence, candidate: list[float], incumbent: list[float]) -> bool:
    """Whether nothing hangs on the last bits: the steps are the same a little to either side."""

    def shifted(shift: float) -> list[object]:
        return steps(evidence, lambda seed: candidate[seed % 16] + shift, lambda seed: incumbent[seed % 16])

    return shifted(1e-5) == shifted(-1e-5)


@given(ORDINARY, TABLE, TABLE, st.floats(-100, 100), st.floats(0.01, 100))
def test_shift_and_scale_of_the_metric_change_nothing(
    evidence: Evidence, candidate: list[float], incumbent: list[float], shift: float, scale: float
) -> None:
    assume(is_clear(evidence, candidate, incumbent))
    moved = replace(
        evidence,
        known=tuple(replace(run, metric=run.metric * scale + shift) for run in evidence.known),
        prior=Prior(evidence.prior.sd * scale, evidence.prior.freedom),
    )
    one = play(evidence, lambda seed: candidate[seed % 16], lambda seed: incumbent[seed % 16])
    other = play(
        moved, lambda seed: candidate[seed % 16] * scale + shift, lambda seed: incumbent[seed % 16] * scale + shift
    )
    assert (one.step, one.reason) == (other.step, other.reason)
    assert other.margin == pytest.approx(one.margin * scale, rel=1e-5, abs=1e-7 * (1 + scale))


@given(ORDINARY, TABLE, TABLE)
def test_the_direction_is_only_a_sign(evidence: Evidence, candidate: list[float], incumbent: list[float]) -> None:
    assume(is_clear(evidence, candidate, incumbent))
    mirrored = replace(
        evidence,
        direction=MAXIMIZE if evidence.direction is MINIMIZE else MINIMIZE,
        known=tuple(replace(run, metric=-run.metric) for run in evidence.known),
    )
    one = play(evidence, lambda seed: candidate[seed % 16], lambda seed: incumbent[seed % 16])
    other = play(mirrored, lambda seed: -candidate[seed % 16], lambda seed: -incumbent[seed % 16])
    assert (one.step, one.reason) == (other.step, other.reason)
    assert other.margin == pytest.approx(one.margin, rel=1e-6, abs=1e-9)


@given(ORDINARY, st.lists(st.integers(-9, 9), min_size=6, max_size=6))
def test_what_a_seed_adds_to_every_run_changes_no_decision_where_seeds_matter(
    evidence: Evidence, effects: list[int]
) -> None:
    """Both programs on the same seeds, and the seeds' parts known to be large."""
    evidence = replace(evidence, simpler=False, due=False)
    known = tuple(
        Observation(program, Block(seed), level + 1000 * seed**2 + 0.1 * ((seed * at) % 3))
        for at, (program, level) in enumerate((("a", 0.0), ("b", 1.0), ("c", 2.0), (HEAD, 1.5)), 1)
        for seed in range(1, 7)
    )
    moved = tuple(replace(run, metric=run.metric + 100 * effects[run.block.seed - 1]) for run in known)
    for gain in (-300.0, 30_000.0):  # far from where the seeds' own spread decides
        outcomes = {
            play(
                replace(evidence, known=runs),
                lambda seed, runs=runs, gain=gain: next(  # type: ignore[misc]
                    run.metric + gain for run in runs if (run.program, run.block.seed) == (HEAD, seed)
                ),
                lambda seed: 0.0,
            ).step
            for runs in (known, moved)
        }
        assert len(outcomes) == 1


@given(ORDINARY, TABLE, TABLE)
def test_a_first_run_that_misses_what_is_needed_is_the_end_and_one_that_beats_it_is_not(
    evidence: Evidence, candidate: list[float], incumbent: list[float]
) -> None:
    asked: list[tuple[Evidence, int]] = []
    play(evidence, lambda seed: candidate[seed % 16], lambda seed: incumbent[seed % 16], asked)
    before, seed = asked[0]
    bar = needed(before, seed)
    for metric in (bar - 1e-6, bar + 1e-6, -80.0, 80.0):
        beats = metric < bar if evidence.direction is MINIMIZE else metric > bar
        assert (next_action(before.plus(seed, metric)).step is Step.DROP) is not beats


def test_a_confirmation_needs_about_what_keeps_it_from_being_dropped() -> None:
    before = after(0.0004)
    assert before.seed is not None
    bar = needed(before.evidence, before.seed)
    level = 0.9716 + SEEDS[before.seed]
    assert level - 0.0004 < bar < level + 0.0004
    far = 0.0003
    assert next_action(before.evidence.plus(before.seed, bar + far)).step is Step.DROP
    assert next_action(before.evidence.plus(before.seed, bar - far)).step is not Step.DROP


def test_the_screening_run_counts_half() -> None:
    def metric(*metrics: float) -> float:
        evidence = START
        for seed, each in enumerate(metrics):
            evidence = evidence.plus(seed, each)
        return evidence.metric

    assert metric(0.0, 3.0) == pytest.approx(2.0)
    assert metric(0.0, 3.0, 3.0) == pytest.approx(2.4)
    assert metric(0.3, 0.3, 0.3) == 0.3


def test_a_campaign_that_keeps_a_lot_believes_a_gain_more_readily() -> None:
    rule = Rule("", (0.6,), credit=Credit(2.0, 20))
    asked = [rule.threshold(1, kept, 20) for kept in (0, 2, 5, 20)]
    assert asked == pytest.approx([0.95, 0.85, 0.70, 0.60])
    assert rule.threshold(1, 0, 180) == pytest.approx(0.99)  # and the longer nothing helps, the less


# ------------------------------------------------------------------------------------------------------ simplification

SIMPLER = replace(START, simpler=True, known=(*OTHERS, *head(*SEEDS)), line=(HEAD,))
SD = SIMPLER.components.residual


def equal_but(evidence: Evidence, loss: float) -> Action:
    """An experiment whose candidate is worse by so much on every seed."""
    return play(evidence, lambda seed: 0.9716 + SEEDS.get(seed, 0.0) + loss, lambda seed: 0.9716 + SEEDS.get(seed, 0.0))


def test_a_simpler_program_is_screened_with_two_standard_deviations_to_spare() -> None:
    assert after(-1.5 * SD, **vars_of(SIMPLER)).step is Step.RUN_CANDIDATE
    action = after(-2.5 * SD, **vars_of(SIMPLER))
    assert (action.step, action.margin) == (Step.DROP, pytest.approx(-2 * SD))
    assert not passes(action)


def vars_of(evidence: Evidence) -> dict[str, object]:
    return {"known": evidence.known, "simpler": evidence.simpler, "line": evidence.line}


def test_a_simpler_program_is_kept_where_it_is_surely_not_much_worse() -> None:
    action = equal_but(SIMPLER, 0.0)
    assert (action.step, action.reason) == (Step.KEEP, "simpler")
    assert action.margin < 0
    assert action.evidence.p_of_losing_less_than(action.evidence.components.residual) >= 0.95
    assert equal_but(SIMPLER, 1.5 * SD).reason == "within-noise"


def test_a_simpler_program_that_is_better_is_an_improvement() -> None:
    assert equal_but(SIMPLER, -0.0015).reason == "improved"


def test_simpler_programs_together_may_cost_two_standard_deviations() -> None:
    best = tuple(replace(run, program="best", metric=run.metric - 0.002) for run in head(*SEEDS))
    down = replace(SIMPLER, known=(*SIMPLER.known, *best), line=("best", HEAD))
    assert simplification_left(down) < 0
    assert equal_but(down, 0.0001).reason == "regression"
    assert simplification_left(SIMPLER) == pytest.approx(2 * SD)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("level", [0.0, 17, -2.5])
def test_of_a_deterministic_metric_an_equal_result_from_simpler_code_is_kept(
    direction: Direction, level: float
) -> None:
    evidence = replace(exact(level, direction), simpler=True)
    action = next_action(evidence.plus(1, level))
    assert (action.step, action.reason, passes(action)) == (Step.KEEP, "simpler", True)
    assert action.margin < 0
    worse = level + (0.1 if direction is MINIMIZE else -0.1)
    assert next_action(evidence.plus(1, worse)).step is Step.DROP
