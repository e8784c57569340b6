"""Which runs say something of their program, and which of the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_autoresearch.core.run import Crash, CrashClass, Limits, Role, Run
from pytest_autoresearch.measure.validity import disturbed, honestly_out_of_memory, unsteady


def run(
    *others: str, steps: float = 0, crash: CrashClass | None = None, device: str = "GPU-1", **throttling: float
) -> Run:  # fmt: skip
    return Run(
        seed=42, metric=None if crash else 1.0, training_seconds=100.0, device=device, others=others,
        metrics={"num_steps": steps} if steps else {}, crash=Crash(crash, "it failed") if crash else None,
        throttling={name.replace("_", " "): share for name, share in throttling.items()},
    )  # fmt: skip


QUIET = run(steps=1000)
HOT = "thermal_(hardware)"


def test_a_quiet_run_is_beyond_doubt() -> None:
    assert disturbed(QUIET, []) == unsteady(QUIET, [], []) == ""
    assert disturbed(QUIET, [QUIET] * 3) == unsteady(QUIET, [QUIET] * 3, [QUIET] * 3) == ""


def test_a_neighbour_that_computes_is_named() -> None:
    assert disturbed(run("python (process 17)"), [QUIET]) == "python (process 17) computed on the same GPU"


def test_a_screen_and_what_was_there_for_the_baseline_are_no_neighbours() -> None:
    assert disturbed(run("Xorg (process 3), drawing"), [QUIET]) == ""
    assert disturbed(run("monitor (process 9)"), [run("monitor (process 4)")]) == ""
    assert disturbed(run("monitor (process 9)"), []) != ""


def test_out_of_memory_beside_a_neighbour_is_the_neighbours() -> None:
    assert disturbed(run("python (process 17)", crash=CrashClass.OOM), [QUIET]) != ""
    assert disturbed(run(crash=CrashClass.OOM), [QUIET]) == ""
    assert disturbed(run("python (process 17)", crash=CrashClass.EXIT), [QUIET]) == ""


def test_heat_is_told_against_what_is_usual() -> None:
    hot = run(**{HOT: 0.4})
    assert (
        unsteady(hot, [], [QUIET])
        == "the GPU was throttled (thermal (hardware)) in 40% of the looks, before in at most 0%"
    )
    assert unsteady(hot, [], [run(**{HOT: 0.38})]) == ""
    assert unsteady(hot, [run(**{HOT: 0.38})], [QUIET]) == "", "a program that was hot before, and counted"
    assert unsteady(run(**{HOT: 0.04}), [], [QUIET]) == ""
    assert unsteady(hot, [], []) == "", "a card that is always warm has a baseline all the same"


def test_the_power_cap_is_the_programs_unless_the_same_program_was_held_less() -> None:
    capped = run(power_cap=0.6)
    assert unsteady(capped, [], [QUIET]) == ""
    assert unsteady(capped, [run(power_cap=0.5)], [QUIET]) == ""
    assert "power cap" in unsteady(capped, [run(power_cap=0.1)], [QUIET])


@pytest.mark.parametrize(("steps", "others", "doubted"), [
    (960, [1000], False), (940, [1000], True), (1060, [1000], True), (940, [], False),
    (1000, [900, 1000], False),  # one of two agrees: the other was the slow one
    (900, [1000, 1000, 910], True),
])  # fmt: skip
def test_another_rate_of_steps_than_most_runs_of_the_program_is_doubted(
    steps: float, others: list[float], doubted: bool
) -> None:
    assert bool(unsteady(run(steps=steps), [run(steps=other) for other in others], [QUIET])) is doubted


def test_where_the_baseline_itself_is_unsteady_more_is_allowed() -> None:
    baseline = [replace(run(steps=steps), role=Role.BASELINE) for steps in (950, 1000, 1050)]
    assert unsteady(run(steps=900), [run(steps=1000)], baseline) == ""
    assert unsteady(run(steps=800), [run(steps=1000)], baseline) != ""


def test_on_a_cpu_there_is_no_telling() -> None:
    there = run("python (process 17)", steps=500, device="")
    assert disturbed(there, [QUIET]) == unsteady(there, [QUIET], [QUIET]) == ""


def test_a_program_that_is_out_of_memory_late_gets_no_other_run_whatever_it_holds() -> None:
    limits = Limits(budget_seconds=100.0, startup_seconds=30.0, deadline_seconds=300.0, memory_limit_mb=1000.0)
    early = replace(run(crash=CrashClass.OOM), training_seconds=5.0)
    late, full = replace(early, training_seconds=90.0), replace(early, training_seconds=90.0, peak_memory_mb=950.0)
    assert [honestly_out_of_memory(one, limits) for one in (early, late, full, QUIET)] == [True, False, False, False]
