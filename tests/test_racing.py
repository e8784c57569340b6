"""Racing learns from finished runs how far behind a run may be."""

from __future__ import annotations

import random

import pytest

from pytest_autoresearch.core.experiment import Direction
from pytest_autoresearch.core.loss_curve import CHECKPOINTS, Curve, LossCurve, smoothed
from pytest_autoresearch.keeprule.racing import FINISHED, Race, Racer, distorts, is_spared

BEST = 1.0
SEED = 42


def curve(final: float, random_: random.Random, until: float = 1.0, noise: float = 0.002, data: int = 0) -> Curve:
    """A loss that falls to `final`, with a step every half percent; `data` is what the batches do to all programs."""
    batches = random.Random(data)
    drift = random_.gauss(0, noise)
    points = []
    for step in range(1, int(200 * until) + 1):
        share = step / 200
        loss = final + 3 * (1 - share) ** 2 + drift * (1 - share) + batches.gauss(0, 0.5)
        points.append((share, loss))
    return points


def taught(finished: int, direction: Direction = Direction.MINIMIZE, seed: int = 1) -> tuple[Racer, random.Random]:
    """A racer that has seen so many runs, some of them far behind and a few a little ahead."""
    sign = 1 if direction is Direction.MINIMIZE else -1
    random_ = random.Random(seed)
    racer = Racer(direction)
    for number in range(finished):
        final = BEST + (0.0, 0.001, 0.02, -0.001)[number % 4]
        racer.learn(SEED, smoothed(curve(final, random_)), sign * final, won=number == 0)
    return racer, random_


def hopeless(racer: Racer, seed: int, losses: LossCurve, bar: float) -> bool:
    """Whether a run with this curve so far is ended."""
    return bool(Race(racer, seed, bar, spared=False).look(losses))


def test_a_loss_is_smoothed_over_the_tenth_before_each_checkpoint() -> None:
    losses = smoothed([(step / 100, step / 100) for step in range(1, 46)])
    assert losses[:3] == pytest.approx([0.155, 0.255, 0.355])
    assert losses[3:] == (None,) * 5
    assert smoothed([]) == (None,) * len(CHECKPOINTS)


def test_a_run_far_behind_is_hopeless_and_one_that_keeps_up_is_not() -> None:
    racer, random_ = taught(24)
    behind, level = curve(BEST + 0.05, random_), curve(BEST, random_)
    for share in CHECKPOINTS:
        reached = int(200 * share)
        assert hopeless(racer, SEED, smoothed(behind[:reached]), BEST)
        assert not hopeless(racer, SEED, smoothed(level[:reached]), BEST)


def test_nothing_is_stopped_before_a_fifth_of_the_budget() -> None:
    racer, random_ = taught(24)
    assert not hopeless(racer, SEED, smoothed(curve(BEST + 5, random_, until=0.195)), BEST)


def test_nothing_is_stopped_before_eight_runs_were_finished() -> None:
    for finished in (FINISHED - 1, FINISHED):
        racer, random_ = taught(finished)
        assert hopeless(racer, SEED, smoothed(curve(BEST + 0.5, random_)), BEST) is (finished == FINISHED)


def test_a_run_on_a_seed_of_its_own_is_not_raced() -> None:
    racer, random_ = taught(24)
    assert not hopeless(racer, 7, smoothed(curve(BEST + 0.5, random_, data=7)), BEST)


def test_one_run_on_a_seed_shows_what_its_data_do_to_a_loss() -> None:
    racer, random_ = taught(24)
    racer.learn(7, smoothed(curve(BEST, random_, data=7)), BEST, won=True)
    assert hopeless(racer, 7, smoothed(curve(BEST + 0.5, random_, data=7)), BEST)
    assert not hopeless(racer, 7, smoothed(curve(BEST, random_, data=7)), BEST)


def test_a_bar_that_is_harder_to_beat_stops_more() -> None:
    racer, random_ = taught(40)
    runs = [curve(BEST, random_) for _ in range(20)]
    assert sum(hopeless(racer, SEED, smoothed(run), BEST - 0.03) for run in runs) == 20
    assert sum(hopeless(racer, SEED, smoothed(run), BEST + 0.03) for run in runs) == 0


