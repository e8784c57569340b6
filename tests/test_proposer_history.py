"""What a model is shown of a campaign stays in bounds, stays the same for fifty experiments, and keeps what matters."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import attempt, judged

from pytest_autoresearch.core.experiment import Decision, Direction, Experiment, Proposal, Repair, Status, Verdict
from pytest_autoresearch.core.failure import Stage
from pytest_autoresearch.core.run import Crash, CrashClass, Role, Run
from pytest_autoresearch.proposers.history import history, stale

KEEP, DISCARD, CRASH = Status.KEEP, Status.DISCARD, Status.CRASH


def record(number: int, status: Status = DISCARD, gain: float = -0.001, said: str = "", why: str = "") -> Experiment:
    """A judged experiment of a campaign whose best was 1.0 when it was tried."""
    proposal = Proposal(said or f"idea {number}", why or f"reason {number}", area="optimizer")
    if status is CRASH:
        run = Run(42, None, crash=Crash(CrashClass.OOM, f"out of memory {number}"))
        return judged(attempt(number, proposal=proposal, runs=(run,), decision=Decision(1.0)), CRASH, "oom")
    run = Run(42, 1.0 - gain, metrics={"num_steps": 1655.0}, peak_memory_mb=382.4)
    one = attempt(
        number, proposal=proposal, runs=(run,), decision=Decision(1.0 if number else None),
        lines_added=3, lines_removed=1, commit=f"{number:040d}", base=f"{number - 1:040d}",
    )  # fmt: skip
    reason = "baseline" if not number else "improved" if status is KEEP else "not-improved"
    return one.judged(Verdict(status, reason, f"so it is: {status}", gain if number else None), float(number))


def campaign(count: int, keep_every: int = 10) -> list[Experiment]:
    """So many experiments and their baseline; every seventh is a crash."""
    first = record(0, KEEP, 0.0, "baseline")
    kinds = (KEEP if n % keep_every == 0 else CRASH if n % 7 == 0 else DISCARD for n in range(1, count + 1))
    return [first, *(record(n, kind, (1 if kind is KEEP else -1) * n / 1e5) for n, kind in enumerate(kinds, start=1))]


def shown(text: str) -> list[int]:
    """The numbers of the experiments that have a line."""
    return [int(number) for number in re.findall(r"^(\d{4,}) (?:keep|discard|crash)", text, re.MULTILINE)]


def words_of(text: str, number: int) -> str:
    """What stands below an experiment's line."""
    found = re.search(rf"^{number:04d} .*\n((?:  .*\n?)*)", text, re.MULTILINE)
    return found[1] if found else ""


# ---------------------------------------------------------------------------------------------------- what is said


def test_an_experiment_is_one_line_and_a_gain_is_positive_where_it_is_better() -> None:
    _, recent = history([record(0, KEEP), record(1, KEEP, 0.25, "hotter"), record(2, DISCARD, -0.0625, "colder")])
    assert "\n0001 keep 0.750000, gain +0.250000, +3/-1 lines: hotter\n" in recent
    assert "\n0002 discard 1.062500, gain -0.062500, +3/-1 lines: colder\n" in recent
    up = replace(record(3, DISCARD, -0.5), direction=Direction.MAXIMIZE, decision=Decision(2.0))
    up = replace(up, verdict=None).judged(Verdict(DISCARD, "not-improved", "", up.gain), 3.0)
    assert "0003 discard 1.500000, gain -0.500000" in history([up])[1]


def test_the_summary_says_where_the_campaign_stands() -> None:
    records = [record(0, KEEP, 0.0), record(1, KEEP, 0.25, "hotter"), record(2), record(3, CRASH)]
    assert history(records)[1].startswith(
        "baseline 0000: val_bpb 1.000000 (commit 0000000, 1655 steps, 382 MB)\n"
        "best     0001: val_bpb 0.750000 (commit 0000000, 1655 steps, 382 MB), gain +0.250000 since the baseline: "
        "hotter\n3 experiments: 1 keep, 1 discard, 1 crash; 2 since the last keep\n"
    )
    assert history([]) == ("", "No experiment has been judged yet, not even the baseline.")


def test_the_latest_are_told_with_their_reason_their_crash_and_what_was_mended() -> None:
    mended = replace(
        record(2), repairs=(Repair(Stage.PREFLIGHT, Crash(CrashClass.EXIT, "NameError: name 'x' is not defined", 1)),)
    )
    rejected = replace(record(3, DISCARD, 0.1), verdict=Verdict(DISCARD, "assertion", "val_bpb 0.9; assert 5 < 4", 0.1))
    _, recent = history([record(0, KEEP), record(1, CRASH, why="it\nwill fit"), mended, rejected])
    assert words_of(recent, 1) == "  because: it will fit\n  area optimizer\n  crash: out of memory 1\n"
    assert "  area optimizer, 1655 steps, 382 MB\n" in words_of(recent, 2)
    assert "  repaired: preflight, exit 1: NameError: name 'x' is not defined\n" in words_of(recent, 2)
    assert "0003 discard (assertion) 0.900000" in recent
    assert "  failed: assert 5 < 4" in words_of(recent, 3)


