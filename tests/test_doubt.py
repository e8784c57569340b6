"""Which runs say something of their program, and which of the machine."""

from __future__ import annotations

import pytest

from pytest_autoresearch.doubt import doubt
from pytest_autoresearch.experiment import Crash, Run


def run(
    *others: str, steps: float = 0, crash: str = "", device: str = "GPU-1", **throttling: float
) -> Run:  # fmt: skip
    return Run(
        seed=42, metric=None if crash else 1.0, training_seconds=100.0, device=device, others=others,
        metrics={"num_steps": steps} if steps else {}, crash=Crash(crash, "it failed") if crash else None,
        throttling={name.replace("_", " "): share for name, share in throttling.items()},
    )  # fmt: skip


QUIET = run(steps=1000)


def test_a_quiet_run_is_beyond_doubt() -> None:
    assert doubt(QUIET, [], []) == ""
    assert doubt(QUIET, [QUIET] * 3, [QUIET] * 3) == ""


def test_a_neighbour_that_computes_is_named() -> None:
    said = doubt(run("python (process 17)"), [], [QUIET])
    assert said == "python (process 17) computed on the same GPU"


def test_a_screen_and_what_was_there_for_the_baseline_are_no_neighbours() -> None:
    assert doubt(run("Xorg (process 3), drawing"), [], [QUIET]) == ""
    assert doubt(run("monitor (process 9)"), [], [run("monitor (process 4)")]) == ""
    assert doubt(run("monitor (process 9)"), [], []) != ""


def test_out_of_memory_beside_a_neighbour_is_the_neighbours() -> None:
    assert doubt(run("python (process 17)", crash="oom"), [], [QUIET]) != ""
    assert doubt(run(crash="oom"), [], [QUIET]) == ""
    assert doubt(run("python (process 17)", crash="exit 1"), [], [QUIET]) == ""


def test_heat_is_told_against_the_baseline() -> None:
    hot = run(**{"thermal_(hardware)": 0.4})
    assert (
        doubt(hot, [], [QUIET]) == "the GPU was held back (thermal (hardware)) in 40% of the looks; at most 0% before"
    )
    assert doubt(hot, [], [run(**{"thermal_(hardware)": 0.38})]) == ""
    assert doubt(run(**{"thermal_(hardware)": 0.04}), [], [QUIET]) == ""
    assert doubt(run(power_brake=0.2), [], []) != ""


def test_the_power_cap_is_the_programs_unless_the_same_program_was_held_less() -> None:
    capped = run(power_cap=0.6)
    assert doubt(capped, [], [QUIET]) == ""
    assert doubt(capped, [run(power_cap=0.5)], [QUIET]) == ""
    assert "power cap" in doubt(capped, [run(power_cap=0.1)], [QUIET])


@pytest.mark.parametrize(("steps", "others", "doubted"), [
    (960, [1000], False), (940, [1000], True), (1060, [1000], True), (940, [], False),
    (1000, [900, 1000], False),  # one of two agrees: the other was the slow one
    (900, [1000, 1000, 910], True),
])  # fmt: skip
def test_another_rate_of_steps_than_most_runs_of_the_program_is_doubted(
    steps: float, others: list[float], doubted: bool
) -> None:
    assert bool(doubt(run(steps=steps), [run(steps=other) for other in others], [QUIET])) is doubted


def test_on_a_cpu_there_is_no_telling() -> None:
    assert doubt(run("python (process 17)", steps=500, device=""), [QUIET], [QUIET]) == ""
