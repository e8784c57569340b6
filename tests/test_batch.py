"""The runs of one batch: crashes, what they say of each proposal, what a next session goes on with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.experiment import Direction, Experiment, Proposal
from pytest_autoresearch.core.run import Crash, CrashClass, Role, Run
from pytest_autoresearch.keeprule import designs
from pytest_autoresearch.keeprule.blocks import Components
from pytest_autoresearch.keeprule.effects import Belief, Effect, chosen, needed
from pytest_autoresearch.measure.batch import Batch, Work
from pytest_autoresearch.measure.batch_file import BatchFile

NOISE = Components(0.001, 0.004, 6)
SIZES = st.integers(designs.LEAST, 15)


def experiment(number: int, direction: Direction = Direction.MINIMIZE) -> Experiment:
    return Experiment(
        number, "t", f"{number:040x}", "0" * 40, "", Proposal(f"change {number}"), program=f"p{number}",
        direction=direction, runs=() if number else (Run(1, 1.0),),
    )  # fmt: skip


def batch(size: int, direction: Direction = Direction.MINIMIZE, seed: int = 7) -> Batch:
    return Batch([experiment(at + 1, direction) for at in range(size)], experiment(0, direction), seed, NOISE, [])


def play(one: Batch, metric: Callable[[Work], float | None], most: float = math.inf) -> list[Work]:
    """Make runs until there are no more; None is a crash."""
    made: list[Work] = []
    while len(made) < most and one.goes_on():
        work = one.take()
        assert work is not None
        made.append(work)
        found = metric(work)
        crash = Crash(CrashClass.EXIT, "it raised", 1) if found is None else None
        by = 1 + min(work.has, default=0)
        commit = "" if work.role is Role.SCREEN else f"{len(made):040x}"
        one.done(work, by, (Run(one.seed, found, role=work.role, crash=crash, commit=commit),))
    return made


def effects_of(one: Batch) -> list[float]:
    found = [one.result(member.number).share for member in one.members]
    return [math.nan if share is None else share.gain for share in found]


@given(SIZES, st.data(), st.sampled_from(Direction))
def test_effects_that_add_up_are_found_exactly(size: int, data: st.DataObject, direction: Direction) -> None:
    gains = data.draw(st.lists(st.floats(-0.005, 0.005), min_size=size, max_size=size))
    one = batch(size, direction)
    made = play(one, lambda work: 1.0 - direction.gain(0.0, sum(gains[at] for at in work.has)))
    assert len(made) == next(count for count in designs.SIZES if count > size)
    assert effects_of(one) == pytest.approx(gains, abs=1e-9)
    for member, gain in zip(one.members, gains, strict=True):
        result = one.result(member.number)
        assert result.gain == pytest.approx(gain, abs=1e-9)
        assert (result.gain > result.margin) == (result.decision.decided is None)
    runs = [run for member in one.members for run in one.result(member.number).runs]
    assert len(runs) == len(made), "each run is in one record"


@given(SIZES, st.data())
def test_proposals_that_crash_alone_leave_and_the_others_keep_their_effects(size: int, data: st.DataObject) -> None:
    broken = data.draw(st.sets(st.integers(0, size - 1), max_size=2))
    gains = [0.001 * at for at in range(size)]
    one = batch(size)
    play(one, lambda work: None if work.has & broken else 1.0 - sum(gains[at] for at in work.has))
    for at, member in enumerate(one.members):
        result = one.result(member.number)
        assert (result.crash is not None) == (at in broken)
        assert (result.share is None) == (at in broken)
        if result.share is not None and result.share.error < math.inf:
            assert result.share.gain == pytest.approx(gains[at], abs=1e-9)


@given(SIZES, st.data())
def test_two_that_crash_only_together_cost_no_more_than_their_common_runs(size: int, data: st.DataObject) -> None:
    pair = data.draw(st.sets(st.integers(0, size - 1), min_size=2, max_size=2))
    one = batch(size)
    made = play(one, lambda work: None if pair <= work.has else 1.0)
    assert all(one.result(member.number).crash is None for member in one.members)
    assert len(made) == next(count for count in designs.SIZES if count > size), "both were in runs that went well"
    assert [gain for gain in effects_of(one) if not math.isnan(gain)] == pytest.approx([0.0] * size, abs=1e-9)


@pytest.mark.parametrize("size", [7, 11, 15])
def test_a_ruinous_proposal_costs_few_runs(size: int) -> None:
    runs = []
    for bad in range(size):
        one = batch(size, seed=bad)
        made = play(one, lambda work, bad=bad: 1.0 + 5.0 * (bad in work.has) + 0.0001 * len(work.has))  # type: ignore[misc]
        runs.append(sum(bad in work.has for work in made))
        assert effects_of(one)[bad] == pytest.approx(-5.0001)
    assert max(runs) <= (size + 1) // 2, "no more than in the whole design"
    assert sum(runs) / size < 0.8 * (size + 1) / 2


def test_a_batch_that_was_saved_goes_on_with_the_runs_that_are_missing(tmp_path: Path) -> None:
    file = BatchFile(tmp_path / "batches" / "t.json")
    assert file.load() is None

    def metric(work: Work) -> float | None:
        return None if 2 in work.has else 1.0 - 0.001 * sum(work.has)

    whole = batch(5)
    made = play(whole, metric)
    for most in range(len(made) + 1):
        first = batch(5)
        play(first, metric, most)
        file.save(first.saved)
        saved = file.load()
        assert saved is not None
        assert (saved.seed, saved.head, saved.programs) == (7, "0" * 40, ("p1", "p2", "p3", "p4", "p5"))
        second = Batch(first.members, first.head, saved.seed, NOISE, [], saved.made, saved.alone)
        assert len(play(second, metric)) == len(made) - most
        assert effects_of(second) == pytest.approx(effects_of(whole), abs=1e-9, nan_ok=True)
        assert second.result(3).crash == whole.result(3).crash


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"seed": 1}', '{"seed": 1, "head": "", "programs": [], "made": [[1]]}']
)
def test_a_damaged_file_is_no_batch(tmp_path: Path, text: str) -> None:
    file = BatchFile(tmp_path / "t.json")
    (tmp_path / "t.json").write_text(text)
    assert file.load() is None


def test_nobody_waits_for_runs_of_a_batch_that_failed() -> None:
    one = batch(5)
    one.take()
    one.fail(OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        one.goes_on()


def test_a_metric_far_better_than_the_head_is_suspicious_whatever_the_direction() -> None:
    assert batch(5).suspicious == pytest.approx(0.99)
    assert batch(5, Direction.MAXIMIZE).suspicious == pytest.approx(1.01)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 2)), min_size=1, max_size=12))
def test_a_gain_above_the_needed_one_joins_and_no_other(found: list[tuple[float, float]]) -> None:
    effects = [Effect(gain, error, 6) for gain, error in found]
    belief = Belief.of(effects)
    above = {at for at, one in enumerate(effects) if one.gain > needed(one, belief)}
    near = {at for at, one in enumerate(effects) if abs(one.gain - needed(one, belief)) < 1e-9}
    assert above | near == set(chosen(effects, belief)) | near


def test_nothing_joins_whose_effect_is_unknown() -> None:
    assert needed(Effect(0.0, math.inf, 3), Belief.of([])) == math.inf


def test_the_design_begins_with_the_head_and_has_its_runs_in_another_order_for_each_seed() -> None:
    orders = set()
    for seed in range(5):
        made = play(batch(7, seed=seed), lambda work: 1.0)
        assert (made[0].has, made[0].role) == (frozenset(), Role.INCUMBENT)
        orders.add(tuple(work.has for work in made))
    assert len(orders) > 1