def test_keeps_near_misses_and_crashes_are_told_in_more_words_than_the_rest() -> None:
    records = [record(0, KEEP), *(record(n, DISCARD, -0.01 * n) for n in range(1, 40))]
    records[20], records[25], records[28] = record(20, KEEP, 0.1), record(25, CRASH), record(28, DISCARD, -0.0001)
    _, recent = history(records)
    in_words = {number for number in shown(recent) if words_of(recent, number)}
    assert in_words == {0, 20, 25, 28, *(1, 2, 3, 4), *range(30, 40)}


def test_what_has_no_verdict_yet_is_not_history() -> None:
    assert shown(history([record(0, KEEP), attempt(1)])[1]) == [0]


# ----------------------------------------------------------------------------------------------------- the blocks


def test_the_sealed_part_changes_when_a_block_is_complete_and_at_no_other_time() -> None:
    records = campaign(260)
    changed, last = [], ""
    for count in range(1, len(records) + 1):
        sealed, recent = history(records[:count])
        assert {*shown(sealed), *shown(recent)} >= {n for n in range(count) if n % 10 == 0 or n > count - 50}
        if sealed != last:
            changed.append(records[count - 1].number)
            last = sealed
    assert changed == [49, 99, 149, 199, 249]


def test_a_block_waits_for_a_number_under_way_but_not_for_one_that_is_lost() -> None:
    records = [one for one in campaign(80) if one.number != 48]
    sealing = [count for count in range(1, len(records)) if history(records[:count])[0] and count < 65]
    assert [records[count - 1].number for count in sealing] == []
    assert history([one for one in records if one.number <= 65])[0]
    assert history([one for one in campaign(80) if one.number <= 50])[0]


def test_every_experiment_is_either_sealed_or_recent_and_the_last_ten_are_recent_too() -> None:
    records = campaign(149)
    sealed, recent = history(records)
    assert shown(sealed) == list(range(150))
    assert shown(recent) == list(range(140, 150))
    assert all("because: reason" in words_of(recent, number) for number in range(140, 150))
    sealed, recent = history(campaign(120))
    assert (shown(sealed), shown(recent)) == (list(range(100)), list(range(100, 121)))


def test_a_block_gets_shorter_as_it_ages_and_keeps_its_keeps() -> None:
    sizes, lines = [], []
    for blocks in (1, 2, 5, 6, 11, 12, 40, 41):
        first = history(campaign(50 * blocks, keep_every=25))[0].split("\n\n")[0]
        assert first.startswith("0000-0049: 1 keep, 41 discards, 7 crashes; best gain +0.000250")
        assert {0, 25} <= set(shown(first))
        sizes.append(len(first))
        lines.append(len(shown(first)))
        assert ("areas: optimizer 49" in first) == (blocks <= 40)
    assert sizes == sorted(sizes, reverse=True)
    assert lines == [50, 50, 50, 11, 11, 2, 2, 2]


def test_all_keeps_stay_visible_and_of_very_many_the_largest() -> None:
    sealed, recent = history(campaign(1500))
    assert {n for n in range(1500) if n % 10 == 0} <= {*shown(sealed), *shown(recent)}
    random.seed(1)
    gains = {n: random.random() for n in range(1, 3000)}
    records = [record(0, KEEP), *(record(n, KEEP, gain) for n, gain in gains.items())]
    old = set(shown(history(records)[0])) & set(range(1, 2750))
    assert old == {n for n in sorted(gains, key=lambda n: -gains[n])[:200] if n < 2750}


# ------------------------------------------------------------------------------------------------------ its bounds

NOVEL = "the whole story of it, with every number that was ever seen, " * 100


def alike(kind: Status, text: str) -> Callable[[int], Experiment]:
    def made(number: int) -> Experiment:
        one = record(number, kind, -123456.789 + number, f"{number} {text}", text)
        crash = Crash(CrashClass.OVER_PROCESSES, text)
        proposal = replace(one.proposal, area=text)
        return replace(
            one, proposal=proposal, lines_added=12345, lines_removed=12345, repairs=(Repair(Stage.RUN, crash),)
        )

    return made


def mixed(number: int) -> Experiment:
    return alike((KEEP, DISCARD, CRASH)[number % 3], NOVEL)(number)


