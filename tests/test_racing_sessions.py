"""Racing in whole sessions: a trainer that prints its loss, and runs that are ended since they can come to nothing."""

from __future__ import annotations

import math

import pytest
from repo import Repo

from pytest_autoresearch.core.experiment import Experiment
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.keeprule.racing import is_spared, races

BUDGET = 1.0
# A loss that falls to ACTION's number, and the metric with a deviation that seed and program decide. It falls slowly:
# on a busy machine a loss is heard late.
TRAINER = """
import os, random, time

ACTION = "1.0"
seed = int(os.environ["AUTORESEARCH_SEED"])
mean = float(ACTION.partition(":")[0])
batches, drawn = random.Random(seed), random.Random(f"{seed} {ACTION}")
metric, bend = mean + drawn.gauss(0, 0.004), drawn.gauss(0, 0.02)
begun = time.monotonic()
step = 0
while (share := (time.monotonic() - begun) / BUDGET) < 1:
    step += 1
    print(f"step {step} loss: {mean + bend + 0.5 * (1 - share) + batches.gauss(0, 0.01):.4f}", flush=True)
    time.sleep(0.01)
print("---")
print("val_bpb:", f"{metric:.6f}")
print(f"training_seconds: {time.monotonic() - begun:.3f}")
print("num_steps:", step)
""".replace("BUDGET", str(BUDGET))
USUAL = [f"1.0{number}" for number in range(1, 8)]  # with the baseline's, eight runs on the first seed


def stopped(record: Experiment) -> list[Run]:
    return [run for run in record.runs if run.stopped]


@pytest.mark.night
def test_a_night_of_races(repo: Repo) -> None:
    repo.write("train.py", TRAINER)
    repo.rule(
        """
        def test_val_bpb_improves(experiment):
            assert experiment.training_seconds < 60
            assert experiment.num_steps > 0  # which a run that was stopped has not printed
            assert experiment.val_bpb < experiment.best - experiment.margin
        """
    )
    batches = repo.path / "conftest.py"
    batches.write_text(
        batches.read_text().replace('# {context.number}"', "# {context.number}{' batch' * (context.number == 9)}\"")
    )
    repo.commit("The ninth speaks of batches")
    repo.plan(*USUAL, *["2.01", "2.02", "2.03", "2.04", "2.05"], "0.8")

    def session(count: int, *arguments: str) -> str:
        given = ("--autoresearch-confirm", "standard") if "--autoresearch-confirm" not in arguments else ()
        result = repo.run("--autoresearch-budget", str(BUDGET), "--max", str(count), *given, *arguments)
        assert result.ret == 0, result.stdout.str()
        return str(result.stdout.str())

    output = session(len(USUAL))
    assert "stopped early" not in output
    for run in repo.records()[0].runs:
        known = [loss for loss in run.losses if loss is not None]
        assert len(known) >= 6
        assert known == sorted(known, reverse=True)

    # A new session races by what the records hold: 0008 is stopped, 0009 cannot be compared, 0011 is let finish.
    assert [is_spared(number) for number in (8, 9, 10, 11)] == [False, False, False, True]
    output = session(4)
    records = repo.records()
    assert [repo.reasons()[number] for number in (8, 9, 10, 11)] == ["hopeless", "regression", "hopeless", "regression"]
    assert {repo.statuses()[number] for number in (8, 9, 10, 11)} == {"discard"}
    assert "2 stopped early" in output
    assert "0 of 1 control run would have been stopped wrongly" in output
    lost = records[8]
    (run,) = stopped(lost)
    assert (run.metric, run.crash) == (None, None)
    assert run.training_seconds > 0.15 * BUDGET
    assert run.bar == pytest.approx(1.0, abs=0.1)
    assert math.isnan(lost.metric)
    assert math.isinf(lost.margin)
    failure = repo.case(8).find("failure")
    assert failure is not None
    assert "its screen run was stopped: loss" in str(failure.get("message"))
    row = next(row for row in repo.rows() if row[0] == lost.commit[:7])
    assert (row[1], row[3]) == ("nan", "discard")
    assert (records[8].comparable, records[9].comparable) == (True, False)
    assert (records[9].runs[0].bar, records[9].metric) == (None, pytest.approx(2.02, abs=0.05))
    assert records[11].runs[0].hopeless
    assert records[11].runs[0].metric == pytest.approx(2.02, abs=0.05)
    assert races(records).stopped == 2

    # Neither where the acceptance test wants something else than the keep rule, nor where one run decides.
    repo.rule("def test_anything_that_is_not_far_off(experiment):\n    assert experiment.val_bpb < 1.2\n")
    session(1)
    session(1, "--autoresearch-confirm", "off", "--autoresearch-racing", "on")
    assert not any(run.hopeless for record in repo.records()[12:] for run in record.runs)
    assert repo.statuses()[13] == "keep"
    repo.check_ledger()