def test_after_a_win_from_far_behind_another_is_let_run() -> None:
    racer, random_ = taught(24)
    late = [(share, loss + 0.05 * (1 - share)) for share, loss in curve(BEST - 0.001, random_)]
    assert hopeless(racer, SEED, smoothed(late[:60]), BEST)
    racer.learn(SEED, smoothed(late), BEST - 0.001, won=True)
    assert not hopeless(racer, SEED, smoothed(late[:60]), BEST)


def test_a_metric_that_rises_is_raced_by_a_loss_that_falls() -> None:
    racer, random_ = taught(24, Direction.MAXIMIZE)
    assert hopeless(racer, SEED, smoothed(curve(BEST + 0.05, random_)), -BEST)
    assert not hopeless(racer, SEED, smoothed(curve(BEST, random_)), -BEST)


def test_few_runs_that_would_have_won_are_stopped() -> None:
    stopped = tried = 0
    for seed in range(40):
        racer, random_ = taught(16, seed=seed)
        for _ in range(10):
            run = curve(BEST - 0.0005, random_)
            tried += 1
            stopped += any(hopeless(racer, SEED, smoothed(run[: int(200 * share)]), BEST) for share in CHECKPOINTS)
    assert stopped <= 0.02 * tried


def test_one_experiment_in_ten_is_spared_and_always_the_same() -> None:
    spared = [number for number in range(10_000) if is_spared(number)]
    assert 900 < len(spared) < 1100
    assert spared == [number for number in range(10_000) if is_spared(number)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_teaches_nothing(loss: float) -> None:
    racer, random_ = taught(24)
    broken = [(share, loss) for share, _ in curve(BEST, random_)]
    racer.learn(SEED, smoothed(broken), BEST, won=False)
    assert hopeless(racer, SEED, smoothed(broken), BEST) is (
        loss == float("inf")
    )  # a nan is a crash, and training's own to say
    assert hopeless(racer, SEED, smoothed(curve(BEST + 0.5, random_)), BEST)


def test_runs_that_all_ended_alike_are_no_reason_to_fail() -> None:
    racer = Racer()
    same = curve(BEST, random.Random(1))
    for _ in range(12):
        racer.learn(SEED, smoothed(same), BEST, won=False)
    assert not hopeless(racer, SEED, smoothed(same), BEST)


def test_a_race_is_looked_at_once_for_each_checkpoint_and_says_why_it_ends() -> None:
    racer, random_ = taught(24)
    behind = curve(BEST + 0.05, random_)
    race = Race(racer, SEED, BEST, spared=False)
    assert race.look(smoothed(behind[:39])) == ""
    said = race.look(smoothed(behind[:41]))
    assert said == race.hopeless
    assert said.startswith("loss ")
    assert "after 20% of the budget" in said
    assert said.endswith("the limit for beating 1")
    spared = Race(racer, SEED, BEST, spared=True)
    assert spared.look(smoothed(behind[:41])) == ""
    assert spared.hopeless == said


@pytest.mark.parametrize(
    ("line", "bent"),
    [("BATCH_SCALE = 2.0", True), ("loss = F.cross_entropy(x, y)", True), ("warmdown = 0.5", True),
     ("MATRIX_LR = 0.06", False), ("x = F.relu(x).square()", False), ("", False)],
)  # fmt: skip
def test_a_line_about_batches_schedules_or_the_loss_bends_a_curve(line: str, bent: bool) -> None:
    assert distorts([line]) is bent


def test_a_metric_that_the_loss_does_not_foretell_is_not_raced() -> None:
    random_ = random.Random(3)
    racer = Racer(Direction.MAXIMIZE)
    for _ in range(24):  # tokens a second, say: whatever the loss does
        racer.learn(SEED, smoothed(curve(BEST + random_.gauss(0, 0.01), random_)), random_.gauss(100, 1), won=False)
    for _ in range(20):
        assert not hopeless(racer, SEED, smoothed(curve(BEST + 0.2, random_)), 101)