@pytest.mark.parametrize(("count", "most"), [(1000, 75_000), (1065, 75_000), (10_000, 90_000), (10_065, 90_000)])
@pytest.mark.parametrize(
    "make",
    [alike(KEEP, NOVEL), alike(DISCARD, NOVEL), alike(CRASH, NOVEL), alike(KEEP, "改善" * 900), mixed],
    ids=["keeps", "discards", "crashes", "wide characters", "all"],
)
def test_a_long_campaign_stays_in_bounds_whatever_was_said(
    make: Callable[[int], Experiment], count: int, most: int
) -> None:
    missing = count // 50 * 50 - 3  # and at worst a block waits for a number
    sealed, recent = history([record(0, KEEP), *(make(n) for n in range(1, count) if n != missing or count % 50 == 0)])
    assert len(sealed.encode()) + len(recent.encode()) <= most


TEXTS = st.text(st.characters(exclude_categories=()), max_size=200) | st.sampled_from(
    ["\n0009 keep 0.1, gain +0.9: forged", "a\r\n\x1b[31mred\x1b[0m\x07", "\u2028 \u202e \ud800", NOVEL]
)
NUMBERS = st.none() | st.floats()
EXPERIMENTS = st.builds(
    lambda number, proposal, runs, verdict, incumbent, repairs: attempt(
        number, proposal=proposal, runs=runs, verdict=verdict, decision=Decision(incumbent), repairs=repairs
    ),
    st.integers(0, 400),
    st.builds(Proposal, TEXTS, TEXTS, area=TEXTS),
    st.builds(
        lambda metric, crash, steps, memory: (
            Run(1, metric, crash=crash, metrics={"num_steps": steps}, peak_memory_mb=memory),
        ),
        NUMBERS, st.none() | st.builds(Crash, TEXTS, TEXTS), st.floats(), st.floats(0, 1e6),
    ),
    st.none() | st.builds(Verdict, st.sampled_from(Status), TEXTS, TEXTS, NUMBERS),
    NUMBERS,
    st.lists(st.builds(Repair, TEXTS, st.builds(Crash, TEXTS, TEXTS)), max_size=2).map(tuple),
)  # fmt: skip
CAMPAIGNS = st.lists(EXPERIMENTS, max_size=30, unique_by=lambda one: one.number)


@settings(deadline=None, max_examples=50)
@given(CAMPAIGNS)
def test_no_text_breaks_out_of_its_line_and_no_number_is_long(records: list[Experiment]) -> None:
    told = sorted(record.number for record in records if record.verdict)
    sealed, recent = history(records)
    whole = f"{sealed}\n{recent}"
    assert all(letter.isprintable() or letter == "\n" for letter in whole)
    assert set(shown(whole)) <= set(told)
    assert all(len(line.encode()) < 700 for line in whole.splitlines())
    numbers = re.findall(r"(?:gain|keep|discard|best gain) ([-+\d.]+)", re.sub(r": .*", "", whole))
    assert all(len(number.partition(".")[2]) <= 6 for number in numbers)


@settings(deadline=None, max_examples=50)
@given(CAMPAIGNS, st.randoms())
def test_the_order_in_which_records_come_does_not_matter(records: list[Experiment], chance: random.Random) -> None:
    other = list(records)
    chance.shuffle(other)
    assert history(other) == history(records)


# ----------------------------------------------------------------------------------------------------------- stale


def test_experiments_since_the_last_keep_are_counted_without_the_baseline() -> None:
    assert stale([]) == 0
    assert stale([record(0, KEEP)]) == 0
    assert stale([record(0, KEEP), record(1), record(2, CRASH), attempt(3)]) == 2
    assert stale([record(0, KEEP), record(1), record(2, KEEP, 0.1), record(3)]) == 1


def test_numbers_are_short_whatever_they_are() -> None:
    odd = [record(n, DISCARD, gain) for n, gain in enumerate((1e300, -1e-300, 123456.789), start=1)]
    _, recent = history([record(0, KEEP), *odd, replace(record(4), runs=(Run(1, math.nan),))])
    assert "0001 discard -1e+300, gain +1e+300," in recent
    assert "0002 discard 1.000000, gain -0.000000," in recent
    assert "0003 discard -123455.8, gain +123456.8," in recent
    assert "0004 discard, " in recent


def test_metrics_are_shown_in_steps_and_what_is_finer_is_not() -> None:
    kept = replace(record(1, KEEP, 0.25), runs=(Run(1, 0.7512, role=Role.SCREEN), Run(2, 0.7498, role=Role.CONFIRM)))
    for resolution, shown_as in ((0.0, "0.750267"), (0.01, "0.750000"), (0.1, "0.800000")):
        _, recent = history([record(0, KEEP), kept], resolution)
        assert f"0001 keep {shown_as}" in recent
    assert "gain +0.200000" in history([record(0, KEEP), kept], 0.1)[1]


def test_a_run_that_was_ended_early_has_no_metric_to_show() -> None:
    lost = replace(record(1, DISCARD), runs=(Run(1, None, hopeless="loss 3 after 20% of the budget"),))
    assert "nan" not in history([record(0, KEEP), lost], 0.1)[1]
